"""Search with Optuna's samplers over the templates of a bank."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.banks import PromptSet, Template
from promptsearch.errors import InputError
from promptsearch.score import Score
from promptsearch.search.encoding import KeyEncoding, SlotEncoding
from promptsearch.search.member_study import Members
from promptsearch.search.objective import Objective
from promptsearch.search.pareto import aims
from promptsearch.search.space import DRAWS, RENAMED, Space
from promptsearch.search.trial_searcher import TrialSearcher

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

SAMPLERS = ("tpe", "random", "gp", "nsga2", "qmc", "cmaes")
#: Samplers without state besides the trials of their study; the others are resumed by asking them again.
_OPEN = ("tpe", "random")


def few_good(n: int) -> int:
    """Return how many of n trials TPE counts as good: a quarter of the square root, as in Hyperopt.

    Optuna's default, a tenth, is too many when only a few templates are good.
    """
    return min(math.ceil(0.25 * math.sqrt(n)), 25)


class TpeSearch(TrialSearcher):
    """Searches with Optuna's tree-structured Parzen estimator (Watanabe 2023), or another of its samplers.

        searcher = TpeSearch(Space(bank), get_objective("xent"), seed=0)
        while (batch := searcher.ask()) and searcher.trials < 300:
            searcher.tell(list(zip(batch, evaluator.score(batch))))

    The sampler works on a study in memory, to which all told scores are added, and gets a new seed for every batch. If
    it proposes a set that was scored before, a neighbour that was not scored replaces it, or any set
    that was not scored if it has no such neighbour.

    With ensembles, TPE starts with single templates. After that it changes good ensembles: it adds a template that TPE
    samples, replaces one by it, or drops one (`Members`).

    Args:
        space: The space of sets.
        objective: What is maximised.
        seed: Seed of all draws.
        batch: Number of sets proposed at a time.
        sampler: One of `SAMPLERS`.
        startup: Number of random trials before the sampler's model is used.
        pareto: Whether the study has three aims: objective, fluency and brevity.

    Raises:
        InputError: The sampler is unknown, or does not fit the space or several aims.
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
        pareto: bool = False,
    ) -> None:
        super().__init__(space, objective, seed=seed, batch=batch)
        if sampler not in SAMPLERS:
            raise InputError(f"--sampler {sampler}: choose from {', '.join(SAMPLERS)}")
        if pareto and sampler == "cmaes":
            raise InputError("--sampler cmaes: supports a single aim; leave --pareto out, or use tpe or nsga2")
        if startup < 1:
            raise InputError(f"--startup {startup}: must be at least 1")
        self.sampler, self.startup, self.pareto = sampler, startup, pareto
        self._slots = self.encoding
        self._shown: SlotEncoding | KeyEncoding = self._slots
        self._fit()
        by_member = sampler == "tpe" and space.ensemble > 1
        self._members = Members(space, 3 if pareto else 1) if by_member else None
        self._study_kept: optuna.Study | None = None
        self._pending: dict[PromptSet, optuna.Trial] = {}
        self._groups: _Groups | None = None

    def _fit(self) -> None:
        """Choose the encoding, and check that the sampler can model the space."""
        if self.sampler == "gp" and self._slots.conditional:
            raise InputError(
                "--sampler gp: a Gaussian process needs the same slots in every template, and this space's depend on "
                "the pattern or size; use tpe or nsga2, or a grammar of one pattern without --ensemble"
            )
        if self.sampler in ("qmc", "cmaes"):
            n = len(self.space.bank.templates)
            if n > KeyEncoding.MOST or self.space.bank.sampled:
                raise InputError(
                    f"--sampler {self.sampler}: needs one number per template, and {n} templates are too many "
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
            warnings.simplefilter("ignore")  # Optuna warns of experimental arguments
            if self.sampler == "tpe":
                sampler = samplers.TPESampler(
                    seed=seed,
                    n_startup_trials=self.startup,
                    gamma=None if self.pareto else few_good,
                    multivariate=True,
                    group=True,
                    constant_liar=liar,  # only useful while trials are running, and costs time
                )
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
        """Propose good ensembles with one template changed; at first random single templates."""
        rng = self.rng()
        if len(self.known) < self.startup or members.parent(1, rng) is None:
            return self._singles(rng, taken) or self._unseen(rng, taken, self.batch)
        self._groups = None  # the study of members is built anew each time
        sampler = self._sampler(int(self.entropy().generate_state(1)[0]), False)
        sampling: _Sampling | None = None

        def sample() -> Template:
            nonlocal sampling
            if sampling is None:
                sampling = _Sampling(members.study(sampler))
            else:
                sampling.again()
            return members.encoding.suggest(sampling).templates[0]

        def draw() -> PromptSet:
            parent = members.parent(few_good(len(self.known)), rng)
            assert parent is not None  # the search starts with single templates, so a set was scored
            around = self.names.around(parent) if self.names is not None and rng.random() < RENAMED else []
            return around[int(rng.integers(len(around)))] if around else members.changed(parent, rng, sample)

        return self._fill(draw, rng, taken)

    def _singles(self, rng: np.random.Generator, taken: set[PromptSet]) -> list[PromptSet]:
        """Draw a batch of single templates that were not scored; empty if there are none left."""
        found: dict[PromptSet, None] = {}
        for _ in range(DRAWS):
            drawn = PromptSet.of(self.space.draw_template(rng))
            if drawn not in self.known and drawn not in taken:
                found[drawn] = None
            if len(found) == self.batch:
                break
        return list(found)

    def _propose_open(self, taken: set[PromptSet]) -> list[PromptSet]:
        """Propose a batch with a sampler whose only state is the study."""
        import optuna

        study = self._study
        liar = self.batch > 1 or bool(taken)
        study.sampler = self._sampler(int(self.entropy().generate_state(1)[0]), liar)
        open_trials: list[int] = []
        for other in sorted(taken, key=lambda s: s.templates):  # so that the sampler avoids what others score now
            if params := self._slots.params(other):
                running = optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=params,
                    distributions=self._slots.distributions(params),
                )
                open_trials.append(len(study.get_trials(deepcopy=False)))
                study.add_trial(running)

        def draw() -> PromptSet:
            sampling = _Sampling(study)
            open_trials.append(sampling.number)
            return self._slots.suggest(sampling)

        batch = self._fill(draw, self.rng(), taken)
        for number in open_trials:
            study.tell(number, state=optuna.trial.TrialState.FAIL)
        return batch

    def _fill(self, draw: Callable[[], PromptSet], rng: np.random.Generator, taken: set[PromptSet]) -> list[PromptSet]:
        """Draw a batch, replacing repeats.

        Args:
            draw: Draws a set.
            rng: Chooses replacements.
            taken: Sets that other workers are scoring.
        """
        batch: list[PromptSet] = []
        while len(batch) < self.batch:
            proposed = draw()
            if proposed in taken or proposed in batch or proposed in self.known:
                instead = self._instead(proposed, rng, taken | set(batch))
                if instead is None:
                    break
                proposed = instead
            batch.append(proposed)
        return batch

    def _instead(self, repeat: PromptSet, rng: np.random.Generator, taken: set[PromptSet]) -> PromptSet | None:
        """Return a set that was not scored to replace a repeat, or None if there is none left."""
        around = self.space.neighbours(repeat) + ([] if self.names is None else self.names.around(repeat))
        around = [s for s in around if s not in self.known and s not in taken]
        if around:
            return around[int(rng.integers(len(around)))]
        unseen = self._unseen(rng, taken, 1)
        return unseen[0] if unseen else None

    def _propose_asked(self, taken: set[PromptSet]) -> list[PromptSet]:
        """Propose a batch with a sampler that has state of its own; its trials stay open until they are told."""
        import optuna

        self._drop_pending()
        batch: list[PromptSet] = []
        for _ in range(10 * self.batch):
            if len(batch) == self.batch:
                break
            trial = self._study.ask()
            proposed = self._shown.suggest(trial)
            if proposed in self.known:  # tell the known score again, which costs nothing
                self._study.tell(trial, self._values(proposed, self.known[proposed]))
            elif proposed in taken or proposed in batch:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                self._pending[proposed] = trial
                batch.append(proposed)
        return batch or self._unseen(self.rng(), taken, 1)

    def tell(self, results: Any) -> None:
        """Learn the scores of sets, whoever proposed them."""
        if self.sampler not in _OPEN and results:
            first = results[0][0]
            if not self._pending and first not in self.start and first not in self.known:
                self.ask()
        super().tell(results)
        self._drop_pending()

    def _learn(self, prompt_set: PromptSet, score: Score, repeated: bool) -> None:
        values = self._values(prompt_set, score)
        if self._members is not None:
            if not repeated and self._slots.params(prompt_set):  # the set belongs to the space
                self._members.learn(prompt_set, self.rank_key(prompt_set, score), values)
            return
        if (trial := self._pending.pop(prompt_set, None)) is not None:
            self._study.tell(trial, values)
            return
        if self._shown is not self._slots or not (params := self._slots.params(prompt_set)):
            return  # the set is outside the sampler's space, e.g. a hand-written starting point
        import optuna

        distributions = self._slots.distributions(params)
        self._study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, values=values))

    def _drop_pending(self) -> None:
        import optuna

        for trial in self._pending.values():
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._pending.clear()

    def _values(self, prompt_set: PromptSet, score: Score) -> list[float]:
        """Return one number that sorts like the objective (ties are broken by tiny amounts), or the three aims."""
        if self.pareto:
            return list(aims(prompt_set, score, self.objective))
        return [float(sum(v * 1e-6**i for i, v in enumerate(self.objective(score))))]


