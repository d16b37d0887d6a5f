"""The cells of a comparison in its study: one trial for each method on each draw, computed once, by one process."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.errors import PromptSearchError
from promptsearch.evaluators.cache.store import digest_of
from promptsearch.runs.store.heartbeat import Heartbeat, retry_stale
from promptsearch.runs.store.process_id import is_dead, this_process
from promptsearch.runs.store.record import RunRecord
from promptsearch.runs.store.storage import alone


@dataclass(frozen=True)
class Cell:
    """One method on one draw of one data set, with all else that its result depends on as `inputs`."""

    method: str
    dataset: str
    shots: int
    seed: int
    inputs: str

    @property
    def key(self) -> str:
        return digest_of(asdict(self))[:16]

    def __str__(self) -> str:
        return f"{self.method} on {self.dataset}, {self.shots} shots, seed {self.seed}"


class Cells:
    """What a comparison's study knows of its cells.

        cells = Cells(record, folder)
        with cells.alive():
            if (claim := cells.claim(cell)) is not None:
                cells.finish(claim, cell, {"seconds": 1.5}, {"row 0": weights})
        figures, arrays = cells.done()[cell.key], cells.arrays(cell)

    Figures are an attribute of the trial, arrays a file in `folder` beside the runs.  A claim is taken under the
    storage's lock, so that several processes share the work; the cell of one that died is computed anew (a training
    goes on from its checkpoint): at once where that was a process of this machine, else when its heartbeat has stopped.
    Machines that share a comparison share `folder` as well, or each computes what it has no arrays of.
    """

    def __init__(self, record: RunRecord | None, folder: Path) -> None:
        self._record, self.folder = record, folder
        self._heartbeat = None if record is None else Heartbeat(record.storage)

    @property
    def record(self) -> RunRecord:
        """The study; a worker that only computes has none."""
        assert self._record is not None
        return self._record

    def alive(self) -> Heartbeat:
        """While this is entered, the cells that this process has in hand are kept from others."""
        assert self._heartbeat is not None
        return self._heartbeat

    def done(self) -> dict[str, dict[str, Any]]:
        """The figures of every finished cell whose arrays are there, by key."""
        from optuna.trial import TrialState

        with self.record.recording():
            trials = self.record.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        found = {t.user_attrs["key"]: t.user_attrs["figures"] for t in trials if "key" in t.user_attrs}
        return {key: figures for key, figures in found.items() if self._file(key).exists()}

    def count(self) -> int:
        """How many cells the study holds, those of earlier grids among them."""
        from optuna.trial import TrialState

        return len(self.record.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    def claim(self, cell: Cell) -> int | None:
        """The trial to finish, or None where another process has the cell in hand, or finished it."""
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
                    if self._file(cell.key).exists():
                        return None
                    continue
                owner = t.user_attrs["owner"] if t.state == TrialState.RUNNING else None  # one that waits is nobody's
                if owner not in (None, this_process()) and not is_dead(owner):
                    return None
                claim = t._trial_id
                break
            else:
                attrs = {**asdict(cell), "key": cell.key}
                template = optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=attrs)
                claim = storage.create_new_trial(record.study._study_id, template)
            # Of a process that dies in between: a cell that waits is free, and one that runs has given a sign of life,
            # without which Optuna would never take it for dead.
            self.alive().hold([claim])
            storage.set_trial_user_attr(claim, "owner", this_process())
            storage.set_trial_state_values(claim, TrialState.RUNNING)  # nothing, where it ran already
            return claim

    def finish(self, claim: int, cell: Cell, figures: dict[str, Any], arrays: dict[str, np.ndarray]) -> bool:
        """Keep what a cell gave: the arrays first, so that a finished trial always has them.

        Returns:
            False where the cell was given to another meanwhile, because this process slept so long.

        Raises:
            PromptSearchError: the folder or the storage cannot be written.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        self._predictions(cell).unlink(missing_ok=True)
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
        """What `finish` was given."""
        from safetensors.numpy import load_file

        return load_file(self._file(cell.key))

    def keep_predictions(self, cell: Cell, predictions: np.ndarray) -> None:
        """Keep the classes (n,) that a cell gives the test pictures, where they are dear to compute.

        Raises:
            PromptSearchError: the folder cannot be written.
        """
        self._write(self._predictions(cell), cell, {"predictions": predictions.astype(np.int32)})

    def predictions(self, cell: Cell) -> np.ndarray | None:
        """What `keep_predictions` was given for what the cell holds now, or None."""
        from safetensors.numpy import load_file

        file = self._predictions(cell)
        return load_file(file)["predictions"] if file.exists() else None

    def checkpoint(self, cell: Cell) -> Path:
        """Where a training of this cell keeps its state."""
        return self._file(cell.key).with_suffix(".pt")

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _predictions(self, cell: Cell) -> Path:
        return self._file(cell.key).with_suffix(".test")

    def _write(self, file: Path, cell: Cell, arrays: dict[str, np.ndarray]) -> None:
        from safetensors.numpy import save

        temporary = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder)
            with os.fdopen(handle, "wb") as f:
                f.write(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
            os.replace(temporary, file)
        except OSError as e:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            raise PromptSearchError(
                f"{self.folder}: what {cell} learnt cannot be written ({e.strerror or e}); "
                "make room there, or set PROMPTSEARCH_HOME, and give the same command again"
            ) from e
