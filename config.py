"""Every option of a run with its default, written once: the library and the command line both read them here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ProblemConfig:
    """Which model and which pictures a run uses.

    Attributes:
        model: "auto", a model name such as "RN50" or "ViT-B-32:laion2b_s34b_b79k", a hub id, a folder, or
            "zeroshot".
        dataset: "auto", "cifar10", "cifar100", "pacs-photo", a hub id, or a folder or file (see `open_dataset`).
        weights: path of a weights file for `model`.
        precision: "fp32", "bf16" or "fp16", for encoding pictures.
        picture_column: name of the image column, if it cannot be inferred.
        label_column: name of the label column, if it cannot be inferred.
        pictures: data set that a feature pack was made from, for methods that need the pictures themselves.
        class_names: names for the data set's classes, in their order, or a file of them; None for its own.
        test_share: share of each class's pictures to hold out as the test split of a data set that has none.
        split_seed: seed by which they are chosen; runs with other draws keep the same test pictures.
        allow_fewer: whether classes with fewer pictures than shots give what they have.
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
        """How the pictures are read: keywords of `open_dataset`."""
        named = {k: getattr(self, k) for k in ("picture_column", "label_column", "test_share", "split_seed")}
        return {**named, "renamed": self.class_names is not None}


@dataclass(frozen=True)
class MachineConfig:
    """How this machine computes; none of it changes what a run is.

    Attributes:
        device: "auto", "cpu" or "cuda".
        memory: bytes that scoring may use (default: a quarter of the RAM).
        encode_batch: pictures encoded at a time (default: 8 on a CPU, 256 on a GPU).
        ray: address of a Ray cluster that encodes, or "local" to start one on this machine.
    """

    device: str = "auto"
    memory: int | None = None
    encode_batch: int | None = None
    ray: str | None = None


@dataclass(frozen=True)
class BeamOptions:
    """Options of beam search: ensembles kept per round, largest ensemble, rounds without improvement allowed."""

    width: int = 8
    depth: int = 6
    patience: int = 2


@dataclass(frozen=True)
class TrialOptions:
    """Options of random search and hill climbing: templates per ensemble, and prompt sets scored together."""

    ensemble: int = 1
    batch: int = 4


@dataclass(frozen=True)
class ClimbOptions(TrialOptions):
    """Options of climbing with a language model: initial pool, examples shown, batches without improvement allowed."""

    pool: int = 20
    shown: int = 3
    patience: int = 10


@dataclass(frozen=True)
class TpeOptions(TrialOptions):
    """Options of Optuna's samplers: which one, and random trials before its model is used."""

    sampler: str = "tpe"
    startup: int = 20


@dataclass(frozen=True)
class EvolveOptions:
    """Options of evolution.

    Attributes:
        ensemble: most templates per prompt set.
        population: prompt sets that survive each generation.
        offspring: prompt sets proposed and scored per generation.
        elite: best prompt sets that always survive.
        crowding: cosine of text vectors above which the worse of two prompt sets is dropped.
        immigrants: share of the offspring drawn from the bank.
        proposer: who writes the offspring: "lm", "fill", "grammar", or a plug-in.
    """

    ensemble: int = 1
    population: int = 16
    offspring: int = 8
    elite: int = 2
    crowding: float = 0.999
    immigrants: float = 0.1
    proposer: str = "lm"


#: Options of each built-in searcher, without a language model.
SEARCHER_OPTIONS: dict[str, type] = {
    "beam": BeamOptions,
    "random": TrialOptions,
    "climb": TrialOptions,
    "tpe": TpeOptions,
    "evolve": EvolveOptions,
}

#: Trials of a search whose every prompt set is one.
TRIALS = 200

#: Phrases of the classes: the built-in ones that fit, if any.
PHRASES = "auto"

#: Bank of each built-in searcher, and of all others.
SEARCHER_BANKS, BANK = {"beam": "templates"}, "grammar"

#: Objectives if none is given: with labels, and without.
OBJECTIVE, OBJECTIVE_UNLABELLED = "xent", "mutual-information"


#: Keys of a stored configuration that name something, and the keys that identify its content.
CONTENT = {
    "model": "model fingerprint",
    "dataset": "data fingerprint",
    "bank": "bank hash",
    "lm": "lm fingerprint",
    "fluency lm": "fluency lm fingerprint",
}


def without_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration without the names of what it identifies by content.

    The same folder can be named in many ways (`d`, `./d`, `d/`, a link, or another place after it was moved).
    """
    return {k: v for k, v in stored.items() if stored.get(CONTENT.get(k, "")) is None}


@dataclass(frozen=True)
class FluencyConfig:
    """How fluency takes part in a search: as a weighted part of the objective, or as an aim of its own.

    Attributes:
        lm: the language model that rates prompts: "embedded", a folder or a hub id.
        fingerprint: digest of that model's files.
        weight: what the log-likelihood per token (nats) is multiplied by before it is added to the objective.
        pareto: whether to keep the front of objective, fluency and number of words.
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
        fingerprint: digest of a local model's files.
        api: "chat" or "completions", for a server.
        temperature: sampling temperature.
        top_p: probability mass that is sampled from.
    """

    lm: str = "embedded"
    fingerprint: str | None = None
    api: str | None = None
    temperature: float = 1.0
    top_p: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        """The form in which studies store it."""
        data: dict[str, Any] = {"lm": self.lm}
        if self.api is not None:
            data["lm api"] = self.api
        else:
            data["lm fingerprint"] = self.fingerprint
        return {**data, "temperature": self.temperature, "top p": self.top_p}


@dataclass(frozen=True)
class SearchConfig:
    """How prompts are searched for on one draw of pictures.

    Attributes:
        searcher: name of the searcher, or of the gradient baseline.
        shots: labelled pictures per class; 0 to search without labels.
        seed: of the draw and of the search.
        objective: name of the objective; "auto": "xent", or "mutual-information" without labels.
        select: how the winner is chosen among what was found; "auto": "posterior" where the search goes by labels
            alone, else "none"; empty for methods that find one thing only.
        unlabelled: pictures to search on if `shots` is 0.
        fluency: how fluency takes part, if it does.
        writer: the language model that writes prompts, if one does.
        options: the searcher's own options.
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
        """What the builder of a searcher reads: the searcher's own options, and the shared ones that concern it."""
        shared: dict[str, Any] = {"objective": self.objective, "seed": self.seed}
        if self.fluency is not None:
            shared |= {"fluency_weight": self.fluency.weight, "pareto": self.fluency.pareto}
        if self.writer is not None:
            shared["lm"] = self.writer.lm
        return {**self.options, **shared}


@dataclass(frozen=True)
class BankId:
    """Which bank a run used: its name and content hash, or None for a method that could have used one and did not."""

    name: str | None = None
    hash: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """A run's identity: a study is resumed if it is equal, and refused (naming the difference) if it is not.

        config = RunConfig.from_dict(study.user_attrs["config"])
        print(config.search.searcher, config.search.shots, config.model)

    Studies store it as a flat dictionary; `to_dict` and `from_dict` are the only code that knows that form.

    Attributes:
        search: how prompts are searched for.
        model: name of the model.
        model_fingerprint: digest of its weights.
        precision: of the pictures' encoding.
        dataset: name of the data set; None for a comparison, which has several.
        data_fingerprint: digest of its pictures and labels.
        bank: the bank, for methods that have one.
        pictures_fingerprint: digest of the pictures, for methods that read them beside a feature pack.
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
        """The form in which studies store it."""
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
        """Read what `to_dict` gave, in this or an earlier version; what an old study lacks has its default."""
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
