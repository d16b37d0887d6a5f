"""Optuna's samplers over the templates of a bank."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.banks import PromptSet, Template
from promptsearch.errors import InputError
from promptsearch.search.encoding import KeyEncoding, SlotEncoding
from promptsearch.search.member_study import Members
from promptsearch.search.names import RENAMED
from promptsearch.search.objective import Objective, ScoreLike
from promptsearch.search.pareto import aims
from promptsearch.search.space import DRAWS, Space
from promptsearch.search.trial_searcher import TrialSearcher

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

SAMPLERS = ("tpe", "random", "gp", "nsga2", "qmc", "cmaes")
#: Samplers that are a function of the trials in their study; the others keep more, and are resumed by asking again.
_OPEN = ("tpe", "random")


def few_good(n: int) -> int:
    """How many of n trials are the good ones that the model is drawn to: a quarter of the root, as in Hyperopt.

    Of a few templates that stand out the tenth that Optuna takes says little: it is made of the mediocre.
    """
    return min(math.ceil(0.25 * math.sqrt(n)), 25)


class TpeSearch(TrialSearcher):
    """Optuna's tree-structured Parzen estimator (Watanabe 2023), or another of its samplers.

        searcher = TpeSearch(Space(bank), get_objective("xent"), seed=0)
        while (batch := searcher.ask()) and searcher.trials < 300:
            searcher.tell(list(zip(batch, evaluator.score(batch))))

    The sampler sees a study in memory, filled from what is told, and is seeded anew for every batch.  A set that was
    scored before is sampled again up to `resample` times, and then told again with the score that is known: that
    costs nothing.  After `patience` such repeats in a row it is replaced by a neighbour that was never scored, or,
    where it has none or without `nearby`, by any set that was never scored.

    With ensembles TPE begins with single templates.  Then one of the good sets is changed: a member that TPE samples is
    added or takes the place of another one, or one is dropped (`Members`).

    Args:
        sampler: one of `SAMPLERS`.
        startup: trials drawn at random before the model is used.
        good: of n trials, how many count as good (gamma, in the literature); with several aims Optuna's own rule.  Of
            ensembles also how many are changed further.
        multivariate: model the parameters jointly (those that appear together, with `group`).
        members: change good ensembles member by member; without, each place of a member has parameters of its own.
        resample, patience, nearby: what becomes of repeats (above).
        pareto: the sampler's study has three aims: the objective, fluency and brevity.

    Raises:
        InputError: an unknown sampler, or one that does not fit the space or several aims.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        *,
        seed: int = 0,
        batch: int = 1,
        sampler: str = "tpe",
        startup: int = 20,
        good: Callable[[int], int] = few_good,
        multivariate: bool = True,
        group: bool = True,
        members: bool = True,
        resample: int = 0,
        patience: int = 0,
        nearby: bool = True,
        pareto: bool = False,
    ) -> None:
        super().__init__(space, objective, seed=seed, batch=batch)
        if sampler not in SAMPLERS:
            raise InputError(f"--sampler {sampler}: choose from {', '.join(SAMPLERS)}")
        if pareto and sampler == "cmaes":
            raise InputError("--sampler cmaes: it has one aim only; leave --pareto out, or use tpe or nsga2")
        if startup < 1:
            raise InputError(f"--startup {startup}: must be at least 1")
        self.sampler, self.startup, self.good, self.pareto = sampler, startup, good, pareto
        self.multivariate, self.group = multivariate, group and multivariate
        self.resample, self.patience, self.nearby = resample, patience, nearby
        self._slots = self.encoding
        self._shown: SlotEncoding | KeyEncoding = self._slots
        self._fit()
        by_member = members and sampler == "tpe" and space.ensemble > 1
        self._members = Members(space, 3 if pareto else 1) if by_member else None
        self._repeats = 0
        self._study_kept: optuna.Study | None = None
        self._pending: dict[PromptSet, optuna.Trial] = {}
        self._groups: _Groups | None = None

    def _fit(self) -> None:
        """Choose the encoding, or refuse a space that the sampler cannot model."""
        if self.sampler == "gp" and self._slots.conditional:
            raise InputError(
                "--sampler gp: some slots of this space exist only sometimes, which a Gaussian process cannot model; "
                "use tpe or nsga2, or a grammar of one pattern without --ensemble"
            )
        if self.sampler in ("qmc", "cmaes"):
            n = len(self.space.bank.templates)
            if n > KeyEncoding.MOST or self.space.bank.sampled:
                raise InputError(
                    f"--sampler {self.sampler}: needs numbers, one per template, and {n} templates are too many "
                    f"(at most {KeyEncoding.MOST}); use tpe or nsga2"
                )
            self._shown = KeyEncoding(self.space)

    @property
    def _study(self) -> optuna.Study:
        if self._study_kept is None:
            import optuna

            optuna.logging.set_verbosity(optuna.logging.ERROR)
            directions: list[Any] = ["maximize"] * (3 if self.pareto else 1)
            self._study_kept = optuna.create_study(directions=directions, sampler=self._sampler(self.seed))
        return self._study_kept

    def _sampler(self, seed: int, liar: bool = True) -> optuna.samplers.BaseSampler:
        from optuna import samplers

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental arguments
            if self.sampler == "tpe":
                sampler = samplers.TPESampler(
                    seed=seed,
                    n_startup_trials=self.startup,
                    gamma=None if self.pareto else self.good,
                    multivariate=self.multivariate,
                    group=self.group,
                    constant_liar=liar,  # for those in hand; without any it only costs time
                )
                if self.group:
                    self._groups = self._groups or _Groups()
                    sampler._group_decomposed_search_space = self._groups  # type: ignore[assignment]
                return sampler
            if self.sampler == "random":
                return samplers.RandomSampler(seed=seed)
            if self.sampler == "gp":
                return samplers.GPSampler(seed=seed, n_startup_trials=self.startup, deterministic_objective=True)
            if self.sampler == "nsga2":
                return samplers.NSGAIISampler(seed=seed, population_size=20)
            if self.sampler == "qmc":
                return samplers.QMCSampler(seed=seed, scramble=True)
            return samplers.CmaEsSampler(seed=seed, n_startup_trials=self.startup)

    def _propose(self, taken: set[PromptSet]) -> list[PromptSet]:
        if self._members is not None:
            return self._propose_changes(self._members, taken)
        return self._propose_open(taken) if self.sampler in _OPEN else self._propose_asked(taken)

    def _propose_changes(self, members: Members, taken: set[PromptSet]) -> list[PromptSet]:
        """Good sets with one member changed for one that the sampler thinks of; at first templates drawn at random."""
        rng = self.rng()
        if len(self.known) < self.startup or members.parent(1, rng) is None:
            return self._singles(rng, taken) or self._unseen(rng, taken, self.batch)
        self._groups = None  # the members' study is another each time
        sampler = self._sampler(int(self.entropy().generate_state(1)[0]), False)
        sampling: _Sampling | None = None

        def sample() -> Template:
            nonlocal sampling
            if sampling is None:
                sampling = _Sampling(members.study(sampler))
            else:
                sampling.again()
            return members.encoding.suggest(sampling).templates[0]

        def draw(again: bool) -> PromptSet:
            parent = members.parent(self.good(len(self.known)), rng)
            assert parent is not None  # there is one, above
            around = self.names.around(parent) if self.names is not None and rng.random() < RENAMED else []
            return around[int(rng.integers(len(around)))] if around else members.changed(parent, rng, sample)

        return self._fill(draw, rng, taken)

    def _singles(self, rng: np.random.Generator, taken: set[PromptSet]) -> list[PromptSet]:
        """A batch of single templates that were never scored; none where there are none left."""
        found: dict[PromptSet, None] = {}
        for _ in range(DRAWS):
            drawn = PromptSet.of(self.space.draw_template(rng))
            if drawn not in self.known and drawn not in taken:
                found[drawn] = None
            if len(found) == self.batch:
                break
        return list(found)

    def _propose_open(self, taken: set[PromptSet]) -> list[PromptSet]:
        """Ask a sampler that looks at nothing but the study; of the study's finished trials none is changed."""
        import optuna

        study = self._study
        liar = self.batch > 1 or bool(taken)
        study.sampler = self._sampler(int(self.entropy().generate_state(1)[0]), liar)
        open_trials: list[int] = []
        for other in sorted(taken, key=lambda s: s.templates):  # the sampler keeps away from what others score now
            if params := self._slots.params(other):
                running = optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=params,
                    distributions=self._slots.distributions(params),
                )
                open_trials.append(len(study.get_trials(deepcopy=False)))
                study.add_trial(running)
        sampling: _Sampling

        def draw(again: bool) -> PromptSet:
            nonlocal sampling
            if again:
                sampling.again()
            else:
                sampling = _Sampling(study)
                open_trials.append(sampling.number)
            return self._slots.suggest(sampling)

        batch = self._fill(draw, self.rng(), taken)
        for number in open_trials:
            study.tell(number, state=optuna.trial.TrialState.FAIL)
        return batch

    def _fill(
        self, draw: Callable[[bool], PromptSet], rng: np.random.Generator, taken: set[PromptSet]
    ) -> list[PromptSet]:
        """A batch of what is drawn (of a trial that was begun, again), with repeats replaced."""
        batch: list[PromptSet] = []
        repeats = self._repeats
        while len(batch) < self.batch:
            proposed = draw(False)
            for _ in range(self.resample):
                if proposed not in self.known and proposed not in taken and proposed not in batch:
                    break
                proposed = draw(True)
            repeated = proposed in self.known
            if proposed in taken or proposed in batch or (repeated and repeats >= self.patience):
                instead = self._instead(proposed, rng, taken | set(batch))
                if instead is None:
                    break
                proposed, repeated = instead, False
            repeats = repeats + 1 if repeated else 0
            batch.append(proposed)
        return batch

    def _instead(self, repeat: PromptSet, rng: np.random.Generator, taken: set[PromptSet]) -> PromptSet | None:
        """A set that was never scored in the place of a repeat; None where there is none left."""
        if self.nearby:
            around = self.space.neighbours(repeat) + ([] if self.names is None else self.names.around(repeat))
            around = [s for s in around if s not in self.known and s not in taken]
            if around:
                return around[int(rng.integers(len(around)))]
        unseen = self._unseen(rng, taken, 1)
        return unseen[0] if unseen else None

    def _propose_asked(self, taken: set[PromptSet]) -> list[PromptSet]:
        """Ask a sampler with a memory of its own: what is asked stays asked until it is told."""
        import optuna

        self._drop_pending()
        batch: list[PromptSet] = []
        for _ in range(10 * self.batch):
            if len(batch) == self.batch:
                break
            trial = self._study.ask()
            proposed = self._shown.suggest(trial)
            if proposed in self.known:  # learnt again at once: it costs nothing
                self._study.tell(trial, self._values(proposed, self.known[proposed]))
            elif proposed in taken or proposed in batch:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                self._pending[proposed] = trial
                batch.append(proposed)
        return batch or self._unseen(self.rng(), taken, 1)

    def tell(self, results: Any) -> None:
        if self.sampler not in _OPEN and results:
            first = results[0][0]
            if not self._pending and first not in self.start and first not in self.known:
                self.ask()
        super().tell(results)
        self._drop_pending()

    def _learn(self, prompt_set: PromptSet, score: ScoreLike, repeated: bool) -> None:
        self._repeats = self._repeats + 1 if repeated else 0
        values = self._values(prompt_set, score)
        if self._members is not None:
            if not repeated and self._slots.params(prompt_set):  # not from outside the space
                self._members.learn(prompt_set, self.rank_key(prompt_set, score), values)
            return
        if (trial := self._pending.pop(prompt_set, None)) is not None:
            self._study.tell(trial, values)
            return
        if self._shown is not self._slots or not (params := self._slots.params(prompt_set)):
            return  # not of the sampler's space: a hand-written starting point
        import optuna

        distributions = self._slots.distributions(params)
        self._study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, values=values))

    def _drop_pending(self) -> None:
        import optuna

        for trial in self._pending.values():
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._pending.clear()

    def _values(self, prompt_set: PromptSet, score: ScoreLike) -> list[float]:
        """One number that orders as the objective does (later figures only break ties), or the three aims."""
        if self.pareto:
            return list(aims(prompt_set, score, self.objective))
        return [float(sum(v * 1e-6**i for i, v in enumerate(self.objective(score))))]