class _Groups:
    """Finds the groups of parameters that occur together, as Optuna does, and keeps them from sampler to sampler."""

    def __init__(self) -> None:
        from optuna.search_space.group_decomposed import _SearchSpaceGroup

        self._group = _SearchSpaceGroup()
        self._known: set[frozenset[str]] = set()
        self._seen = 0

    def calculate(self, study: optuna.Study, use_cache: bool = False) -> Any:
        """Return the groups of the finished trials, updated with the trials since the last call."""
        from optuna.trial import TrialState

        done = study._get_trials(deepcopy=False, states=(TrialState.COMPLETE,), use_cache=use_cache)
        for trial in done[self._seen :]:
            names = frozenset(trial.distributions)
            if names not in self._known:  # groups of known parameters do not change
                self._known.add(names)
                self._group.add_distributions(trial.distributions)
        self._seen = len(done)
        return self._group


class _Sampling:
    """An Optuna trial whose parameters can be sampled more than once."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        trial = study.ask()
        self.number = trial.number
        self._trial = study.get_trials(deepcopy=False)[trial.number]
        self._relative = dict(trial.relative_params)

    def again(self) -> None:
        """Sample the trial's parameters again."""
        sampler = self._study.sampler
        space = sampler.infer_relative_search_space(self._study, self._trial)
        self._relative = sampler.sample_relative(self._study, self._trial, space)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Choose one of the choices."""
        from optuna.distributions import CategoricalDistribution

        return self._pick(name, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Choose an integer from low to high, both included."""
        from optuna.distributions import IntDistribution

        return int(self._pick(name, IntDistribution(low, high)))

    def _pick(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._relative:
            return self._relative[name]
        if distribution.single():
            single: Any = distribution
            return single.to_external_repr(0) if hasattr(single, "choices") else single.low
        return self._study.sampler.sample_independent(self._study, self._trial, name, distribution)
