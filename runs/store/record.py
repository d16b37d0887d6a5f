"""One run as an Optuna study: its configuration, its trials, its result."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from promptsearch.banks import PromptSet
from promptsearch.config import RunConfig
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Score
from promptsearch.runs.store import optuna_rows as rows
from promptsearch.runs.store.storage import alone, masked, open_storage, reason_of
from promptsearch.search import Objective, get_objective
from promptsearch.search.pareto import words

if TYPE_CHECKING:
    import optuna
    from optuna.trial import TrialState

log = logging.getLogger(__name__)


def now() -> str:
    """The time, as records hold it: ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Trial:
    """A set in a run's record; without a score as long as some worker has it in hand."""

    number: int
    trial_id: int
    prompt_set: PromptSet
    score: Score | None
    step: int
    worker: int
    owner: str
    waiting: bool
    params: Mapping[str, Any]
    evaluations: int | None = None


class RunRecord:
    """A study with what promptsearch keeps in it.

    Study attributes: `config` (options and fingerprints: what must be the same to resume), `about` (what need not
    be: names, versions, paths, the budget), `bank` (its templates), `start` (starting points), `result` (the final
    document), `details` (predictions on the opened test split), `test_opened`.  Trial attributes: `prompt_set`,
    `templates`, `step`, `worker`, `owner`, `evaluations` (searches by rounds) and the figures of the score.
    """

    def __init__(self, study: optuna.Study, storage: optuna.storages.RDBStorage) -> None:
        self.study = study
        self.storage = storage
        self.url = masked(str(storage.url))
        self.address = str(storage.url)
        self.safe = -1  # the highest number known to be recorded
        self._objective: Objective | None = None
        self._seen: dict[int, Trial] = {}  # by number
        self._counts: Counter[TrialState] | None = None  # by state, when they were seen

    @classmethod
    def open(cls, name: str, url: str | None, config: RunConfig, about: dict[str, Any]) -> RunRecord:
        """Open the run of this name to go on with it, or begin it.

        Raises:
            InputError: there is a run of this name made with another configuration; the differences are named.
            PromptSearchError: the storage cannot be written.
        """
        import optuna

        storage = open_storage(url)
        stored = config.to_dict()
        objective = get_objective(config.search.objective)
        direction: Literal["minimize", "maximize"] = "minimize" if objective.smaller else "maximize"
        several: list[Literal["minimize", "maximize"]] = []
        if config.search.fluency is not None and config.search.fluency.pareto:
            several = ["maximize", "minimize"]  # fluency, words
        with _readable(masked(str(storage.url))):
            try:
                study = optuna.create_study(storage=storage, study_name=name, directions=[direction, *several])
            except optuna.exceptions.DuplicatedStudyError:
                study = optuna.load_study(storage=storage, study_name=name)
            record = cls(study, storage)
            if several and study.metric_names is None:
                _name(study, [objective.figure, "fluency", "words"])
            log.info("run %s in %s", name, record.url)
            kept = study.user_attrs.get("config")
            if kept is None:  # new, or killed before anything was recorded
                if study.get_trials(deepcopy=False, states=None) or study.user_attrs.keys() - {"about"}:
                    raise _not_ours(name, record.url)
                study.set_user_attr("about", about)
                study.set_user_attr("config", stored)
            elif differences := _differences(kept, stored):
                raise InputError(
                    f"run {name!r} was made with {'; '.join(differences)}; give the old value to resume it, "
                    "--fork NEW to start from it under a new name, or another --study to begin anew"
                )
        return record

    @classmethod
    def load(cls, name: str, url: str | None = None) -> RunRecord:
        """Open a run that exists.  Raises InputError naming those there are, or that it is none of promptsearch's."""
        import optuna

        storage = open_storage(url, create=False)
        with _readable(masked(str(storage.url))):
            try:
                record = cls(optuna.load_study(storage=storage, study_name=name), storage)
            except KeyError as e:
                names = optuna.get_all_study_names(storage)
                hint = ", ".join(names[-5:]) or "none"
                raise InputError(f"no run {name!r} in {masked(str(storage.url))}; the latest there: {hint}") from e
            if "config" not in record.study.user_attrs:
                raise _not_ours(name, record.url)
        return record

    @property
    def name(self) -> str:
        return str(self.study.study_name)

    @property
    def config(self) -> RunConfig:
        """What the run is: equal for the command that resumes it."""
        return RunConfig.from_dict(self.study.user_attrs.get("config", {}))

    @property
    def about(self) -> dict[str, Any]:
        return dict(self.study.user_attrs.get("about", {}))

    @property
    def result(self) -> dict[str, Any] | None:
        """The final document, once the run is finished; None again where trials were added since."""
        result: dict[str, Any] | None = self.study.user_attrs.get("result")
        if result is None or result.get("run", {}).get("trials") in (None, len(self.trials())):
            return result
        return None

    def finish(self, result: dict[str, Any]) -> None:
        self.set("result", result)

    def delete(self) -> None:
        """Delete the run and its trials for good.  Raises PromptSearchError when the storage cannot be written."""
        import optuna

        with self.recording():
            optuna.delete_study(study_name=self.name, storage=self.storage)

    def set(self, key: str, value: Any) -> None:
        """Keep a study attribute.  Raises PromptSearchError when the storage cannot be written."""
        with self.recording():
            self.study.set_user_attr(key, value)

    def get(self, key: str) -> Any:
        """A study attribute, or None."""
        return self.study.user_attrs.get(key)

    def attribute_names(self) -> Iterable[str]:
        """The names of all study attributes."""
        return self.study.user_attrs.keys()

    def trials(self) -> list[tuple[PromptSet, Score]]:
        """What was scored and recorded, in order."""
        return [(t.prompt_set, t.score) for t in self.all_trials() if t.score is not None]

    def all_trials(self, anew: bool = False) -> list[Trial]:
        """Every trial by its number, those in hand among them; failed ones (retried under another number) are not.

        They are read where their numbers by state are not what this process saw or wrote last: trials only go forward
        from one state to the next, so that equal numbers are the same trials.  Who has one in hand may change
        without; `anew` reads in any case.
        """
        with self.recording():
            now = rows.counts(self.storage, self.study._study_id)
            if anew or now != self._counts:
                self._read()
                self._counts = now  # of before: what changed since will be read the next time
        return [self._seen[number] for number in sorted(self._seen)]

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of all trials that `all_trials` gave last, or that were written since."""
        return frozenset(self._seen)

    def _read(self) -> None:
        from optuna.trial import TrialState

        finished = {n: t for n, t in self._seen.items() if t.score is not None}
        self._seen = {}
        for t in self.study.get_trials(deepcopy=False):
            if t.number in finished:
                self._seen[t.number] = finished[t.number]
                continue
            attrs = t.user_attrs
            if "prompt_set" not in attrs or t.state in (TrialState.FAIL, TrialState.PRUNED):
                continue
            complete = t.state == TrialState.COMPLETE
            self._seen[t.number] = Trial(
                t.number,
                t._trial_id,
                PromptSet.from_dict(attrs["prompt_set"]),
                _score(attrs) if complete else None,
                int(attrs.get("step", 0)),
                int(attrs.get("worker", 0)),
                str(attrs.get("owner", "")),
                t.state == TrialState.WAITING,
                t.params,
                attrs.get("evaluations"),
            )
            if complete:
                self.safe = max(self.safe, t.number)

    def claim(self, new: Sequence[tuple[PromptSet, rows.NewTrial]], total: int) -> list[Trial]:
        """Write trials in hand, or the first of them where there would be more than `total`; under the lock."""
        from optuna.trial import TrialState

        counts = self._counts
        assert counts is not None  # whoever claims has looked
        first = counts.total()
        room = max(0, total - (first - counts[TrialState.FAIL] - counts[TrialState.PRUNED]))
        new = new[:room]
        if not new:
            return []
        written = rows.insert(self.storage, self.study._study_id, [row for _, row in new], first)
        counts[TrialState.RUNNING] += len(written)
        trials = []
        for (trial_id, number), (prompt_set, row) in zip(written, new, strict=True):
            step, worker, owner = (row.attrs[k] for k in ("step", "worker", "owner"))
            trials.append(Trial(number, trial_id, prompt_set, None, step, worker, owner, False, row.params))
        self._seen.update((t.number, t) for t in trials)
        return trials

    def complete(self, scored: Sequence[tuple[Trial, Score]]) -> None:
        """Write the scores of trials in hand, all at once; a trial that was given to another is left to it."""
        from optuna.trial import TrialState

        done = {t.trial_id: (self.values_of(t.prompt_set, score), score.to_dict()) for t, score in scored}
        with self.recording():
            ours = rows.complete(self.storage, done)
        for t, score in scored:
            if t.trial_id in ours:
                self._seen[t.number] = dataclasses.replace(t, score=score)
                self.safe = max(self.safe, t.number)
        if self._counts is not None:
            self._counts[TrialState.RUNNING] -= len(ours)
            self._counts[TrialState.COMPLETE] += len(ours)

    def add(self, results: Iterable[tuple[PromptSet, Score]], step: int, evaluations: int) -> None:
        """Record scored sets as complete trials, with how many sets the search had scored by then."""
        new = [
            rows.NewTrial({**_attrs(s, step), **v.to_dict(), "evaluations": evaluations}, values=self.values_of(s, v))
            for s, v in results
        ]
        if not new:
            return
        with self.recording(), alone(self.storage):
            first = rows.counts(self.storage, self.study._study_id).total()
            written = rows.insert(self.storage, self.study._study_id, new, first)
        self.safe = max(self.safe, *(number for _, number in written))

    def value_of(self, score: Score) -> float:
        """What Optuna compares the study's trials by."""
        if self._objective is None:
            self._objective = get_objective(self.config.search.objective)
        return float(getattr(score, self._objective.figure))

    def values_of(self, prompt_set: PromptSet, score: Score) -> list[float]:
        """What Optuna keeps of a trial: with several aims also fluency and the number of words."""
        if len(self.study.directions) == 1:
            return [self.value_of(score)]
        assert score.fluency is not None  # several aims have fluency among them
        return [self.value_of(score), score.fluency, words(prompt_set)]

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Turns what the database says into one line that names the last trial which is safe."""
        import optuna
        import sqlalchemy.exc

        try:
            yield
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as e:
            last = self._last_safe()
            safe = f"trial {last} is the last that is safe" if last >= 0 else "no trial was recorded yet"
            raise PromptSearchError(
                f"run {self.name!r} cannot be recorded in {self.url} ({reason_of(e)}); {safe}: "
                "put that right, and the same command again resumes"
            ) from e

    def _last_safe(self) -> int:
        """The highest number among the finished trials, as far as it can be read."""
        import optuna
        import sqlalchemy.exc

        with contextlib.suppress(optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError):
            done = self.storage.get_all_trials(self.study._study_id, False, (optuna.trial.TrialState.COMPLETE,))
            self.safe = max([self.safe, *(t.number for t in done)])
        return self.safe


def _name(study: optuna.Study, figures: list[str]) -> None:
    """What the values of its trials are, for the plots of Optuna and of its dashboard."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        study.set_metric_names(figures)


def _attrs(prompt_set: PromptSet, step: int) -> dict[str, Any]:
    return {"templates": list(prompt_set.templates), "prompt_set": prompt_set.to_dict(), "step": step}


def _score(attrs: Mapping[str, Any]) -> Score:
    """The figures that this version knows; others that an attribute names are passed over."""
    return Score(**{f.name: attrs[f.name] for f in dataclasses.fields(Score) if f.name in attrs})


def _not_ours(name: str, url: str) -> InputError:
    return InputError(f"study {name!r} in {url} was not made by promptsearch; name another --study")


@contextlib.contextmanager
def _readable(url: str) -> Iterator[None]:
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as e:
        raise PromptSearchError(
            f"--storage {url} cannot be used ({reason_of(e)}); put that right, or name another, e.g. sqlite:///runs.db"
        ) from e


def _differences(kept: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{k.replace('_', ' ')} {kept.get(k)!r} (now {now.get(k)!r})"
        for k in sorted(kept.keys() | now.keys())
        if kept.get(k) != now.get(k)
    ]
