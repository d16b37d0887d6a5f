"""`PromptSearch`: what the command line finds, in scikit-learn's form."""

from __future__ import annotations

import ast
import dataclasses
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from made_problem import CLASSES, DIM, make_problem
from PIL import Image
from tiny_model import TINY

from promptsearch import PromptSearch, config
from promptsearch.banks import Bank
from promptsearch.cli import main
from promptsearch.errors import InputError, PromptSearchError, naming_options
from promptsearch.evaluators import Problem, open_problem

TEMPLATES = ("a photo of a {}.", "a dark photo of the {}.", "a {} at night.", "a sketch of a {}.", "a {}.")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problem:
    """The made-up problem in this test's cache."""
    make_problem(tmp_path / "cache", TEMPLATES)
    return open_problem("tiny", "made", device="cpu")


def everything(problem: Problem, split: str) -> tuple[np.ndarray, np.ndarray]:
    labels, _ = problem.source.labels(split)
    return problem.source.features(split, np.arange(len(labels))), labels


def small(**params: Any) -> PromptSearch:
    return PromptSearch("tiny", bank=list(TEMPLATES), device="cpu", **params)


@pytest.mark.parametrize("searcher", ["beam", "random", "climb", "tpe"])
def test_python_and_the_command_line_find_the_same(made: Problem, tmp_path: Path, searcher: str) -> None:
    bank = tmp_path / "bank.txt"
    bank.write_text("\n".join(TEMPLATES) + "\n")
    args = [searcher, "--model", "tiny", "--dataset", "made", "--bank", str(bank), "--shots", "4", "--seed", "3"]
    args += [] if searcher == "beam" else ["--trials", "12"]
    shown = CliRunner().invoke(main, [*args, "--json"])
    assert shown.exit_code == 0, shown.output
    doc = json.loads(shown.stdout)

    params = {"searcher": searcher, "shots": 4, "random_state": 3, "trials": 12}
    features, labels = everything(made, "train")
    ours = small(**params).fit(features, labels, class_names=CLASSES)
    assert ours.prompts_ == doc["winner"]["templates"]
    assert ours.result_.winner.weights == (tuple(doc["winner"]["weights"]) if "weights" in doc["winner"] else None)
    assert ours.result_.estimate is not None and ours.result_.estimate.to_dict() == doc["estimate"]
    assert ours.score(*everything(made, "test")) == pytest.approx(doc["winner"]["test"]["accuracy"], abs=1e-6)

    named = PromptSearch("tiny", bank=bank, device="cpu", **params).fit("made").result_.to_dict()
    same = set(doc) - {"run", "seconds"}
    assert {k: named[k] for k in same} == {k: doc[k] for k in same}


def test_phrases_of_the_classes_are_those_of_the_command_line(tmp_path: Path) -> None:
    """On CIFAR-10's classes both take the built-in phrases."""
    bank = tmp_path / "bank.txt"
    bank.write_text("a photo of a {}.\na {}.\n")
    args = ["beam", "--model", "tiny", "--dataset", "cifar10", "--bank", str(bank), "--shots", "2", "--no-estimate"]
    doc = json.loads(CliRunner().invoke(main, [*args, "--device", "cpu", "--json"]).stdout)
    ours = PromptSearch("tiny", bank=bank, shots=2, device="cpu", estimate=False).fit("cifar10")
    assert ours.result_.winner.to_dict() == doc["winner"]
    features, labels = everything(open_problem("tiny", "cifar10", device="cpu"), "test")
    assert np.mean(ours.predict(features) == np.array(ours.class_names_)[labels]) == pytest.approx(
        doc["winner"]["test"]["accuracy"], abs=1e-6
    )


