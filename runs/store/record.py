"""Stores the configuration, bank, replies, trials and result of a run, in an Optuna study or in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from promptsearch.banks import Bank, Grammar, PhraseBank, PromptSet, Template
from promptsearch.config import CONTENT, RunConfig
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators import Score
from promptsearch.runs.store import optuna_rows as rows
from promptsearch.runs.store.storage import (
    NoSuchRun,
    alone,
    deleted,
    is_deletion,
    leading,
    masked,
    open_storage,
    reason_of,
    sound,
)
from promptsearch.search import SEARCHERS, Objective, Space, get_objective
from promptsearch.search.pareto import words

if TYPE_CHECKING:
    import optuna
    from optuna.trial import TrialState


log = logging.getLogger(__name__)


def now() -> str:
    """Return the current time in the format of records: ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Trial:
    """A trial of a run; `score` is None while a worker is scoring it."""

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
    """A run that is stored in an Optuna study.

    Study attributes are `config` (options and fingerprints, which must be equal to resume), `about` (versions, names
    and paths, which may differ), `bank` (its templates), `start` (starting points), `result` (the final document),
    `details` (predictions on the opened test split) and `test_opened`. Trial attributes are `prompt_set`, `templates`,
    `step`, `worker`, `owner`, `evaluations` (for searches by rounds) and the values of the score.

    Args:
        study: The study.
        storage: Its storage.
    """

    def __init__(self, study: optuna.Study, storage: optuna.storages.RDBStorage) -> None:
        self.study = study
        self.storage = storage
        self.url = masked(str(storage.url))
        self.address = str(storage.url)
        self.safe = -1  # highest number of a trial that is known to be recorded
        self._objective: Objective | None = None
        self._seen: dict[int, Trial] = {}  # trials by number, as last read or written
        self._counts: Counter[TrialState] | None = None  # number of trials by state at that time

    @classmethod
    def open(
        cls,
        name: str,
        url: str | None,
        config: RunConfig,
        about: dict[str, Any],
        first: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Open a run to resume it, or create it in one transaction.

        Args:
            name: Name of the run.
            url: URL of the storage; by default the user's own.
            config: The run's configuration.
            about: Versions, names and paths to store with a new run.
            first: Further attributes that a new run begins with.

        Raises:
            InputError: A run of this name has another configuration; the message names the differences.
            PromptSearchError: The storage cannot be written.
        """
        import optuna

        storage = open_storage(url)
        stored = config.to_dict()
        with readable(masked(str(storage.url))):
            try:
                study = optuna.load_study(storage=storage, study_name=name)
            except KeyError:
                attrs = {"about": about, "config": stored, **(first or {})}
                _create(storage, name, config, attrs)
                study = optuna.load_study(storage=storage, study_name=name)
            record = cls(study, storage)
            log.info("run %s in %s", name, record.url)
            kept = study.user_attrs.get("config")
            # the study is not a run, or an earlier version was interrupted before it recorded anything
            if kept is None:
                if study.get_trials(deepcopy=False, states=None) or study.user_attrs.keys() - {"about"}:
                    raise _not_ours(name, record.url)
                for key, value in (first or {}).items():
                    study.set_user_attr(key, value)
                study.set_user_attr("about", about)
                study.set_user_attr("config", stored)
            elif differences := _differences(kept, stored, study.user_attrs.get("about") or {}, about):
                raise InputError(
                    f"run {name!r} was made with {'; '.join(differences)}; give the old value to resume it, "
                    "--fork NEW to start a new run from its best sets, or another --study to start from scratch"
                )
        return record

    @classmethod
    def load(cls, name: str, url: str | None = None) -> RunRecord:
        """Open an existing run.

        Args:
            name: Name of the run.
            url: URL of the storage; by default the user's own.

        Raises:
            NoSuchRun: There is no run of this name.
            InputError: The study was not made by promptsearch.
        """
        import optuna

        storage = open_storage(url, create=False)
        with readable(masked(str(storage.url))):
            try:
                record = cls(optuna.load_study(storage=storage, study_name=name), storage)
            except KeyError as e:
                names = optuna.get_all_study_names(storage)
                hint = ", ".join(names[-5:]) or "none"
                raise NoSuchRun(f"no run {name!r} in {masked(str(storage.url))}; the latest runs: {hint}") from e
            if "config" not in record.study.user_attrs:
                raise _not_ours(name, record.url)
        return record

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.study.study_name)

    @property
    def config(self) -> RunConfig:
        """The run's configuration, which is equal for every command that resumes it."""
        with sound(f"run {self.name!r} in {self.url}"):
            return RunConfig.from_dict(self._attributes().get("config", {}))

    @property
    def about(self) -> dict[str, Any]:
        """Versions, names and paths of the run."""
        with sound(f"run {self.name!r} in {self.url}"):
            return dict(self._attributes().get("about", {}))

    @property
    def result(self) -> dict[str, Any] | None:
        """The final document of a finished run; None if trials were added since."""
        result: dict[str, Any] | None = self.get("result")
        if result is None or result.get("run", {}).get("trials") in (None, len(self.trials())):
            return result
        return None

    def finish(self, result: dict[str, Any]) -> None:
        """Store the final document."""
        self.set("result", result)

    def leading(self) -> contextlib.AbstractContextManager[bool]:
        """Return a context manager in which at most one process leads this run; it yields whether this one does."""
        return leading(self.storage, self.study._study_id)

    def delete(self) -> None:
        """Delete the run and its trials permanently.

        Raises:
            PromptSearchError: The storage cannot be written.
        """
        import optuna

        with self.recording():
            optuna.delete_study(study_name=self.name, storage=self.storage)

    def set(self, key: str, value: Any) -> None:
        """Set a study attribute.

        Raises:
            PromptSearchError: The storage cannot be written.
        """
        with self.recording():
            self.study.set_user_attr(key, value)

    def get(self, key: str) -> Any:
        """Return a study attribute, or None if it is not set."""
        return self._attributes().get(key)

    def attribute_names(self) -> Iterable[str]:
        """Return the names of all study attributes."""
        return self._attributes().keys()

    def _attributes(self) -> dict[str, Any]:
        with self.recording():
            return self.study.user_attrs

    def trials(self) -> list[tuple[PromptSet, Score]]:
        """Return the scored sets of all trials, in order."""
        return [(t.prompt_set, t.score) for t in self.all_trials() if t.score is not None]

    def all_trials(self, anew: bool = False) -> list[Trial]:
        """Return all trials in the order of their numbers, including running ones, without failed ones.

        The trials are read again only if the number of trials in some state has changed since this process last read
        or wrote them. That is enough, because the state of a trial only moves forward; only its owner may change.

        Args:
            anew: Whether to read the trials even if nothing seems to have changed.
        """
        with self.recording():
            now = rows.counts(self.storage, self.study._study_id)
            if anew or now != self._counts:
                with sound(f"run {self.name!r} in {self.url}"):
                    self._read()
                self._counts = now  # counted before reading, so that later changes are noticed next time
        return [self._seen[number] for number in sorted(self._seen)]

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of all trials that were last read, or written since."""
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
        """Write running trials; the caller must hold the storage's lock and have called `all_trials`.

        Args:
            new: The sets and their trials.
            total: Largest number of trials in the run; if fewer are left, only the first ones are written.

        Returns:
            The trials that were written.
        """
        from optuna.trial import TrialState

        counts = self._counts
        assert counts is not None  # set by `all_trials`
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
        """Finish running trials with their scores in one transaction, except those that another worker has taken."""
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
        """Record scored sets as finished trials.

        Args:
            results: The sets and their scores.
            step: Number of the round.
            evaluations: Number of sets that the search had scored by then.
        """
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
        """Return the value by which Optuna compares trials."""
        if self._objective is None:
            self._objective = get_objective(self.config.search.objective)
        return float(getattr(score, self._objective.figure))

    def values_of(self, prompt_set: PromptSet, score: Score) -> list[float]:
        """Return the values of a trial: the objective's and, with several aims, fluency and number of words."""
        if len(self.study.directions) == 1:
            return [self.value_of(score)]
        assert score.fluency is not None  # a search with several aims measures fluency
        return [self.value_of(score), score.fluency, words(prompt_set)]

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Context manager that turns database errors into a PromptSearchError that names the last recorded trial."""
        import optuna
        import sqlalchemy.exc

        try:
            yield
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as e:
            last = self._last_safe()
            safe = f"trial {last} is the last recorded one" if last >= 0 else "no trial was recorded yet"
            raise PromptSearchError(
                f"run {self.name!r} cannot be recorded in {self.url} ({reason_of(e)}); {safe}; "
                "solve the problem and run the same command again to resume"
            ) from e
        except KeyError as e:
            if is_deletion(e):
                raise deleted(f"run {self.name!r} in {self.url}") from e
            raise

    def _last_safe(self) -> int:
        """Return the highest number of a finished trial, as far as it can be read."""
        import optuna
        import sqlalchemy.exc

        with contextlib.suppress(optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError):
            done = self.storage.get_all_trials(self.study._study_id, False, (optuna.trial.TrialState.COMPLETE,))
            self.safe = max([self.safe, *(t.number for t in done)])
        return self.safe


def _create(storage: optuna.storages.RDBStorage, name: str, config: RunConfig, attrs: Mapping[str, Any]) -> None:
    """Create the study of a run, unless another process was quicker."""
    import sqlalchemy.exc

    objective = get_objective(config.search.objective)
    directions, names = ["minimize" if objective.smaller else "maximize"], []
    if config.search.fluency is not None and config.search.fluency.pareto:
        directions, names = [*directions, "maximize", "minimize"], [objective.figure, "fluency", "words"]
    with contextlib.suppress(sqlalchemy.exc.IntegrityError):
        rows.create_study(storage, name, directions, attrs, names)


def _attrs(prompt_set: PromptSet, step: int) -> dict[str, Any]:
    return {"templates": list(prompt_set.templates), "prompt_set": prompt_set.to_dict(), "step": step}


def _score(attrs: Mapping[str, Any]) -> Score:
    """Return the score stored in a trial's attributes, ignoring fields that this version does not know."""
    return Score(**{f.name: attrs[f.name] for f in dataclasses.fields(Score) if f.name in attrs})


def _not_ours(name: str, url: str) -> InputError:
    return InputError(f"study {name!r} in {url} was not made by promptsearch; name another --study")


@contextlib.contextmanager
def readable(url: str) -> Iterator[None]:
    """Context manager that turns the errors of an unusable or damaged database into one line that names it."""
    import optuna
    import sqlalchemy.exc

    try:
        with sound(f"--storage {url}"):
            yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as e:
        raise PromptSearchError(
            f"--storage {url} cannot be used ({reason_of(e)}); solve the problem, or name another, e.g. "
            "sqlite:///runs.db"
        ) from e


#: How pictures are read and held out; a difference says more than that the pictures' fingerprint is another.
_READING = ("class_names", "label_column", "picture_column", "split_seed", "test_share")


def _differences(
    kept: dict[str, Any], now: dict[str, Any], kept_about: Mapping[str, Any], now_about: Mapping[str, Any]
) -> list[str]:
    """Return what differs between the configurations of a run then and now, with both values."""
    keys = {k for k in kept.keys() | now.keys() if kept.get(k) != now.get(k) and not _is_spelling(k, kept, now)}
    values = [(k, kept.get(k), now.get(k)) for k in sorted(keys)]
    then, here = (about.get("opened") or {} for about in (kept_about, now_about))
    read = [(k, then.get(k), here.get(k)) for k in _READING if then.get(k) != here.get(k)]
    if "data fingerprint" in keys and read:
        values = [*(value for value in values if value[0] != "data fingerprint"), *read]
    said = [f"{k.replace('_', ' ')} {before!r} (now {after!r})" for k, before, after in values]
    return [f"other pictures or labels: {text}" if text.startswith("data fingerprint") else text for text in said]


def _is_spelling(key: str, kept: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether two names stand for the same content, such as a folder before and after it was moved."""
    content = CONTENT.get(key)
    return content is not None and kept.get(content) is not None and kept.get(content) == now.get(content)


def bank_to_dict(bank: Bank) -> dict[str, Any]:
    """Return a bank as a JSON-serialisable dict: its templates, or its grammar and the templates outside it."""
    data: dict[str, Any] = {"name": bank.name, "class_names": {k: list(v) for k, v in bank.class_names.items()}}
    if bank.phrases is not None:
        data["phrases"] = bank.phrases.to_dict()
    if bank.grammar is None:
        return {**data, "templates": [str(t) for t in bank.templates]}
    return {**data, "templates": [str(t) for t in Space(bank).plain], "grammar": bank.grammar.to_dict()}


def bank_from_dict(data: Mapping[str, Any]) -> Bank:
    """Make a bank from the result of `bank_to_dict`.

    Raises:
        InputError: The data is invalid.
    """
    class_names = {k: tuple(v) for k, v in data["class_names"].items()}
    phrases = PhraseBank.from_dict(data["phrases"]) if "phrases" in data else None
    plain: dict[Template, int | None] = {Template(t): None for t in data["templates"]}
    if "grammar" not in data:
        return Bank(data["name"], tuple(plain), class_names=class_names, phrases=phrases)
    grammar = Grammar(data["grammar"]["patterns"], data["grammar"]["slots"])
    return replace(Bank.expanded(data["name"], grammar, plain, class_names=class_names), phrases=phrases)


def restore_bank(record: RunRecord) -> Bank:
    """Restore the bank of a run, so that any machine can resume it.

    Args:
        record: The run.

    Raises:
        InputError: This version makes a different bank of the stored data, or does not know the searcher.
    """
    config, kept = record.config, record.get("bank")
    if config.command not in SEARCHERS:
        raise InputError(
            f"run {record.name!r} was made by {config.command}, which is not a searcher of this version; "
            f"resume it with its own command, `promptsearch {config.command} … --study {record.name}`"
        )
    if kept is None:
        raise InputError(f"run {record.name!r} has no stored bank yet; run its own command again")
    bank = bank_from_dict(kept)
    if config.bank is None or bank.hash != config.bank.hash:
        raise InputError(
            f"run {record.name!r}: this version makes a different bank of {bank.name!r}; resume it with the version of "
            "promptsearch that made it"
        )
    return bank


@dataclass
class MemoryRecord:
    """A run without a storage, which can be pickled.

    record = MemoryRecord("my-run", config, {"classes": ["cat", "dog"]})
    result = run_search(problem, bank, record)
    """

    name: str
    config: RunConfig
    about: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    _trials: list[Trial] = field(default_factory=list)

    url = ""

    @property
    def result(self) -> dict[str, Any] | None:
        """The result document of a finished run."""
        found: dict[str, Any] | None = self.attributes.get("result")
        return found

    def finish(self, result: dict[str, Any]) -> None:
        """Store the result document."""
        self.attributes["result"] = result

    def leading(self) -> contextlib.AbstractContextManager[bool]:
        """Return a context manager that yields True, because no other process can have this run."""
        return contextlib.nullcontext(True)

    def get(self, key: str) -> Any:
        """Return an attribute of the run, or None."""
        return self.attributes.get(key)

    def set(self, key: str, value: Any) -> None:
        """Set an attribute of the run."""
        self.attributes[key] = value

    def attribute_names(self) -> Iterable[str]:
        """Return the names of all attributes."""
        return self.attributes.keys()

    def trials(self) -> list[tuple[PromptSet, Score]]:
        """Return the scored sets of all trials, in order."""
        return [(t.prompt_set, t.score) for t in self._trials if t.score is not None]

    def all_trials(self) -> list[Trial]:
        """Return all trials in the order of their numbers."""
        return list(self._trials)

    def add(self, results: Iterable[tuple[PromptSet, Score]], step: int, evaluations: int | None = None) -> None:
        """Record scored prompt sets as trials.

        Args:
            results: Prompt sets with their scores.
            step: Number of the batch or round.
            evaluations: Number of prompt sets that the search had scored by then.
        """
        for prompt_set, score in results:
            number = len(self._trials)
            self._trials.append(Trial(number, number, prompt_set, score, step, 0, "", False, {}, evaluations))


#: A run, in a study or in memory.
Record = RunRecord | MemoryRecord


PREFIX = "replies "


class StudyJournal:
    """The raw replies of each step, as study attributes "replies WORKER.TRIALS" that are written once.

        journal = StudyJournal(record)
        journal.put("0.24", {"replies": [["a dark photo of a {}."]]})

    Args:
        record: The run.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._kept: dict[str, Any] = {
            k[len(PREFIX) :]: record.get(k) for k in record.attribute_names() if k.startswith(PREFIX)
        }

    def get(self, key: str) -> Any:
        """Return what was stored for a step, or None."""
        return self._kept.get(key)

    def put(self, key: str, value: Any) -> None:
        """Store the replies of a step."""
        self._record.set(PREFIX + key, value)
        self._kept[key] = value

    def keys(self) -> Iterable[str]:
        """Return the steps with stored replies."""
        return self._kept.keys()