class _Groups:
    """Optuna's groups of parameters that appear together: every sampler would make them anew, from all trials."""

    def __init__(self) -> None:
        from optuna.search_space.group_decomposed import _SearchSpaceGroup

        self._group = _SearchSpaceGroup()
        self._known: set[frozenset[str]] = set()
        self._seen = 0

    def calculate(self, study: optuna.Study, use_cache: bool = False) -> Any:
        """The groups of the finished trials, which a study only adds to."""
        from optuna.trial import TrialState

        done = study._get_trials(deepcopy=False, states=(TrialState.COMPLETE,), use_cache=use_cache)
        for trial in done[self._seen :]:
            names = frozenset(trial.distributions)
            if names not in self._known:  # those already told apart stay as they are
                self._known.add(names)
                self._group.add_distributions(trial.distributions)
        self._seen = len(done)
        return self._group


class _Sampling:
    """One trial whose parameters a sampler may choose more than once."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        trial = study.ask()
        self.number = trial.number
        self._trial = study.get_trials(deepcopy=False)[trial.number]
        self._relative = dict(trial.relative_params)

    def again(self) -> None:
        sampler = self._study.sampler
        space = sampler.infer_relative_search_space(self._study, self._trial)
        self._relative = sampler.sample_relative(self._study, self._trial, space)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        from optuna.distributions import CategoricalDistribution

        return self._pick(name, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        from optuna.distributions import IntDistribution

        return int(self._pick(name, IntDistribution(low, high)))

    def _pick(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._relative:
            return self._relative[name]
        if distribution.single():
            return distribution.to_external_repr(0) if hasattr(distribution, "choices") else distribution.low  # type: ignore[attr-defined]
        return self._study.sampler.sample_independent(self._study, self._trial, name, distribution)