def test_every_default_is_written_once() -> None:
    """The options of the command line and the parameters of the estimator have the values of `config`."""
    defaults = {
        **{f.name: f.default for c in (config.ProblemConfig, config.MachineConfig) for f in dataclasses.fields(c)},
        **{k: getattr(config.SearchConfig, k) for k in ("shots", "seed")},
        "trials": config.TRIALS,
    }
    options = {"beam": config.BeamOptions, "tpe": config.TpeOptions, "evolve": config.EvolveOptions}
    options |= {"climb": config.ClimbOptions, "random": config.TrialOptions}
    for name, own in options.items():
        known = {**defaults, **dataclasses.asdict(own()), "bank_spec": config.SEARCHER_BANKS.get(name, config.BANK)}
        params = {p.name: p for p in main.commands[name].params if isinstance(p, click.Option)}
        assert dataclasses.asdict(own()).keys() <= params.keys(), name
        for key in known.keys() & params.keys():
            default = params[key].get_default(click.Context(main.commands[name]))
            assert (None if "UNSET" in repr(default) else default) == known[key], (name, key)
    parameters = PromptSearch().get_params()
    for key in defaults.keys() & parameters.keys() - {"shots"}:
        assert parameters[key] == defaults[key], key
    read = {*defaults, *(k for own in options.values() for k in dataclasses.asdict(own()))} - {"lm", "ray"}
    for file in (Path(main.commands["beam"].callback.__code__.co_filename).parent).glob("*.py"):
        for call in (n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Call)):
            names = [a.value for a in call.args if isinstance(a, ast.Constant) and str(a.value).startswith("--")]
            own = file.stem in ("beam", "tpe", "climb", "evolve", "random", "options", "trial_options")
            if own and names and names[0][2:].replace("-", "_") in read:
                literal = [k for k in call.keywords if k.arg == "default" and isinstance(k.value, ast.Constant)]
                assert not [k for k in literal if k.value.value is not None], (file.name, names)


def test_messages_name_parameters_in_python_and_options_on_the_command_line() -> None:
    error = PromptSearchError("--test-share 0 and --seed: see `promptsearch beam --seed 1`, or use --to folder")
    outer = InputError(f"cell 1: {error}")
    for copy in (outer, pickle.loads(pickle.dumps(outer))):
        with naming_options(False):
            assert str(copy) == "cell 1: test_share 0 and seed: see `promptsearch beam --seed 1`, or use to folder"
        with naming_options():
            assert str(copy) == f"cell 1: {error}" and "--test-share 0 and --seed: " in str(copy)
    assert (
        error.as_parameters() == "test_share 0 and random_state: see `promptsearch beam --seed 1`, or use format folder"
    )


