"""`PromptSearch`, a search with the interface of a scikit-learn classifier."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.banks import Bank, PromptSet, load_bank
from promptsearch.banks.formats import why_swapped
from promptsearch.config import (
    BANK,
    PHRASES,
    SEARCHER_BANKS,
    TRIALS,
    ClimbOptions,
    MachineConfig,
    ProblemConfig,
    SearchConfig,
    WriterConfig,
)
from promptsearch.errors import InputError, Interrupted, PromptSearchError
from promptsearch.evaluators import Encoder, Problem, default_cache, open_configured, resolve_model
from promptsearch.evaluators.data.array_features import ArrayFeatures
from promptsearch.evaluators.data.class_names import spoken_names
from promptsearch.evaluators.data.encoded_picture import StoredPicture, open_given
from promptsearch.evaluators.task import UNLABELLED
from promptsearch.runs import (
    Budget,
    LanguageTools,
    Record,
    RunRecord,
    RunResult,
    begin_estimate,
    check_search,
    memory_run,
    open_run,
    run_search,
)
from promptsearch.runs.classifier import Classifier, open_classifier
from promptsearch.runs.open_run import Place, default_options, default_start, with_phrases
from promptsearch.runs.result import Calibration, calibrate, probabilities
from promptsearch.runs.winner import winner_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from promptsearch.runs import Estimate


@dataclass(eq=False)
class PromptSearch:
    """Zero-shot classifier that searches for its prompts on a few labelled pictures.

    It searches a bank of templates such as "a photo of a {}." for the ensemble that classifies the given pictures
    best, without gradients and without changing the model. It follows scikit-learn's conventions: `fit` returns the
    estimator, names of fitted attributes end in an underscore, and `sklearn.base.clone` and `cross_val_score` work.

        from promptsearch import PromptSearch

        ps = PromptSearch(model="RN50", searcher="beam", random_state=0)
        ps.fit(images, labels, class_names=["cat", "dog"])
        print(ps.prompts_, ps.estimate_.accuracy)
        ps.predict(others)

    Args:
        model: Name of a model ("auto", "RN50", "ViT-B-32:laion2b_s34b_b79k", "hf-hub:OWNER/NAME", "local-dir:PATH",
            "zeroshot"), or an open_clip triple (model, preprocess, tokenizer).
        weights: Weights file, if `model` is the name of an architecture.
        precision: "fp32", "bf16" or "fp16", for encoding pictures.
        device: "auto", "cpu" or "cuda".
        bank: Templates to search: name of a built-in bank, a file, a `Bank`, or a list of templates. "auto" takes
            the default bank of the searcher.
        phrases: Further names for the classes: a phrase bank or file, "none", or "auto" for the built-in phrases that
            fit the class names.
        searcher: "beam", "random", "climb", "tpe", "evolve", or the name of a plug-in.
        searcher_options: Options of the searcher that differ from its defaults, e.g. `{"width": 16}`.
        objective: What the search maximises: "xent", "xent-fitted", "accuracy", "margin", "balanced" or
            "worst-class"; without labels "mutual-information", "zpe" or "agreement". "auto" takes "xent", or
            "mutual-information".
        select: How to choose the winner among the prompt sets found: "posterior", "weighted", "bagged", "cv",
            "bootstrap", "zpe" or "none". "auto" takes "posterior", or "none" if the objective reads no labels.
        shots: Pictures per class to search on, drawn by `random_state`; None uses all given pictures.
        allow_fewer: Whether classes with fewer pictures than `shots` use all that they have.
        test_share: Share of each class's pictures to hold out as the test split of a data set by name that has none.
        trials: Number of prompt sets to score, for searchers other than "beam".
        estimate: Whether to estimate the accuracy on new pictures by repeating search and choice in folds.
        lm: Language model that writes prompts, for "evolve" and "climb": "embedded", a folder or a hub id.
        random_state: Seed of the draw and of the search; an int, a `numpy.random.RandomState` or `Generator`, or
            None for a different seed at each call of `fit`.
        storage: Database URL or SQLite file in which the run is stored, and from which it is resumed; None stores
            nothing.
        study: Name of the stored run; by default made from its configuration.

    Attributes:
        prompts_: The T templates of the winning ensemble.
        weights_: (T,) weight of each template; they sum to 1.
        estimate_: Expected accuracy on new pictures, with its interval (`estimate_.accuracy.low`); None without
            labels or with `estimate=False`.
        result_: Complete result of the run, as a `promptsearch.runs.RunResult`.
        record_: The run itself, in memory or in `storage`.
        classes_: (C,) labels that `predict` returns, as given to `fit`.
        class_names_: Names of the C classes as prompts contain them: underscores are spaces.
        class_weights_: (C, D) unit text vectors of the classes.
        logit_scale_: Factor of the cosines in the softmax of `predict_proba`, fitted to the few-shot labels.
        unknown_below_: A picture whose largest probability is below this belongs to no known class; estimated on the
            few-shot pictures, None if they are too few.
        n_features_in_: Length D of the picture features.
    """

    model: Any = ProblemConfig.model
    _: KW_ONLY
    weights: str | os.PathLike[str] | None = None
    precision: str = ProblemConfig.precision
    device: str = MachineConfig.device
    bank: str | os.PathLike[str] | Bank | Sequence[str] = "auto"
    phrases: str = PHRASES
    searcher: str = SearchConfig.searcher
    searcher_options: Mapping[str, Any] | None = None
    objective: str = SearchConfig.objective
    select: str = SearchConfig.select
    shots: int | None = None
    allow_fewer: bool = ProblemConfig.allow_fewer
    test_share: float | None = ProblemConfig.test_share
    trials: int | None = TRIALS
    estimate: bool = True
    lm: str | None = None
    random_state: Any = SearchConfig.seed
    storage: str | os.PathLike[str] | None = None
    study: str | None = None

    _estimator_type = "classifier"

    def fit(
        self,
        images: Any = None,
        labels: Any = None,
        *,
        class_names: Sequence[str] | None = None,
        features: Any = None,
    ) -> PromptSearch:
        """Search for the prompts that classify the given pictures best.

        Args:
            images: PIL pictures, paths, an array (N, H, W, 3) of uint8, or image features (N, D) of floats. Or the name
                of a data set or a folder: `shots` pictures per class (16 by default) are drawn from it, and the winner
                is measured on its test split.
            labels: (N,) class names, or indices into `class_names`. None searches without labels.
            class_names: Name of each class, in the order of `classes_`; required if the labels are numbers or None. For
                a data set by name, they replace its own names, in its order. Scikit-learn's scorers of probabilities
                need the names sorted if the labels are names.
            features: (N, D) image features of the model, instead of `images`.

        Returns:
            The estimator itself.

        Raises:
            InputError: A parameter or an input is invalid; the message names it.
            PromptSearchError: The model cannot be downloaded or loaded, or the run cannot be stored.
        """
        with _names_parameters():
            self._check_types()
            seed = _seed(self.random_state)
            given = self._open(images, labels, _class_names(class_names), features)
            problem, classes = given.problem, given.classes
            bank, search = self._search(problem, given.shots, seed)
            bank = with_phrases(bank, self.phrases, problem)
            language = _language(search)
            begin = begin_estimate(problem, bank, search) if self.estimate else contextlib.nullcontext()
            with begin as begun:
                record = self._record(problem, bank, search, given.opened)
                result = run_search(
                    problem,
                    bank,
                    record,
                    language=language,
                    budget=Budget(_python(self.trials)),
                    estimate=bool(self.estimate),
                    begun=begun,
                )
            winner = result.winner.prompt_set
            evaluator = problem.evaluator(problem.task(search.shots, seed, search.unlabelled))
            calibration = result.calibration or calibrate(evaluator, winner)
            names, vectors = problem.source.class_names, evaluator.class_weights(winner)
            self.result_: RunResult = result
            self.record_: Record = record
            self._take(winner, Classifier(record.name, names, vectors, calibration, problem.encoder), classes)
            problem.encoder.close()
        return self

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        *,
        storage: str | os.PathLike[str] | None = None,
        model: str | None = None,
        weights: str | os.PathLike[str] | None = None,
        device: str = MachineConfig.device,
    ) -> PromptSearch:
        """Return the fitted estimator of a saved run, to classify pictures with its winner.

            ps = PromptSearch.load("my-run")
            ps.predict(["cat.jpg", "dog.jpg"])

        The pictures that the run was found on are not needed.

        Args:
            run: Name of the run, made by `fit` with `storage` or by the command line; or a folder that
                `export("folder", …)` wrote.
            storage: Database URL or SQLite file of the run; None for the user's own.
            model: The run's model, if its path is different on this machine.
            weights: The run's weights, if their path is different on this machine.
            device: "auto", "cpu" or "cuda".

        Returns:
            The estimator. An unfinished run has no `result_`, and a folder neither `result_` nor `record_`; their
            `estimate_` is None.

        Raises:
            InputError: There is no such run, it has no winning prompts, or its model is missing.
        """
        from promptsearch.reports.folder import is_folder

        with _names_parameters():
            if not isinstance(run, (str, os.PathLike)):
                raise InputError(f"run of type {type(run).__name__}: give the name of a run or an exported folder")
            run, storage = os.fspath(run), None if storage is None else os.fspath(storage)
            if is_folder(run):
                if storage or model or weights:
                    raise InputError(f"--storage, --model, --weights: {run} is an exported folder; leave them out")
                return cls._of_folder(Path(run), device)
            record, machine = RunRecord.load(run, storage), MachineConfig(device=device)
            file = None if weights is None else Path(weights)
            classifier = open_classifier(record, model=model, weights=file, machine=machine)
            winner, config = winner_of(record), record.config
            kept = record.about.get("opened") or {}
            opened = model or kept.get("model", config.model)
            loaded = cls(
                opened,
                weights=weights or (kept.get("weights") if model is None else None),
                precision=config.precision,
                device=device,
                searcher=config.command,
                objective=config.search.objective,
                shots=config.search.shots,
                random_state=config.search.seed,
                storage=storage,
                study=run,
            )
            loaded.record_ = record
            if record.result is not None:
                loaded.result_ = RunResult.from_dict(record.result)
            loaded._take(winner, classifier, None)
        return loaded

    @classmethod
    def _of_folder(cls, folder: Path, device: str) -> PromptSearch:
        from promptsearch.reports.folder import open_folder, read_prompts

        classifier = open_folder(folder, MachineConfig(device=device))
        loaded = cls(classifier.encoder.spec.name, device=device)
        loaded._take(read_prompts(folder), classifier, None)
        return loaded

    def _take(self, winner: PromptSet, classifier: Classifier, classes: np.ndarray | None) -> None:
        """Set the fitted attributes.

        Args:
            winner: The chosen prompt set.
            classifier: Its class weights, calibration and encoder.
            classes: The labels that `predict` returns; None for the class names.
        """
        self.prompts_: list[str] = [str(t) for t in winner.templates]
        total = np.asarray(winner.weights or [1.0] * winner.size)
        self.weights_: np.ndarray = total / total.sum()  # (T,)
        self.estimate_: Estimate | None = self.result_.estimate if hasattr(self, "result_") else None
        self.class_names_: list[str] = list(classifier.class_names)
        self.classes_: np.ndarray = np.asarray(self.class_names_ if classes is None else classes)
        self.class_weights_: np.ndarray = classifier.class_weights  # (C, D)
        self.logit_scale_ = classifier.calibration.logit_scale
        self.unknown_below_ = classifier.calibration.unknown_below
        self.n_features_in_ = int(self.class_weights_.shape[1])
        self._encoder, self._fingerprint = classifier.encoder, classifier.encoder.spec.fingerprint

    def decision_function(self, images: Any) -> np.ndarray:
        """Return the logits: the cosines between pictures and classes times `logit_scale_`.

        Args:
            images: Pictures or features, as for `fit`.

        Returns:
            (N, C) logits.
        """
        with _names_parameters():
            self._fitted()
            vectors = self._features(self._loaded_encoder, self.n_features_in_, images)
            return self.logit_scale_ * (vectors @ self.class_weights_.T)

    def predict(self, images: Any) -> np.ndarray:
        """Return the most probable class of each picture.

        Args:
            images: Pictures or features, as for `fit`.

        Returns:
            (N,) labels out of `classes_`.
        """
        self._fitted()
        return np.asarray(self.classes_[self.decision_function(images).argmax(axis=1)])

    def predict_proba(self, images: Any) -> np.ndarray:
        """Return the probability of each class for each picture.

        With s = `logit_scale_`: p(c | x) = exp(s cos(x, w_c)) / sum_k exp(s cos(x, w_k)).

        Args:
            images: Pictures or features, as for `fit`.

        Returns:
            (N, C) probabilities; each row sums to 1.
        """
        return probabilities(self.decision_function(images), 1.0)

    def score(self, images: Any, labels: Any) -> float:
        """Return the accuracy on labelled pictures.

        Args:
            images: Pictures or features, as for `fit`.
            labels: (N,) true labels, as given to `fit`.

        Raises:
            InputError: There is not one label for each picture, or a label is none of `classes_`.
        """
        predicted = self.predict(images)
        true = _labels(labels, len(predicted))
        classes = self.classes_.tolist()
        if wrong := sorted(set(true.tolist()) - set(classes)):
            some = ", ".join(map(repr, classes[:3])) + (", …" if len(classes) > 3 else "")
            raise InputError(f"labels: {wrong[0]!r} is none of the classes that were fitted ({some})")
        return float(np.mean(predicted == true))

    def export(self, format: str, path: str | os.PathLike[str]) -> None:
        """Write the winning prompts for another tool.

        Args:
            format: "open_clip" (class weights, safetensors), "transformers" (a pipeline script), "clip_benchmark"
                (JSON), "bank" (a text file of the templates alone), "python" (a script), "folder" (class weights,
                preprocessing and a script) or "onnx" (the same as an ONNX model).
            path: File, or folder, to write.

        Raises:
            InputError: The format is unknown, cannot represent the prompts, or the file cannot be written.
        """
        from promptsearch.reports import export as to
        from promptsearch.reports.folder import FOLDERS, Exported

        self._fitted()
        form = str(format).replace("_", "-")
        with _names_parameters():
            formats = [f for f in to.FORMATS if f != "hub"]
            if form not in formats:
                raise InputError(f"--format {format}: choose from {', '.join(f.replace('-', '_') for f in formats)}")
            record = self._recorded()
            weights = None if self.weights is None else Path(self.weights)
            named = record.config.model, str(record.config.dataset), weights
            names = tuple(self.class_names_)
            winner = to.Winner(winner_of(record), names, record.name, *named, logit_scale=self.logit_scale_)
            if form == "open-clip":
                to.to_open_clip(winner, self.class_weights_, self.logit_scale_, Path(path))
                return
            if form in FOLDERS:
                calibration = Calibration(self.logit_scale_, self.unknown_below_)
                encoder = self._loaded_encoder()
                classifier = Classifier(record.name, names, self.class_weights_, calibration, encoder)
                FOLDERS[form](Exported(winner, classifier, record.result), Path(path))
                return
            writers = {
                "bank": to.to_bank,
                "python": to.to_python,
                "transformers": to.to_transformers,
                "clip-benchmark": to.to_clip_benchmark,
            }
            to.write(Path(path), writers[form](winner))

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write a report of the run as one HTML page with plots.

        Args:
            path: File to write.

        Raises:
            InputError: The estimator is not fitted, or was loaded from an exported folder.
        """
        from promptsearch.reports.export import write
        from promptsearch.reports.html import all_plots, build_page
        from promptsearch.reports.view import Opened, RunView

        self._fitted()
        record = self._recorded()
        opened = Opened([RunView(record)], [], [])
        overall, by_run = all_plots(opened)
        sources = {record.name: lambda indices: "The report of a fitted estimator shows no pictures."}
        write(Path(path), build_page(opened, overall, by_run, sources))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of the constructor by name.

        Args:
            deep: Ignored, because no parameter is an estimator; scikit-learn passes it.
        """
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: Any) -> PromptSearch:
        """Set parameters by name, and return the estimator.

        Args:
            params: Any of the constructor's parameters.

        Raises:
            InputError: There is no parameter of this name.
        """
        known = self._parameters()
        for name, value in params.items():
            if name not in known:
                raise InputError(f"{name}: not a parameter of PromptSearch; choose from {', '.join(known)}")
            setattr(self, name, value)
        return self

    @classmethod
    def _parameters(cls) -> list[str]:
        return list(inspect.signature(cls).parameters)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "class_weights_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags("classifier", TargetTags(required=True), None, ClassifierTags(), None, input_tags=InputTags())

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the open encoder, which `predict` opens again."""
        return {k: v for k, v in vars(self).items() if k != "_encoder"}

    def _fitted(self) -> None:
        if not hasattr(self, "class_weights_"):
            raise InputError("this PromptSearch is not fitted; call fit first")

    def _recorded(self) -> Record:
        """Return the record of the run, or raise InputError if there is none."""
        if not hasattr(self, "record_"):
            raise InputError("this PromptSearch was loaded from an exported folder, which has no record of its run")
        return self.record_

    def _open(self, images: Any, labels: Any, class_names: list[str] | None, features: Any) -> _Given:
        """Open the arguments of `fit` as a problem."""
        if isinstance(images, (str, os.PathLike)):
            if not isinstance(self.model, str):
                raise InputError("--model: a data set by name needs a model by name; give its pictures instead")
            if labels is not None or features is not None:
                raise InputError("labels: a data set by name has its own; leave them out")
            weights = None if self.weights is None else os.fspath(self.weights)
            opened = ProblemConfig(
                self.model,
                os.fspath(images),
                weights,
                self.precision,
                class_names=class_names,
                test_share=_python(self.test_share),
                allow_fewer=bool(self.allow_fewer),
            )
            problem = open_configured(opened, MachineConfig(device=self.device))
            if class_names is not None and (why := why_swapped(problem.own_names, class_names)):
                own = ", ".join(problem.own_names[:10]) + (" …" if len(problem.own_names) > 10 else "")
                raise InputError(f"class_names: {why}; the data set's order is {own}")
            return _Given(problem, SearchConfig.shots if self.shots is None else int(self.shots), None, opened)
        if self.test_share is not None:
            raise InputError(f"test_share {self.test_share:g}: only a data set by name has a test split; leave it out")
        if (images is None) == (features is None):
            raise InputError("images: give either pictures or features")
        encoder = self._make_encoder()
        width = int(encoder.info["embed_dim"])
        vectors = self._features(lambda: encoder, width, images if features is None else features)
        index, names, classes = _classes(labels, class_names, len(vectors))
        parameter = "class_names" if labels is None or class_names is not None else "labels"
        if len(names) < 2:
            some = f"one class ({names[0]})" if names else "no class"
            raise InputError(f"{parameter}: {some}; classification needs two or more")
        spoken = spoken_names(parameter, names)
        source = ArrayFeatures(vectors, index, spoken, whole=self.shots is None)
        problem = Problem(encoder, source, default_cache(), allow_fewer=bool(self.allow_fewer))
        if labels is None:
            return _Given(problem, 0, classes)
        counts = np.bincount(index, minlength=len(names))
        if counts.min() == 0:
            raise InputError(f"labels: no picture of class {names[int(counts.argmin())]!r}; leave the class out")
        return _Given(problem, int(counts.min() if self.shots is None else self.shots), classes)

    def _check_types(self) -> None:
        """Refuse values that the command line's options would not take either."""
        for name, least in (("shots", 0), ("trials", 1)):
            if (value := getattr(self, name)) is not None and not _is_whole(value, least):
                raise InputError(f"{name} {value!r}: give a whole number of at least {least}")
        for name in ("weights", "phrases", "lm", "storage", "study"):
            if (value := getattr(self, name)) is not None and not isinstance(value, (str, os.PathLike)):
                raise InputError(f"{name} of type {type(value).__name__}: give a name or a path")
        for name in ("estimate", "allow_fewer"):
            if not isinstance(value := getattr(self, name), (bool, np.bool_)):
                raise InputError(f"{name} {value!r}: give True or False")
        given = (str, os.PathLike, Bank, Iterable)
        if not isinstance(self.bank, given) or isinstance(self.bank, (bytes, Mapping, Set)):
            raise InputError(f"bank {self.bank!r}: give templates, a file, or the name of a bank")
        if self.searcher_options is not None and not isinstance(self.searcher_options, Mapping):
            raise InputError(f"searcher_options {self.searcher_options!r}: give a dict of options")
        if self.test_share is not None and not _is_number(self.test_share):
            raise InputError(f"test_share {self.test_share!r}: give a number between 0 and 1")

    def _search(self, problem: Problem, shots: int, seed: int) -> tuple[Bank, SearchConfig]:
        options = default_options(self.searcher)
        writer = None
        if self.lm is not None and self.searcher == "climb":
            options = vars(ClimbOptions()).copy()
        given = {name: _python(value) for name, value in (self.searcher_options or {}).items()}
        if unknown := sorted(given.keys() - options.keys()):
            raise InputError(f"searcher_options: {self.searcher} has no {unknown[0]!r}; it has {', '.join(options)}")
        for name, default in options.items():
            _check_option(name, given.get(name, default), default)
        options |= given
        if options.get("proposer") == "lm" or (self.searcher == "climb" and self.lm is not None):
            from promptsearch.lm import EMBEDDED, locate

            place = locate(self.lm or EMBEDDED)
            writer = WriterConfig(place.name, place.fingerprint)
        elif self.lm is not None:
            raise InputError(f"--lm {self.lm} would do nothing: {self.searcher} asks no language model")
        bank = self._bank()
        pictures = len(problem.source.labels("train")[0])
        if not isinstance(problem.source, ArrayFeatures):
            pictures = min(SearchConfig.unlabelled, pictures)
        search = SearchConfig(
            self.searcher,
            shots,
            seed,
            objective=self.objective,
            select=self.select,
            unlabelled=pictures,
            writer=writer,
            options=options,
        )
        return bank, check_search(search, bank)

    def _bank(self) -> Bank:
        if isinstance(self.bank, Bank):
            return self.bank
        if isinstance(self.bank, str) and self.bank == "auto":
            return load_bank(SEARCHER_BANKS.get(self.searcher, BANK))
        if isinstance(self.bank, (str, os.PathLike)):
            return load_bank(str(self.bank))
        return Bank.of("given", self.bank)

    def _record(self, problem: Problem, bank: Bank, search: SearchConfig, opened: ProblemConfig | None) -> Record:
        start = default_start(search, bank)
        if self.storage is None:
            return memory_run(problem, bank, search, opened=opened, start=start)
        return open_run(problem, bank, search, Place(os.fspath(self.storage), self.study), opened=opened, start=start)

    def _loaded_encoder(self) -> Encoder:
        if not hasattr(self, "_encoder"):
            encoder = self._make_encoder()
            if encoder.spec.fingerprint != self._fingerprint:
                raise InputError(
                    f"--model {encoder.spec.name}: is not the model that this PromptSearch was fitted with "
                    f"(fingerprint {self._fingerprint}, here {encoder.spec.fingerprint}); name that one, or fit again"
                )
            self._encoder = encoder
        return self._encoder

    def _make_encoder(self) -> Encoder:
        cache = default_cache()
        if isinstance(self.model, str) and self.model != "auto":
            weights = None if self.weights is None else Path(self.weights)
            spec = resolve_model(self.model, cache, weights=weights, device=self.device, precision=self.precision)
            return Encoder(spec, cache)
        if self.model == "auto":
            return open_configured(ProblemConfig(), MachineConfig(device=self.device)).encoder
        if not isinstance(self.model, Sequence) or len(self.model) != 3:
            raise InputError("--model: give a name, or an open_clip triple (model, preprocess, tokenizer)")
        model, preprocess, tokenizer = self.model
        return Encoder.of_model(model, preprocess, tokenizer, cache)

    def _features(self, open_encoder: Callable[[], Encoder], width: int, images: Any) -> np.ndarray:
        """Return the unit vectors (N, D) of pictures, for which the encoder is opened, or of given features.

        Args:
            open_encoder: Returns the encoder.
            width: D, the length of the encoder's vectors.
            images: Pictures or features.
        """
        if isinstance(images, (str, os.PathLike)):
            raise InputError(f"images: {os.fspath(images)} is one path; give a list of paths")
        if not isinstance(images, Iterable):
            raise InputError(
                f"images: {images!r} is of type {type(images).__name__}; give several pictures, or features"
            )
        if isinstance(images, (bytes, Mapping, Set)):
            raise InputError(f"images: of type {type(images).__name__}; give a list of pictures, or features")
        given = _array(images)
        if given is None or given.dtype == object or given.dtype.kind in "US":
            return open_encoder().encode_pictures(_pictures(images))
        if given.ndim == 4 and given.dtype == np.uint8:
            return open_encoder().encode_pictures(_pictures(given))
        if given.ndim != 2 or given.dtype.kind != "f":
            raise InputError(
                f"images: an array of shape {given.shape} and type {given.dtype} is neither pictures (N, H, W, 3) of "
                "uint8 nor features (N, D) of floats"
            )
        if given.shape[1] != width:
            raise InputError(f"features: {given.shape[1]} numbers per picture, and the model has {width}")
        if not np.isfinite(given).all():
            raise InputError("features: not all numbers are finite")
        vectors = given.astype(np.float32)
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if len(odd := np.flatnonzero((lengths == 0) | ~np.isfinite(lengths))):
            why = "is zero" if lengths[odd[0]] == 0 else "has numbers that are too large"
            raise InputError(f"features: number {odd[0]} {why}, so that it has no direction; encode the picture again")
        return vectors / lengths


