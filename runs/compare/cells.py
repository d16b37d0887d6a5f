"""Stores the cells of a comparison in an Optuna study: one trial for each method on each draw."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.cache import CacheWarning, digest_of, read_block, write_block
from promptsearch.evaluators.scoring.metrics import Judged
from promptsearch.runs.store.heartbeat import Heartbeat, retry_stale
from promptsearch.runs.store.process_id import is_dead, this_process
from promptsearch.runs.store.record import RunRecord
from promptsearch.runs.store.storage import alone


@dataclass(frozen=True)
class Cell:
    """One method on one draw of a data set.

    Attributes:
        method: Name of the method.
        dataset: Name of the data set, which is no part of the key: `inputs` identify its pictures.
        shots: Labelled pictures per class.
        seed: Seed of the draw.
        inputs: Hash of all else that the result depends on.
    """

    method: str
    dataset: str
    shots: int
    seed: int
    inputs: str

    @property
    def key(self) -> str:
        """Short hash that identifies the cell."""
        return _key_of(asdict(self))

    def __str__(self) -> str:
        return f"{self.method} on {self.dataset}, {self.shots} shots, seed {self.seed}"


class Cells:
    """The cells of a comparison, shared by all processes that compute it.

        cells = Cells(record, folder)
        with cells.alive():
            if (claim := cells.claim(cell)) is not None:
                cells.finish(claim, cell, {"seconds": 1.5}, {"row 0": weights})
        figures, arrays = cells.done()[cell.key], cells.arrays(cell)

    A cell's figures are an attribute of its trial, and its arrays are a file in `folder`. A process claims a cell under
    the storage's lock before it computes it. The cell of a process that died is computed again (a training resumes from
    its checkpoint): at once if the process was on this machine, otherwise when its heartbeat has stopped. Machines that
    share a comparison should share `folder` too; otherwise each computes the cells whose arrays it does not have.
    A file whose checksum does not match is deleted with a warning, and its cell computed again.

    Args:
        record: The comparison's study; None in a worker that only computes.
        folder: Folder of the arrays.
    """

    def __init__(self, record: RunRecord | None, folder: Path) -> None:
        self._record, self.folder = record, folder
        self._heartbeat = None if record is None else Heartbeat(record.storage)
        self._verified: dict[Path, tuple[int, int]] = {}  # time of modification and size

    @property
    def record(self) -> RunRecord:
        """The comparison's study."""
        assert self._record is not None
        return self._record

    def alive(self) -> Heartbeat:
        """Context manager that keeps this process's claims alive."""
        assert self._heartbeat is not None
        return self._heartbeat

    def done(self) -> dict[str, dict[str, Any]]:
        """Return the figures of every finished cell whose arrays exist, by key."""
        from optuna.trial import TrialState

        with self.record.recording():
            trials = self.record.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        found = {t.user_attrs["key"]: t.user_attrs["figures"] for t in trials if "key" in t.user_attrs}
        return {key: figures for key, figures in found.items() if self._whole(self._file(key))}

    def count(self) -> int:
        """Return the number of finished cells in the study, including those of earlier comparisons."""
        from optuna.trial import TrialState

        return len(self.record.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    def claim(self, cell: Cell) -> int | None:
        """Claim a cell for this process.

        Returns:
            The id of its trial, or None if another process is computing the cell or has finished it.
        """
        import optuna
        from optuna.trial import TrialState

        record = self.record
        storage = record.study._storage
        with record.recording(), alone(record.storage):
            retry_stale(record.study)
            states = (TrialState.RUNNING, TrialState.WAITING, TrialState.COMPLETE)
            trials = record.study.get_trials(deepcopy=False, states=states)
            for t in (t for t in trials if t.user_attrs.get("key") == cell.key):
                if t.state == TrialState.COMPLETE:
                    if self._whole(self._file(cell.key)):
                        return None
                    continue
                owner = t.user_attrs["owner"] if t.state == TrialState.RUNNING else None  # waiting trials have no owner
                if owner not in (None, this_process()) and not is_dead(owner):
                    return None
                claim = t._trial_id
                break
            else:
                attrs = {**asdict(cell), "key": cell.key}
                template = optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=attrs)
                claim = storage.create_new_trial(record.study._study_id, template)
            # This order is safe if the process dies in between: a waiting cell is free, and a running one has sent a
            # heartbeat, without which Optuna would never consider it dead.
            self.alive().hold([claim])
            storage.set_trial_user_attr(claim, "owner", this_process())
            storage.set_trial_state_values(claim, TrialState.RUNNING)  # does nothing if it was running already
            return claim

    def finish(self, claim: int, cell: Cell, figures: dict[str, Any], arrays: dict[str, np.ndarray]) -> bool:
        """Store the result of a cell; the arrays first, so that a finished trial always has them.

        Args:
            claim: The id of the trial, from `claim`.
            cell: The cell.
            figures: JSON-serialisable figures.
            arrays: Arrays by name.

        Returns:
            False if the cell was given to another process meanwhile, because this one was suspended for too long.

        Raises:
            PromptSearchError: The folder or the storage cannot be written.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        self._test_file(cell).unlink(missing_ok=True)
        self._write(self._file(cell.key), cell, arrays)
        storage = self.record.study._storage
        self.alive().release([claim])
        with self.record.recording():
            try:
                storage.set_trial_user_attr(claim, "figures", figures)
                storage.set_trial_state_values(claim, TrialState.COMPLETE, [figures["support"]["xent"]])
            except UpdateFinishedTrialError:
                return False
        return True

    def arrays(self, cell: Cell) -> dict[str, np.ndarray]:
        """Return the arrays of a finished cell.

        Raises:
            PromptSearchError: Their file is missing or damaged.
        """
        arrays = self._read(self._file(cell.key))
        if arrays is None:
            raise PromptSearchError(
                f"{self.folder}: the result of {cell} is missing; run the same command again to compute it again"
            )
        return arrays

    def keep_judged(self, cell: Cell, judged: Judged) -> None:
        """Store a cell's predictions on the test pictures, for methods that are slow to classify them.

        Raises:
            PromptSearchError: The folder cannot be written.
        """
        self._write(self._test_file(cell), cell, {k: np.asarray(v) for k, v in vars(judged).items()})

    def judged(self, cell: Cell) -> Judged | None:
        """Return the stored predictions of a cell's current arrays on the test pictures, or None if there are none."""
        arrays = self._read(self._test_file(cell))
        if arrays is None or arrays.keys() != {
            f.name for f in fields(Judged)
        }:  # a file of an earlier version has only the predicted classes
            return None
        return Judged(**arrays)

    def checkpoint(self, cell: Cell) -> Path:
        """Return the file in which a training of this cell saves its state."""
        return self._file(cell.key).with_suffix(".pt")

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _test_file(self, cell: Cell) -> Path:
        return self._file(cell.key).with_suffix(".test")

    def _whole(self, file: Path) -> bool:
        """Return whether a file exists and is intact.  A file is only read again if it was changed since."""
        try:
            stat = file.stat()
        except OSError:
            return False
        now = (stat.st_mtime_ns, stat.st_size)
        if self._verified.get(file) != now:
            if self._read(file) is None:
                return False
            self._verified[file] = now
        return True

    def _read(self, file: Path) -> dict[str, np.ndarray] | None:
        """Return the arrays of a file, or None if it does not exist or is damaged; a damaged file is deleted."""
        try:
            block = read_block(file)
            if _key_of(block.key) == file.stem:
                return block.arrays
            # Keep the file: another version of promptsearch wrote it, and may still need it.
            message = f"{file}: it holds the result of another cell; this cell is computed again"
            warnings.warn(message, CacheWarning, stacklevel=3)
            return None
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, OSError, RuntimeError) as e:
            message = f"{file}: {e}; this cell of the comparison is computed again"
            warnings.warn(message, CacheWarning, stacklevel=3)
            file.unlink(missing_ok=True)
            return None

    def _write(self, file: Path, cell: Cell, arrays: dict[str, np.ndarray]) -> None:
        try:
            write_block(self.folder, asdict(cell), arrays, {}, file.name)
        except OSError as e:
            raise PromptSearchError(
                f"{self.folder}: the result of {cell} cannot be written ({e.strerror or e}); "
                "free some space, or set PROMPTSEARCH_HOME, and run the same command again"
            ) from e


def _key_of(cell: dict[str, Any]) -> str:
    """Return the hash of a cell's fields except the data set's name, because equal pictures may have several names."""
    return digest_of({k: v for k, v in cell.items() if k != "dataset"})[:16]
