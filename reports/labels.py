"""Writes the labels of pictures to a CSV file; a killed process can be resumed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Progress, no_progress
from promptsearch.evaluators.data.encoded_picture import printable_path
from promptsearch.reports.comparison import no_formula
from promptsearch.runs.labelling import Labelled, Labelling


def write_labels(
    labelling: Labelling, out: Path, force: bool = False, progress: Progress = no_progress
) -> list[Labelled]:
    """Write labels to a CSV file, which appears when it is complete; the same call resumes an interrupted one.

    Finished chunks are kept in `OUT.partial`, as a JSON line each.

    Args:
        labelling: The pictures, and how to label them.
        out: The file.
        force: Whether to overwrite the file, or the `OUT.partial` of other pictures or options.
        progress: Called with (files done, files in all, what is being done).

    Returns:
        The labels.

    Raises:
        InputError: The file exists or cannot be written, or `OUT.partial` belongs to other pictures or options.
        PromptSearchError: Another process is writing the file, or the pictures cannot be encoded.
    """
    if out.exists() and not out.is_file():  # otherwise a device would be replaced by a file
        raise InputError(f"{out}: not a regular file; name another, or leave --out out for stdout")
    if out.exists() and not force:
        raise InputError(f"{out}: exists already; name another file, or overwrite it with --force")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    partial, finished = (out.with_name(f"{out.name}.{what}") for what in ("partial", "finished"))
    try:
        with _alone(partial) as journal:
            done = _resume(labelling, journal, partial, force)
            for chunk in labelling.chunks(progress, len(done)):
                done.append(chunk)
                journal.write(json.dumps([asdict(labelled) for labelled in chunk]).encode() + b"\n")
                journal.flush()
                os.fsync(journal.fileno())
            labels = [labelled for chunk in done for labelled in chunk]
            finished.write_bytes(to_csv(labels, labelling.top).encode())
            os.replace(finished, out)
            partial.unlink()
    except OSError as e:
        raise InputError(f"{out}: cannot be written ({e.strerror or e}); name another file") from e
    return labels


@contextlib.contextmanager
def _alone(partial: Path) -> Iterator[IO[bytes]]:
    """Context manager that opens a journal for this process alone."""
    import filelock

    lock = filelock.FileLock(f"{partial}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as e:
        raise PromptSearchError(f"{partial}: another process is writing it; wait for it to end") from e
    try:
        with partial.open("r+b" if partial.exists() else "w+b") as journal:
            yield journal
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _resume(labelling: Labelling, journal: IO[bytes], partial: Path, force: bool) -> list[list[Labelled]]:
    """Return the finished chunks of a journal, and truncate the journal after them."""
    head, *lines = journal.read().split(b"\n")
    ours = json.dumps({"labels": labelling.identity}).encode()
    if lines and head != ours and not force:
        raise InputError(
            f"{partial}: was begun with other pictures or options; give the same ones to resume it, or start again "
            "with --force"
        )
    if not lines or head != ours:
        journal.seek(0)
        journal.write(ours + b"\n")
        lines = []
    done = []
    end = len(ours) + 1
    for line in lines[:-1]:  # an interruption has cut off the last line, if it does not end with a line break
        try:
            done.append([Labelled(**{**row, "best": tuple(map(tuple, row["best"]))}) for row in json.loads(line)])
        except (ValueError, TypeError, KeyError) as e:
            raise InputError(f"{partial}: is damaged; delete it to start again") from e
        end += len(line) + 1
    journal.truncate(end)
    journal.seek(end)
    return done


def to_csv(labels: Sequence[Labelled], top: int, head: bool = True) -> str:
    """Return labels as CSV, in which no cell can be interpreted as a formula.

    Args:
        labels: The labels.
        top: Number of classes to list for each picture; if it is above 1, each has its own columns.
        head: Whether to begin with a header line.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if head:
        ranked = [column for k in range(1, top + 1) for column in (f"class_{k}", f"probability_{k}")]
        writer.writerow(["path", "label", "probability", *(ranked if top > 1 else []), "error"])
    for row in labels:
        ranked = [cell for name, p in row.best for cell in (name, f"{p:.4f}")] or [""] * (2 * top)
        cells = [printable_path(row.path), row.label, ranked[1], *(ranked if top > 1 else []), row.error]
        writer.writerow([no_formula(cell) for cell in cells])
    return buffer.getvalue()
