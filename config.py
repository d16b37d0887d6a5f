"""Options of a run with their defaults, shared by the library and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ProblemConfig:
    """The model and the pictures of a run.

    Attributes:
        model: "auto", a model name such as "RN50" or "ViT-B-32:laion2b_s34b_b79k", a hub id, a folder, or
            "zeroshot".
        dataset: "auto", "cifar10", "cifar100", "pacs-photo", a hub id, or a folder or file (see `open_dataset`).
        weights: Path of a weights file for `model`.
        precision: "fp32", "bf16" or "fp16", for encoding pictures.
        picture_column: Name of the image column, if it cannot be inferred.
        label_column: Name of the label column, if it cannot be inferred.
        pictures: Data set that a feature pack was made from, for methods that need the pictures themselves.
        class_names: Names for the data set's classes, in their order, or a file of them; None for its own.
        test_share: Share of each class's pictures to hold out as the test split of a data set that has none.
        split_seed: Seed of that split; it does not depend on the seed of the search.
        allow_fewer: Whether classes with fewer pictures than shots use all that they have.
    """

    model: str = "auto"
    dataset: str = "auto"
    weights: str | None = None
    precision: str = "fp32"
    picture_column: str | None = None
    label_column: str | None = None
    pictures: str | None = None
    class_names: str | Sequence[str] | None = None
    test_share: float | None = None
    split_seed: int = 0
    allow_fewer: bool = False

    @property
    def reading(self) -> dict[str, Any]:
        """Keyword arguments of `open_dataset`."""
        named = {k: getattr(self, k) for k in ("picture_column", "label_column", "test_share", "split_seed")}
        return {**named, "renamed": self.class_names is not None}


@dataclass(frozen=True)
class MachineConfig:
    """How this machine computes; it is not part of a run's identity.

    Attributes:
        device: "auto", "cpu" or "cuda".
        memory: Bytes that scoring may use; by default a quarter of the RAM.
        encode_batch: Number of pictures encoded at a time; by default 8 on a CPU and 256 on a GPU.
        ray: Address of a Ray cluster that encodes pictures, or "local" to start one on this machine.
    """

    device: str = "auto"
    memory: int | None = None
    encode_batch: int | None = None
    ray: str | None = None


@dataclass(frozen=True)
class BeamOptions:
    """Options of beam search.

    Attributes:
        width: Number of ensembles kept per round.
        depth: Largest number of templates in an ensemble.
        patience: Number of rounds without improvement after which the search ends.
    """

    width: int = 8
    depth: int = 6
    patience: int = 2


@dataclass(frozen=True)
class TrialOptions:
    """Options of random search and hill climbing.

    Attributes:
        ensemble: Largest number of templates in a prompt set.
        batch: Number of prompt sets scored together.
    """

    ensemble: int = 1
    batch: int = 4


@dataclass(frozen=True)
class ClimbOptions(TrialOptions):
    """Options of hill climbing with a language model.

    Attributes:
        pool: Number of prompt sets drawn from the bank at the start of a pool.
        shown: Number of best and of worst prompt sets shown to the model.
        patience: Number of batches without improvement after which a new pool is started.
    """

    pool: int = 20
    shown: int = 3
    patience: int = 10


@dataclass(frozen=True)
class TpeOptions(TrialOptions):
    """Options of Optuna's samplers.

    Attributes:
        sampler: Name of the sampler.
        startup: Number of random trials before the sampler's model is used.
    """

    sampler: str = "tpe"
    startup: int = 20


@dataclass(frozen=True)
class EvolveOptions:
    """Options of evolution.

    Attributes:
        ensemble: Largest number of templates in a prompt set.
        population: Number of prompt sets that survive each generation.
        offspring: Number of prompt sets proposed and scored per generation.
        elite: Number of best prompt sets that always survive.
        crowding: Cosine similarity of text vectors above which the worse of two prompt sets is dropped.
        immigrants: Share of the offspring drawn from the bank.
        proposer: What writes the offspring: "lm", "fill", "grammar", or the name of a plug-in.
    """

    ensemble: int = 1
    population: int = 16
    offspring: int = 8
    elite: int = 2
    crowding: float = 0.999
    immigrants: float = 0.1
    proposer: str = "lm"


#: Options of each built-in searcher; climbing with a language model has `ClimbOptions`.
SEARCHER_OPTIONS: dict[str, type] = {
    "beam": BeamOptions,
    "random": TrialOptions,
    "climb": TrialOptions,
    "tpe": TpeOptions,
    "evolve": EvolveOptions,
}

#: Default number of trials, for searchers that work in trials.
TRIALS = 200

#: Default phrases of the classes: the built-in ones that fit, if there are any.
PHRASES = "auto"

#: Default banks: by searcher, and for all other searchers.
SEARCHER_BANKS, BANK = {"beam": "templates"}, "grammar"

#: Default objectives, with and without labels.
OBJECTIVE, OBJECTIVE_UNLABELLED = "xent", "mutual-information"


#: Keys of a stored configuration for names, and the keys for the fingerprints of what they name.
CONTENT = {
    "model": "model fingerprint",
    "dataset": "data fingerprint",
    "bank": "bank hash",
    "lm": "lm fingerprint",
    "fluency lm": "fluency lm fingerprint",
}


def without_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration without the names of what also has a fingerprint.

    The same folder can have many names (`d`, `./d`, `d/`, a link, or a new path after it was moved).

    Args:
        stored: The configuration, from `RunConfig.to_dict`.
    """
    return {k: v for k, v in stored.items() if stored.get(CONTENT.get(k, "")) is None}


