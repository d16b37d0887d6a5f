"""One run as an Optuna study: its configuration, its trials, its result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from promptsearch.banks import PromptSet
from promptsearch.errors import InputError
from promptsearch.evaluators import Score
from promptsearch.runs.storage import masked, open_storage

if TYPE_CHECKING:
    import optuna


class RunRecord:
    """A study with what promptsearch keeps in it.

    Study attributes: `config` (options and fingerprints: what must be the same to resume), `about` (what need not
    be: names, versions, the drawn pictures), `result` (the final document), `test_opened`.  Trial attributes:
    `prompt_set`, `templates`, `accuracy`, `xent`, `step`.
    """

    def __init__(self, study: optuna.Study, url: str) -> None:
        self.study = study
        self.url = masked(url)

    @classmethod
    def open(cls, name: str, url: str | None, config: dict[str, Any], about: dict[str, Any]) -> RunRecord:
        """Open the run of this name to go on with it, or begin it.

        Raises:
            InputError: there is a run of this name made with another configuration; the differences are named.
        """
        import optuna

        storage = open_storage(url)
        direction: Literal["minimize", "maximize"] = "minimize" if config.get("objective") == "xent" else "maximize"
        try:
            study = optuna.create_study(storage=storage, study_name=name, direction=direction)
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name)
        record = cls(study, str(storage.url))
        kept = study.user_attrs.get("config")
        if kept is None:  # new, or killed before anything was recorded
            if study.get_trials(deepcopy=False, states=None):
                raise InputError(f"study {name!r} in {record.url} was not made by promptsearch; name another --study")
            study.set_user_attr("about", about)
            study.set_user_attr("config", config)
        elif differences := _differences(kept, config):
            raise InputError(
                f"run {name!r} was made with {'; '.join(differences)}; "
                "give the old value to resume it, or another --study to begin anew"
            )
        return record

    @classmethod
    def load(cls, name: str, url: str | None = None) -> RunRecord:
        """Open a run that exists.  Raises InputError naming those there are."""
        import optuna

        storage = open_storage(url, create=False)
        try:
            return cls(optuna.load_study(storage=storage, study_name=name), str(storage.url))
        except KeyError as e:
            names = optuna.get_all_study_names(storage)
            hint = ", ".join(names[-5:]) or "none"
            raise InputError(f"no run {name!r} in {masked(str(storage.url))}; the latest there: {hint}") from e

    @property
    def name(self) -> str:
        return str(self.study.study_name)

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.study.user_attrs.get("config", {}))

    @property
    def about(self) -> dict[str, Any]:
        return dict(self.study.user_attrs.get("about", {}))

    @property
    def result(self) -> dict[str, Any] | None:
        """The final document, once the run is finished."""
        return self.study.user_attrs.get("result")

    def finish(self, result: dict[str, Any]) -> None:
        self.study.set_user_attr("result", result)

    def trials(self) -> list[tuple[PromptSet, Score]]:
        """What was recorded, in order."""
        rows = []
        for t in self.study.get_trials(deepcopy=False):
            if "prompt_set" in t.user_attrs:
                a = t.user_attrs
                rows.append((PromptSet.from_dict(a["prompt_set"]), Score(a["accuracy"], a["xent"])))
        return rows

    def add(self, results: Iterable[tuple[PromptSet, Score]], step: int) -> None:
        """Record scored sets as complete trials."""
        import optuna

        minimize = self.study.direction == optuna.study.StudyDirection.MINIMIZE
        for prompt_set, score in results:
            attrs = {
                "templates": list(prompt_set.templates),
                "prompt_set": prompt_set.to_dict(),
                "step": step,
                **score.to_dict(),
            }
            value = score.xent if minimize else score.accuracy
            self.study.add_trial(optuna.trial.create_trial(value=value, user_attrs=attrs))


def _differences(kept: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{k.replace('_', ' ')} {kept.get(k)!r} (now {now.get(k)!r})"
        for k in sorted(kept.keys() | now.keys())
        if kept.get(k) != now.get(k)
    ]