@dataclass(frozen=True)
class _Given:
    """The opened arguments of `fit`.

    Attributes:
        problem: The model and the pictures.
        shots: Number of pictures per class to search on.
        classes: (C,) labels that `predict` returns; None for the class names.
        opened: How the problem was opened, for a data set by name.
    """

    problem: Problem
    shots: int
    classes: np.ndarray | None = None
    opened: ProblemConfig | None = None


def _language(search: SearchConfig) -> LanguageTools:
    writer = search.writer
    if writer is None:
        return LanguageTools()
    from promptsearch.lm.opening import open_writer

    return LanguageTools(writer=lambda: open_writer(writer, {}))


def _array(images: Iterable[Any]) -> np.ndarray | None:
    """Return features or pictures that are one array, data frame or tensor as an array; None if they are a collection.

    Raises:
        InputError: Numbers are missing from a masked array, or a tensor holds none or is sparse.
    """
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    if torch is not None and isinstance(images, torch.Tensor):
        if images.is_meta or images.layout != torch.strided:
            raise InputError("images: a tensor without numbers, or a sparse one; give a dense tensor or an array")
        dense = images.detach().cpu()
        return np.asarray(dense.float() if dense.is_floating_point() else dense)  # numpy has no bfloat16
    if np.ma.is_masked(images):
        raise InputError("images: some numbers are masked; give an array without a mask")
    return np.asarray(images) if hasattr(images, "__array__") and not hasattr(images, "getbands") else None