@dataclass(frozen=True)
class FluencyConfig:
    """How a search takes fluency into account: as a weighted term of the objective, or as a separate aim.

    Attributes:
        lm: Language model that rates prompts: "embedded", a folder or a hub id.
        fingerprint: Hash of that model's files.
        weight: Weight of the log-likelihood per token (nats) in the objective.
        pareto: Whether to keep the Pareto front of objective, fluency and number of words.
    """

    lm: str = "embedded"
    fingerprint: str | None = None
    weight: float = 0.0
    pareto: bool = False


@dataclass(frozen=True)
class WriterConfig:
    """The language model that writes prompts.

    Attributes:
        lm: "embedded", "smollm2", a GGUF file, a folder, a hub id, or "server:NAME".
        fingerprint: Hash of a local model's files.
        api: "chat" or "completions", for a server.
        temperature: Sampling temperature.
        top_p: Probability mass from which tokens are sampled.
    """

    lm: str = "embedded"
    fingerprint: str | None = None
    api: str | None = None
    temperature: float = 1.0
    top_p: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        """Return the form in which studies store it."""
        data: dict[str, Any] = {"lm": self.lm}
        if self.api is not None:
            data["lm api"] = self.api
        else:
            data["lm fingerprint"] = self.fingerprint
        return {**data, "temperature": self.temperature, "top p": self.top_p}


@dataclass(frozen=True)
class SearchConfig:
    """How to search for prompts on one draw of pictures.

    Attributes:
        searcher: Name of the searcher, or of the gradient baseline.
        shots: Number of labelled pictures per class; 0 to search without labels.
        seed: Seed of the draw and of the search.
        objective: Name of the objective; "auto" means "xent", or "mutual-information" without labels.
        select: How to choose the winner among the prompt sets found; "auto" means "posterior" if labels are the
            search's only aim, otherwise "none"; empty for methods that find only one.
        unlabelled: Number of pictures to search on if `shots` is 0; both front ends take all if there are fewer.
        fluency: How fluency is taken into account; None if it is not.
        writer: The language model that writes prompts; None if there is none.
        options: The searcher's own options.
    """

    searcher: str = "beam"
    shots: int = 16
    seed: int = 0
    objective: str = "auto"
    select: str = "auto"
    unlabelled: int = 500
    fluency: FluencyConfig | None = None
    writer: WriterConfig | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: asdict(BeamOptions()))

    def builder_options(self) -> dict[str, Any]:
        """Return the options for building the searcher: its own, and the objective, seed, fluency and writer."""
        shared: dict[str, Any] = {"objective": self.objective, "seed": self.seed}
        if self.fluency is not None:
            shared |= {"fluency_weight": self.fluency.weight, "pareto": self.fluency.pareto}
        if self.writer is not None:
            shared["lm"] = self.writer.lm
        return {**self.options, **shared}