def test_the_library_names_parameters_unless_the_command_line_runs() -> None:
    script = (
        "from promptsearch.search import BeamSearch, get_objective\n"
        "from promptsearch.banks import Bank\n"
        "BeamSearch(Bank.of('b', ['a {}.']), get_objective('xent'), width=0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "promptsearch.errors.InputError: width 0: must be at least 1"


def test_scikit_learn_clones_and_cross_validates_it(made: Problem) -> None:
    from sklearn.base import clone, is_classifier
    from sklearn.model_selection import GridSearchCV, cross_val_score

    features, labels = everything(made, "train")
    names = np.array(CLASSES)[labels]
    ps = small(searcher_options={"depth": 2}, estimate=False, random_state=1)
    assert is_classifier(ps)
    again = clone(ps)
    assert again is not ps and again.get_params() == ps.get_params() and not hasattr(again, "result_")
    found = cross_val_score(ps, features[:80], names[:80], cv=4)
    assert found.shape == (4,) and found.mean() > 0.5 and not hasattr(ps, "result_")
    grid = GridSearchCV(ps, {"select": ["posterior", "none"]}, cv=2).fit(features[:40], names[:40])
    assert grid.best_estimator_.predict(features[:1])[0] in CLASSES
    with pytest.raises(InputError, match="widht: not a parameter of PromptSearch; choose from model, weights"):
        ps.set_params(widht=3)
    assert ps.set_params(select="none").select == "none"


def test_what_is_learnt(made: Problem) -> None:
    features, labels = everything(made, "train")
    ps = small().fit(features[:40], labels[:40], class_names=CLASSES)
    assert ps.result_.shots == 10 and ps.result_.paired is None and ps.result_.winner.test is None
    assert len(ps.prompts_) == len(ps.weights_) and ps.weights_.sum() == pytest.approx(1)
    assert ps.class_weights_.shape == (4, DIM) and ps.n_features_in_ == DIM
    assert ps.classes_.tolist() == [0, 1, 2, 3] and ps.class_names_ == list(CLASSES)
    probability = ps.predict_proba(features)
    assert probability.shape == (160, 4) and np.allclose(probability.sum(axis=1), 1)
    logits = ps.logit_scale_ * features @ ps.class_weights_.T
    assert np.allclose(np.log(probability) - np.log(probability[:, :1]), logits - logits[:, :1], atol=1e-3)
    assert (ps.predict(3 * features) == probability.argmax(axis=1)).all()  # features of any length
    again = pickle.loads(pickle.dumps(ps))
    assert (again.predict(features) == ps.predict(features)).all() and again.result_ == ps.result_
    for shots in (9, 10):  # no pictures are needed beside them
        drawn = small(shots=shots).fit(features[:40], labels[:40], class_names=CLASSES).record_.get("draw")
        assert np.bincount(labels[drawn["support"]]).tolist() == [shots] * 4 and drawn["validation"] == []
    with pytest.raises(InputError, match="shots 11: class 'cat' has 10 training pictures, 11 are needed; at most"):
        small(shots=11).fit(features[:40], labels[:40], class_names=CLASSES)
    named = small(shots=8).fit(features=features, labels=np.array(CLASSES)[labels])
    assert named.predict(features[:1])[0] in CLASSES and named.estimate_.accuracy.value > 0.5
    free = small(shots=None).fit(features[:60], class_names=CLASSES)
    assert free.estimate_ is None and free.result_.shots == 0 and free.result_.objective == "mutual-information"


def test_export_report_and_storage(made: Problem, tmp_path: Path) -> None:
    features, labels = everything(made, "train")
    ps = small(storage=str(tmp_path / "runs.db"), study="mine").fit(features[:24], labels[:24], class_names=CLASSES)
    shown = CliRunner().invoke(main, ["runs", "show", "mine", "--storage", str(tmp_path / "runs.db")])
    assert shown.exit_code == 0 and shown.stdout.startswith("The winner is ")
    resumed = CliRunner().invoke(main, ["runs", "resume", "mine", "--storage", str(tmp_path / "runs.db")])
    assert resumed.exit_code == 2 and "made in Python on pictures given in memory" in resumed.stderr
    again = small(storage=str(tmp_path / "runs.db"), study="mine").fit(features[:24], labels[:24], class_names=CLASSES)
    assert again.result_ == ps.result_  # resumed, not searched again
    from safetensors.numpy import load_file

    ps.export("open_clip", tmp_path / "out.safetensors")
    tensors = load_file(tmp_path / "out.safetensors")
    assert any(np.allclose(t.T if t.shape[0] == DIM else t, ps.class_weights_, atol=1e-6) for t in tensors.values())
    ps.export("bank", tmp_path / "bank.txt")
    assert (tmp_path / "bank.txt").read_text().split("\n")[-2] in ps.prompts_
    with pytest.raises(InputError, match="^format parquet: choose from clip_benchmark, open_clip"):
        ps.export("parquet", tmp_path / "x")
    small().fit(features[:24], labels[:24], class_names=CLASSES).report(tmp_path / "report.html")
    assert "expected to classify" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("params", "fit", "message"),
    [
        ({"select": "best"}, {}, "^select best: choose from"),
        ({"objective": "taste"}, {}, "^objective 'taste' is not known"),
        ({"searcher": "magic"}, {}, "^searcher magic: not known; choose from"),
        ({"searcher_options": {"widht": 3}}, {}, "^searcher_options: beam has no 'widht'; it has width, depth"),
        ({"searcher_options": {"width": 0}}, {}, "^width 0: must be at least 1"),
        ({"shots": 400}, {}, "^shots 400: class"),
        ({"random_state": -1}, {}, "^random_state -1"),
        ({"model": (1, 2)}, {}, "^model: give a name, or an open_clip triple"),
        ({"lm": "embedded"}, {}, "^lm embedded would do nothing: beam asks no language model"),
        ({}, {"class_names": None}, "^class_names: the labels are numbers"),
        ({}, {"class_names": ["cat"]}, "^labels: 1 is not an index into the 1 class names"),
        ({}, {"labels": [0, 1]}, r"^labels: an array of shape \(2,\) for 160 pictures"),
        ({}, {"images": np.zeros((2, 3))}, "^features: 3 numbers per picture, and the model has 16"),
        ({}, {"images": np.zeros((2, 8, 8, 3))}, r"^images: an array of shape \(2, 8, 8, 3\) and type float64"),
        ({}, {"images": ["a.png", 3], "labels": [0, 1]}, "^images: number 1 is of type int; give PIL pictures, paths"),
        ({}, {"images": None}, "^images: give either pictures or features"),
    ],
)
def test_errors_name_parameters(made: Problem, params: dict[str, Any], fit: dict[str, Any], message: str) -> None:
    features, labels = everything(made, "train")
    if fit.get("images") is not None and isinstance(fit["images"], list):
        pytest.importorskip("torch")
    ps = PromptSearch(**{"model": "tiny", "bank": Bank.of("small", TEMPLATES), "device": "cpu", "shots": 4, **params})
    with pytest.raises(InputError, match=message) as told:
        ps.fit(**{"images": features, "labels": labels, "class_names": CLASSES, **fit})
    assert "--" not in str(told.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "dog", "cat", float("nan")], "labels: number 3 is nan; give each picture the name of its class"),
        (["cat", None, "cat", "dog"], "labels: number 1 is None; give"),
        (["cat", "dog", 1, "dog"], "labels: number 2 is 1; give"),
        ([b"cat", b"dog", b"cat", b"dog"], "labels: number 0 is b'cat'; give"),
        (np.array([0.0, 1.0, 0.0, 1.0]), "labels: number 0 is 0.0; give"),
        (np.array([0, 1, 0, np.nan]), "labels: number 0 is 0.0; give"),
        ([True, False, True, False], "labels: number 0 is True; give"),
        ([0, 1, -1, 1], "labels: -1 is not an index into the 2 class names"),
        ([0, 1, 2, 1], "labels: 2 is not an index into the 2 class names"),
        (["cat", "dog", "cow", "dog"], "labels: 'cow' is not among the class names"),
        (["cat"] * 4, "labels: no picture of class 'dog'; leave the class out"),
        ("cat", "labels: an array of shape () for 4 pictures"),
        ([["cat"]] * 4, "labels: an array of shape (4, 1) for 4 pictures"),
    ],
)
def test_labels_of_no_class_are_refused(labels: Any, message: str) -> None:
    ps = PromptSearch(model="tiny", searcher="random", trials=2, estimate=False)
    with pytest.raises(InputError, match=re.escape(message)):
        ps.fit(features=np.eye(4, 64, dtype=np.float32), labels=labels, class_names=["cat", "dog"])


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (["cat"] * 4, None, "labels: one class (cat); classification needs two or more"),
        ([0] * 4, ["cat"], "class_names: one class (cat); classification"),
        (None, ["cat"], "class_names: one class (cat); classification"),
        (None, [], "class_names: no class; classification"),
    ],
)
def test_fewer_than_two_classes_are_refused(labels: Any, names: Any, message: str) -> None:
    ps = PromptSearch(model="tiny", searcher="random", trials=2, estimate=False)
    with pytest.raises(InputError, match=re.escape(message)):
        ps.fit(features=np.eye(4, 64, dtype=np.float32), labels=labels, class_names=names)


