"""Labels many picture files with a classifier, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from promptsearch.errors import InputError
from promptsearch.evaluators import Progress, default_cache, no_progress
from promptsearch.evaluators.cache import digest_of
from promptsearch.evaluators.data.loose_pictures import CHUNK, encode_chunks, stamp
from promptsearch.runs.classifier import Classifier

#: The label of a picture that is of no known class.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Labelled:
    """A classifier's answer for one picture.

    Attributes:
        path: The file.
        label: The name of the class, "unknown", or "" if the picture could not be read.
        best: The most probable classes with their probabilities, best first.
        error: Why the picture could not be read.
    """

    path: str
    label: str
    best: tuple[tuple[str, float], ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Labelling:
    """The labelling of picture files by a classifier.

        labelling = Labelling(classifier, paths)
        for labelled in labelling.all():
            print(labelled.path, labelled.label)

    Args:
        classifier: The classifier.
        paths: The files.
        top: Number of most probable classes to list for each picture.
        unknown_below: A picture is labelled "unknown" if its best class is less probable than this; None for never.

    Raises:
        InputError: There are fewer classes than `top`, or `unknown_below` is given although a class is called
            "unknown".
    """

    classifier: Classifier
    paths: Sequence[str]
    top: int = 1
    unknown_below: float | None = None

    def __post_init__(self) -> None:
        names = self.classifier.class_names
        if not 1 <= self.top <= len(names):
            raise InputError(
                f"--top {self.top}: {self.classifier.name!r} has {len(names)} classes; give a number from 1 to that"
            )
        if self.unknown_below is not None and UNKNOWN in names:
            raise InputError(f"--unknown-below: a class is called {UNKNOWN!r} itself; leave the option out")

    @property
    def identity(self) -> str:
        """A digest of what the labels depend on: model, class weights, options and files."""
        c, spec = self.classifier, self.classifier.encoder.spec
        model = [spec.picture_key, c.class_weights.tobytes().hex(), c.calibration.logit_scale, list(c.class_names)]
        files = [[path, stamp(path)] for path in self.paths]
        return digest_of([model, self.top, self.unknown_below, files, self._size])

    @property
    def _size(self) -> int:
        return CHUNK["cpu" if self.classifier.encoder.spec.device == "cpu" else "cuda"]

    def all(self, progress: Progress = no_progress) -> Iterator[Labelled]:
        """Label every file, in order."""
        for chunk in self.chunks(progress):
            yield from chunk

    def chunks(self, progress: Progress = no_progress, skip: int = 0) -> Iterator[list[Labelled]]:
        """Label the files chunk by chunk.

        Args:
            progress: Called with (files done, files in all, what is being done).
            skip: Number of chunks to leave out at the beginning.
        """
        every = [self.paths[at : at + self._size] for at in range(0, len(self.paths), self._size)]
        done, c = sum(map(len, every[:skip])), self.classifier
        progress(done, len(self.paths), "labelling pictures")
        parts = every[skip:]
        for paths, (vectors, errors) in zip(parts, encode_chunks(c.encoder, default_cache(), parts), strict=True):
            shares = c.probabilities(vectors)  # (n, C)
            order = (-shares).argsort(axis=1, kind="stable")[:, : self.top]  # (n, top)
            yield [
                self._labelled(path, [(c.class_names[k], float(row[k])) for k in best], error)
                for path, row, best, error in zip(paths, shares, order, errors, strict=True)
            ]
            progress(done := done + len(paths), len(self.paths), "labelling pictures")

    def _labelled(self, path: str, best: list[tuple[str, float]], error: str | None) -> Labelled:
        if error is not None:
            return Labelled(path, "", error=error)
        unknown = self.unknown_below is not None and best[0][1] < self.unknown_below
        return Labelled(path, UNKNOWN if unknown else best[0][0], tuple((n, round(p, 6)) for n, p in best))