def _pictures(images: Iterable[Any]) -> Iterator[Image | StoredPicture]:
    """Convert PIL pictures, paths or arrays (H, W, 3) to pictures that an encoder accepts."""
    from PIL import Image

    for i, image in enumerate(images):
        if isinstance(image, (str, os.PathLike)):
            yield StoredPicture(None, os.fspath(image), f"picture {i}")
        elif isinstance(image, Image.Image):
            yield open_given(image, f"picture {i}")
        elif isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
            yield open_given(Image.fromarray(image), f"picture {i}")
        else:
            array = hasattr(image, "shape") and hasattr(image, "dtype")
            found = f"{tuple(image.shape)} and dtype {image.dtype}" if array else type(image).__name__
            raise InputError(
                f"images: number {i} is of {'shape' if array else 'type'} {found}; give PIL pictures, paths or arrays "
                "(H, W, 3) of uint8, or features as one array (N, D) of floats"
            )


def _classes(
    labels: Any, class_names: list[str] | None, pictures: int
) -> tuple[np.ndarray, list[str], np.ndarray | None]:
    """Return the class indices (N,), the class names, and the labels (C,) that `predict` returns."""
    if labels is None:
        if class_names is None:
            raise InputError("class_names: without labels, say what the classes are called")
        return np.full(pictures, UNLABELLED), class_names, np.asarray(class_names)
    given = _labels(labels, pictures)
    if given.dtype.kind != "U":
        if class_names is None:
            raise InputError("class_names: the labels are numbers; say what each class is called")
        if len(outside := given[(given < 0) | (given >= len(class_names))]):
            raise InputError(f"labels: {outside[0]} is not an index into the {len(class_names)} class names")
        return given, class_names, np.arange(len(class_names))
    text = given.tolist()
    names = class_names if class_names is not None else sorted(set(text))
    if unknown := sorted(set(text) - set(names)):
        raise InputError(f"labels: {unknown[0]!r} is not among the class names")
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[t] for t in text], dtype=np.int64), names, np.asarray(names)