@pytest.mark.parametrize("names", ["cd", b"cd", {"cat", "dog"}, {"cat": 0, "dog": 1}, 2, True])
def test_class_names_without_an_order_are_refused(names: Any) -> None:
    ps = PromptSearch(model="tiny", searcher="random", trials=2, estimate=False)
    for labels in ([0, 1, 0, 1], None):
        with pytest.raises(InputError, match=re.escape(f"class_names {names!r}: give a list of names")):
            ps.fit(features=np.eye(4, 64, dtype=np.float32), labels=labels, class_names=names)
    with pytest.raises(InputError, match=re.escape(f"class_names {names!r}: give a list of names")):
        ps.fit("cifar10", class_names=names)


def test_class_names_in_another_order_than_a_data_sets_are_refused(tmp_path: Path) -> None:
    bank = tmp_path / "bank.txt"
    bank.write_text("a photo of a {}.\na {}.\n")
    ps = PromptSearch("tiny", bank=bank, shots=1, device="cpu", estimate=False, phrases="none")
    own = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    swapped = {
        "airplane": [*own[1:], own[0]],
        "cat": [*own[:3], "dog", "deer", "cat", *own[6:]],
        "ship": [*own[:8], "Truck", "lorry"],
    }
    for name, names in swapped.items():
        with pytest.raises(InputError, match=f"class_names: class '{name}' would be called .*order is airplane, auto"):
            ps.fit("cifar10", class_names=names)
    for names in (own, ["plane", "car", *own[2:]]):
        assert ps.fit("cifar10", class_names=names).class_names_ == names