@dataclass(frozen=True)
class BankId:
    """The bank of a run.

    Attributes:
        name: Name of the bank; None for a method that could have used a bank and did not.
        hash: Hash of its content; None likewise.
    """

    name: str | None = None
    hash: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """The identity of a run: a study is resumed only if its configuration is equal; an error names any difference.

        config = RunConfig.from_dict(study.user_attrs["config"])
        print(config.search.searcher, config.search.shots, config.model)

    Studies store it as a flat dictionary; `to_dict` and `from_dict` are the only code that knows that form.

    Attributes:
        search: How to search for prompts.
        model: Name of the model.
        model_fingerprint: Hash of its weights.
        precision: Precision in which pictures are encoded.
        dataset: Name of the data set; None for a comparison, which has several.
        data_fingerprint: Hash of its pictures and labels.
        bank: The bank, for methods that have one.
        pictures_fingerprint: Hash of the pictures, for methods that read them in addition to a feature pack.
    """

    search: SearchConfig
    model: str = ""
    model_fingerprint: str = ""
    precision: str = "fp32"
    dataset: str | None = None
    data_fingerprint: str | None = None
    bank: BankId | None = None
    pictures_fingerprint: str | None = None

    @property
    def command(self) -> str:
        """Name of the command that made the run: its searcher or method."""
        return self.search.searcher

    def to_dict(self) -> dict[str, Any]:
        """Return the form in which studies store it."""
        search, fluency = self.search, self.search.fluency
        data: dict[str, Any] = {
            "command": search.searcher,
            "model": self.model,
            "model fingerprint": self.model_fingerprint,
            "precision": self.precision,
        }
        if self.dataset is not None:
            data |= {"dataset": self.dataset, "data fingerprint": self.data_fingerprint}
            data |= {"shots": search.shots, "seed": search.seed}
        if self.bank is not None:
            data |= {"bank": self.bank.name, "bank hash": self.bank.hash}
        if self.dataset is not None and not search.shots:
            data["unlabelled"] = search.unlabelled
        if search.select:
            data["select"] = search.select
        data |= {**search.options, "objective": search.objective}
        if fluency is not None:
            data["fluency lm"] = fluency.lm
            data |= {"fluency lm fingerprint": fluency.fingerprint} if fluency.fingerprint is not None else {}
            data |= {"fluency weight": fluency.weight} if fluency.weight else {}
            data |= {"pareto": True} if fluency.pareto else {}
        if search.writer is not None:
            data |= search.writer.to_dict()
        if self.pictures_fingerprint is not None:
            data["pictures fingerprint"] = self.pictures_fingerprint
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """Return the configuration from the form in which studies store it.

        Args:
            data: What `to_dict` returned, in this or an earlier version; missing keys have their defaults.
        """
        left = dict(data)

        def take(key: str, default: Any = None) -> Any:
            return left.pop(key, default)

        fluency = writer = None
        if left.keys() & {"fluency lm", "fluency weight", "pareto"}:
            fluency = FluencyConfig(
                take("fluency lm", FluencyConfig.lm),
                take("fluency lm fingerprint"),
                take("fluency weight", 0.0),
                take("pareto", False),
            )
        if "lm" in left:
            drawing = {"temperature": take("temperature", 1.0), "top_p": take("top p", 0.95)}
            writer = WriterConfig(take("lm"), take("lm fingerprint"), take("lm api"), **drawing)
        bank = BankId(take("bank"), take("bank hash")) if "bank" in left or "bank hash" in left else None
        known: dict[str, Any] = {
            "model": take("model", ""),
            "model_fingerprint": take("model fingerprint", ""),
            "precision": take("precision", "fp32"),
            "dataset": take("dataset"),
            "data_fingerprint": take("data fingerprint"),
            "bank": bank,
            "pictures_fingerprint": take("pictures fingerprint"),
        }
        search = SearchConfig(
            searcher=take("command", ""),
            shots=take("shots", 0),
            seed=take("seed", 0),
            objective=take("objective") or OBJECTIVE,
            select=take("select", ""),
            unlabelled=take("unlabelled", SearchConfig.unlabelled),
            fluency=fluency,
            writer=writer,
            options=left,
        )
        return cls(search, **known)