def _class_names(given: Any) -> list[str] | None:
    """Return class names as a list.

    Raises:
        InputError: They have no order, so that indices would not say which is meant, or are not texts.
    """
    if given is None:
        return None
    if isinstance(given, (str, bytes, Mapping, Set)) or not isinstance(given, Iterable):
        raise InputError(f"class_names {given!r}: give a list of names in the order of the labels")
    names = list(given)
    if odd := [n for n in names if not isinstance(n, str)]:
        raise InputError(f"class_names: {odd[0]!r} is not a text; give the name of each class")
    return names


def _labels(labels: Any, pictures: int) -> np.ndarray:
    """Return labels (N,) as an array of texts or of whole numbers.

    Raises:
        InputError: There is not one label for each picture, or a label is missing or neither text nor a whole number.
    """
    given = np.asarray(labels)
    if given.shape != (pictures,):
        raise InputError(f"labels: an array of shape {given.shape} for {pictures} pictures; give one label for each")
    each = np.asarray(labels, dtype=object)  # numpy turns ["cat", nan] into the texts "cat" and "nan"
    texts = [isinstance(label, str) for label in each]
    if all(texts):
        return np.array(each, dtype=str)
    odd = [i for i, label in enumerate(each) if not (texts[i] if any(texts) else _is_whole(label, -sys.maxsize))]
    if odd:
        raise InputError(
            f"labels: number {odd[0]} is {each[odd[0]]!r}; give each picture the name of its class, or its index as a "
            "whole number"
        )
    return np.array(each, dtype=np.int64)