USELESS: tuple[tuple[Any, str], ...] = (
    (None, "images: None is of type NoneType; give several pictures"),
    (3, "images: 3 is of type int; give several pictures"),
    ("a.png", "images: a.png is one path; give a list of paths"),
    (np.zeros((2, 16)), "features: number 0 is zero, so that it has no direction"),
    (np.full((2, 16), 1e30), "features: number 0 has numbers that are too large"),
    (np.full((2, 16), np.nan), "features: not all numbers are finite"),
    (np.ones((2, 16), dtype=int), "images: an array of shape (2, 16) and type int64"),
    ([np.zeros((3, 8, 8), np.uint8)], "images: number 0 is of shape (3, 8, 8) and dtype uint8; give"),
    ([np.zeros((8, 8, 3))], "images: number 0 is of shape (8, 8, 3) and dtype float64; give"),
    ([{"image": 1}], "images: number 0 is of type dict; give"),
    (
        [[0.1] * 16],
        "images: number 0 is of type list; give PIL pictures, paths or arrays (H, W, 3) of uint8, or features",
    ),
    ({"a.png", "b.png"}, "images: of type set; give a list of pictures, or features"),  # of no order
    ({"a.png": 1}, "images: of type dict; give a list of pictures, or features"),
    (b"a.png", "images: of type bytes; give a list of pictures, or features"),
    (np.ma.masked_less(np.ones((2, 16)) * [[0], [1]], 1), "images: some numbers are masked; give an array without"),
    (np.zeros((2, 0, 8, 3), np.uint8), "picture 0 cannot be decoded (it has no pixels); replace it or remove it"),
    ([Image.new("RGB", (0, 4))], "picture 0 cannot be decoded (it has no pixels); replace it or remove it"),
    ([Image.new("F", (4, 4), 1e6)], "picture 0 cannot be decoded (a floating-point picture with values from 1e+06"),
)


def test_pictures_and_features_of_no_use_are_refused(made: Problem) -> None:
    features, labels = everything(made, "train")
    ps = small(estimate=False).fit(features, labels, class_names=CLASSES)
    for images, message in USELESS:
        with pytest.raises(PromptSearchError, match=re.escape(message)):
            ps.predict(images)


def test_features_of_every_type_and_layout_are_the_same(made: Problem) -> None:
    import pandas as pd
    import torch

    features, labels = everything(made, "train")
    ps = small(estimate=False).fit(features, labels, class_names=CLASSES)
    tensor, known = torch.tensor(features), ps.predict_proba(features)
    for same in (
        7 * features.astype(np.float64),
        np.asfortranarray(features),
        np.repeat(features, 2, axis=1)[:, ::2],
        features.astype(">f4"),
        pd.DataFrame(features),
        np.ma.masked_array(features),
        tensor,
        tensor.clone().requires_grad_(),
    ):
        np.testing.assert_allclose(ps.predict_proba(same), known, atol=1e-6)
        again = small(estimate=False).fit(labels=labels, features=same, class_names=CLASSES)
        assert type(again.class_weights_) is np.ndarray and again.prompts_ == ps.prompts_
    for near in (features.astype(np.float16), tensor.half(), tensor.bfloat16()):
        np.testing.assert_allclose(ps.predict_proba(near), known, atol=0.05)
    for without in (tensor.to("meta"), tensor.to_sparse()):
        with pytest.raises(InputError, match="^images: a tensor without numbers, or a sparse one; give a dense tensor"):
            ps.predict(without)