def _is_whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _python(value: Any) -> Any:
    """Return a number of numpy as one of Python, which can be stored; grids of parameters are often made by numpy."""
    return value.item() if isinstance(value, np.generic) else value


def _check_option(name: str, value: Any, default: Any) -> None:
    """Refuse an option of a searcher whose value is of another type than its default."""
    if isinstance(default, bool) or default is None:
        return
    if isinstance(default, int) and not _is_whole(value, -sys.maxsize):
        raise InputError(f"searcher_options: {name} {value!r}: give a whole number")
    if isinstance(default, float) and not _is_number(value):
        raise InputError(f"searcher_options: {name} {value!r}: give a number")
    if isinstance(default, str) and not isinstance(value, str):
        raise InputError(f"searcher_options: {name} {value!r}: give a name such as {default!r}")


def _seed(random_state: Any) -> int:
    """Return an integer seed for a random state as scikit-learn defines it."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    if not _is_whole(random_state):
        raise InputError(
            f"random_state {random_state!r}: give a whole number of at least 0, None, or a generator of numpy"
        )
    return int(random_state)


@contextlib.contextmanager
def _names_parameters() -> Iterator[None]:
    """Context manager that replaces the command line's flags in error messages by the names of parameters."""
    try:
        yield
    except PromptSearchError as e:
        if isinstance(e, Interrupted) or (text := e.as_parameters()) == e.message:
            raise
        raise (InputError if isinstance(e, InputError) else PromptSearchError)(text) from e