def test_names_and_paths_are_texts_or_paths(made: Problem, tmp_path: Path) -> None:
    features, labels = everything(made, "train")
    ps = small(storage=tmp_path / "runs.db", study="mine", estimate=False).fit(features, labels, class_names=CLASSES)
    assert PromptSearch.load("mine", storage=tmp_path / "runs.db", device="cpu").prompts_ == ps.prompts_
    assert ps.result_.storage == f"sqlite:///{tmp_path / 'runs.db'}"
    for name in ("weights", "phrases", "lm", "storage", "study"):
        with pytest.raises(InputError, match=f"^{name} of type int: give a name or a path$"):
            small(**{name: 5}).fit(features, labels, class_names=CLASSES)
    with pytest.raises(InputError, match="^run of type NoneType: give the name of a run or an exported folder"):
        PromptSearch.load(None)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(made: Problem) -> None:
    """Grids of parameters are made by numpy, whose numbers JSON does not know."""
    features, labels = everything(made, "train")
    given = {"shots": np.int64(4), "trials": np.int32(6), "allow_fewer": np.True_, "estimate": np.False_}
    options = {"batch": np.int64(2)}
    ours = small(searcher="random", searcher_options=options, **given).fit(features, labels, class_names=CLASSES)
    plain = {name: value.item() for name, value in given.items()}
    theirs = small(searcher="random", searcher_options={"batch": 2}, **plain)
    assert ours.result_.winner == theirs.fit(features, labels, class_names=CLASSES).result_.winner


def test_class_names_are_read_as_those_of_folders() -> None:
    """Prompts say "red car" for the class red_car, whose label stays as it was given."""
    features, labels = np.random.default_rng(0).normal(size=(12, 64)), np.arange(12) % 3
    spoken, written = ["blue car", "red car", "truck"], ["blue_car", "red_car ", "truck"]
    plain = small(estimate=False).fit(features, np.array(spoken)[labels])
    ours = small(estimate=False).fit(features, np.array(written)[labels])
    numbered = small(estimate=False).fit(features, labels, class_names=written)
    free, named = (small().fit(features, class_names=names) for names in (written, spoken))
    for ps, other in ((ours, plain), (numbered, plain), (free, named)):
        assert ps.class_names_ == spoken == other.class_names_ and ps.result_.winner == other.result_.winner
        np.testing.assert_array_equal(ps.class_weights_, other.class_weights_)
    assert ours.classes_.tolist() == written == free.classes_.tolist() and numbered.classes_.tolist() == [0, 1, 2]
    assert ours.score(features, np.array(written)[labels]) == plain.score(features, np.array(spoken)[labels])


def test_a_score_needs_a_known_label_for_each_picture(made: Problem) -> None:
    features, labels = everything(made, "train")
    ps = small(estimate=False).fit(features, labels, class_names=CLASSES)
    names = np.array(CLASSES)[labels]
    for wrong, message in (
        (labels[:1], "labels: an array of shape (1,) for"),  # numpy would compare it with every prediction
        (labels[0], "labels: an array of shape () for"),
        (names, f"labels: {min(CLASSES)!r} is none of the classes that were fitted (0, 1, 2, …)"),
        (np.where(labels == 2, 7, labels), "labels: 7 is none of the classes"),
        (labels.astype(float), "labels: number 0 is "),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            ps.score(features, wrong)


WRONG = ("ten", 1.5, float("nan"), True, [3], -1, b"4", 2 + 0j)


@pytest.mark.parametrize(
    ("name", "values", "remedy"),
    [
        ("trials", (*WRONG, 0), "give a whole number of at least 1"),
        ("shots", WRONG, "give a whole number of at least 0"),
        ("random_state", WRONG, "give a whole number of at least 0, None, or a generator"),
        ("estimate", ("no", None, 1, []), "give True or False"),
        ("allow_fewer", ("no", None, 0, ()), "give True or False"),
        ("bank", (3, None, 2.5, {"a {}."}, b"a {}.", {"a {}.": 1}), "give templates, a file, or the name of a bank"),
        ("searcher_options", (3, "width", [("width", 3)]), "give a dict of options"),
        ("test_share", ("half", True, float("inf"), [0.5]), "give a number between 0 and 1"),
    ],
)
def test_parameters_of_another_type_are_refused(name: str, values: tuple[Any, ...], remedy: str) -> None:
    features = np.eye(4, 16, dtype=np.float32)
    for value in values:
        ps = PromptSearch(**{"model": "tiny", "searcher": "random", name: value})
        with pytest.raises(InputError, match=re.escape(f"{name} {value!r}: {remedy}")):
            ps.fit(features=features, labels=[0, 1, 0, 1], class_names=CLASSES)


@pytest.mark.parametrize(
    ("searcher", "options", "remedy"),
    [
        ("beam", {"width": "3"}, "width '3': give a whole number"),
        ("beam", {"depth": 2.5}, "depth 2.5: give a whole number"),
        ("evolve", {"immigrants": "few"}, "immigrants 'few': give a number"),
        ("evolve", {"crowding": None}, "crowding None: give a number"),
        ("tpe", {"sampler": 3}, "sampler 3: give a name such as 'tpe'"),
    ],
)
def test_options_of_another_type_are_refused(
    searcher: str, options: dict[str, Any], remedy: str, made: Problem
) -> None:
    features, labels = everything(made, "train")
    ps = PromptSearch(model="tiny", searcher=searcher, searcher_options=options)
    with pytest.raises(InputError, match=f"^searcher_options: {re.escape(remedy)}"):
        ps.fit(features, labels, class_names=CLASSES)


def test_pictures_and_a_model_of_ones_own(tmp_path: Path) -> None:
    """PIL pictures, paths and arrays are one, and an open_clip triple is the model that it is."""
    import open_clip

    rng = np.random.default_rng(0)
    colours = {"red": (200, 30, 30), "blue": (30, 30, 200)}
    arrays, labels = [], []
    for name, colour in colours.items():
        for _ in range(4):
            noise = rng.integers(-20, 20, (32, 32, 3))
            arrays.append(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))
            labels.append(name)
    pictures = [Image.fromarray(a) for a in arrays]
    paths = [tmp_path / f"{i}.png" for i in range(len(arrays))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{TINY}")
    assert model.training is False or model.eval() is model
    triple = (model, preprocess, open_clip.get_tokenizer(f"local-dir:{TINY}"))
    ours = PromptSearch(triple, bank=list(TEMPLATES)).fit(pictures, labels)
    named = PromptSearch("tiny", bank=list(TEMPLATES), device="cpu").fit(np.stack(arrays), labels)
    assert ours.prompts_ == named.prompts_ and np.allclose(ours.class_weights_, named.class_weights_, atol=1e-5)
    assert np.allclose(named.predict_proba(paths), named.predict_proba(pictures), atol=1e-6)
    assert (ours.predict(paths) == named.predict(np.stack(arrays))).all()


def of_every_mode() -> dict[str, Image.Image]:
    """A picture in Pillow's modes, and one that its EXIF orientation turns."""
    rng = np.random.default_rng(1)
    colour = Image.fromarray(rng.integers(0, 256, (24, 36, 3), dtype=np.uint8))
    grey, clear = colour.convert("L"), colour.copy()
    clear.putalpha(Image.fromarray(rng.integers(0, 256, (24, 36), dtype=np.uint8)))
    turned = colour.copy()
    turned.getexif()[274] = 6
    return {
        **{mode: colour.convert(mode) for mode in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")},
        **{mode: clear.convert(mode) for mode in ("RGBA", "LA", "RGBa", "La")},
        "16 bits": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
        "32 bits": grey.convert("I"),
        "floats": Image.fromarray((np.asarray(grey) / 255).astype(np.float32)),
        "turned": turned,
    }


def test_a_picture_in_memory_is_that_of_its_file(tmp_path: Path) -> None:
    """Transparency, depth and orientation are read by one rule (docs/inputs.md)."""
    ps = PromptSearch("tiny", bank=["a {}."], device="cpu", estimate=False, phrases="none")
    ps.fit([Image.new("RGB", (8, 8), c) for c in ("red", "blue")], ["red", "blue"])
    for name, picture in of_every_mode().items():
        known = ps.decision_function([picture])
        form = "TIFF" if name in ("CMYK", "LAB", "YCbCr", "32 bits", "floats", "RGBX") else "PNG"
        if name not in ("HSV", "La", "RGBa"):  # which no file holds
            picture.save(file := tmp_path / f"picture.{form}", exif=picture.getexif())
            np.testing.assert_allclose(ps.decision_function([file]), known, atol=1e-4, err_msg=name)
            with Image.open(file) as opened:
                np.testing.assert_allclose(ps.decision_function([opened]), known, atol=1e-4, err_msg=name)
        assert np.isfinite(known).all()


def test_importing_the_package_stays_cheap() -> None:
    code = "import sys, promptsearch; print([m for m in ('numpy', 'torch', 'sklearn', 'optuna') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'Magic'"):
        import promptsearch

        promptsearch.Magic  # noqa: B018
