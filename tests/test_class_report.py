"""Metrics by class and of probabilities: equal to scikit-learn's, in documents, tables, reports and comparisons."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from drawn import SHAPES, class_folders
from sklearn import metrics as sk

from promptsearch.cli import main
from promptsearch.evaluators.scoring.metrics import (
    BINS,
    STATISTICS,
    ClassReport,
    expected_calibration_error,
    largest_probability,
    measure,
)


def made(pictures: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines (N, C) and labels (N,) that they often agree with; every class has a picture."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, pictures - classes)])
    cosines = rng.normal(0, 0.1, (pictures, classes)).astype(np.float32)
    cosines[np.arange(pictures), labels] += 0.12
    return cosines, labels


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (5, 1), (6, 2), (40, 3)])
def test_metrics_are_those_of_scikit_learn(classes: int, seed: int) -> None:
    cosines, labels = made(300, classes, seed)
    report, predicted = measure(cosines, labels, 20.0), cosines.argmax(axis=1)
    assert report.mean_per_class == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    recall = sk.recall_score(labels, predicted, average=None, labels=range(classes))
    precision = sk.precision_score(labels, predicted, average=None, labels=range(classes), zero_division=np.nan)
    assert report.recall == pytest.approx(recall.tolist())
    assert [np.nan if p is None else p for p in report.precision] == pytest.approx(precision.tolist(), nan_ok=True)
    assert (report.worst_class, report.worst) == (pytest.approx(recall.min()), recall.argmin())
    if classes > 5:
        assert report.top5 == pytest.approx(sk.top_k_accuracy_score(labels, cosines, k=5))
    else:
        assert report.top5 is None
    assert ClassReport.from_dict(json.loads(json.dumps(report.to_dict()))).to_dict() == report.to_dict()
    assert measure(cosines[:, :], labels, 20.0).logit_scale == 20.0


def test_calibration_error_is_its_plain_formula() -> None:
    cosines, labels = made(400, 8, 0)
    for scale in (1.0, 10.0, 100.0):
        logits = scale * cosines.astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        hits, confidence, total = p.argmax(axis=1) == labels, p.max(axis=1), 0.0
        for b in range(BINS):
            inside = (confidence > b / BINS) & (confidence <= (b + 1) / BINS)
            if inside.any():
                total += inside.mean() * abs(hits[inside].mean() - confidence[inside].mean())
        assert largest_probability(logits) == pytest.approx(confidence)
        assert expected_calibration_error(confidence, hits) == pytest.approx(total)
    sure = largest_probability(np.eye(4) * 1000)
    assert expected_calibration_error(sure, np.array([True] * 4)) == pytest.approx(0)
    assert expected_calibration_error(sure, np.array([False] * 4)) == pytest.approx(1)


def test_ties_and_classes_without_pictures() -> None:
    cosines = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    report = measure(cosines, np.array([0, 1]), 1.0)
    assert report.recall == (0.0, 1.0, None) and report.precision == (None, 0.5, None)  # a tie is not a hit
    six = np.zeros((1, 7))
    assert measure(six, np.array([3]), 1.0).top5 == 0.0


def test_worst_class_is_an_objective() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4, 40)).astype(np.float32), rng.integers(0, 4, 40)
    logits[:, labels, np.arange(40)] += 1
    hits = logits.argmax(axis=1) == labels
    by_class = np.array([hits[:, labels == c].mean(axis=1) for c in range(4)])
    assert STATISTICS["worst_class"](logits, labels, None) == pytest.approx(by_class.min(axis=0))
    assert STATISTICS["balanced"](logits, labels, None) == pytest.approx(by_class.mean(axis=0))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    class_folders(root / "train", 6)
    class_folders(root / "test", 5, first=20)
    return root


def run(*words: str) -> str:
    done = CliRunner().invoke(main, list(words), env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_metrics_in_the_document_the_table_and_the_report(shapes: Path, tmp_path: Path) -> None:
    args = ["beam", "--model", "tiny", "--dataset", str(shapes), "--shots", "2", "--width", "2", "--depth", "1"]
    args += ["--bank", "simple-imagenet", "--no-estimate", "--study", "shapes"]
    document = json.loads(run(*args, "--json"))
    rows = [document["winner"], *document["baselines"]]
    for row in rows:
        found = row["metrics"]
        assert found["mean_per_class"] == pytest.approx(row["test"]["accuracy"])  # as many pictures of each class
        assert np.mean(found["recall"]) == pytest.approx(found["mean_per_class"], abs=1e-5)
        assert found["worst_class"]["accuracy"] == min(found["recall"])
        assert 0 <= found["calibration"]["ece"] <= 1 and found["calibration"]["bins"] == BINS
        assert "top5" not in found and len(found["precision"]) == len(SHAPES)
    plain = run(*args)
    assert "recall" not in plain
    shown = run(*args, "-v")
    assert "expected calibration error in 15 bins" in shown and "worst class" in shown
    winner = document["winner"]["metrics"]
    for name, recall in zip(SHAPES, winner["recall"], strict=True):
        assert any(line.split()[:2] == [name, f"{100 * recall:.1f}"] for line in shown.splitlines()), (name, shown)
    run("report", "shapes", "--out", str(tmp_path / "r.html"))
    page = (tmp_path / "r.html").read_text()
    assert "More metrics on the test pictures" in page and "recall of the winner" in page
    assert f"{100 * winner['mean_per_class']:.1f}" in page


def test_metrics_in_a_comparison(shapes: Path, tmp_path: Path) -> None:
    args = ["compare", "--model", "tiny", "--dataset", str(shapes), "--shots", "1,16", "--seeds", "1", "--allow-fewer"]
    args += ["--methods", "hand-written,random,tip-adapter", "--against", "hand-written", "--trials", "4"]
    args += ["--bank", "simple-imagenet"]
    document = json.loads(run(*args, "--json", "--csv", str(tmp_path / "c.csv")))
    for cell in document["cells"]:
        assert cell["test_mean_per_class"] == pytest.approx(cell["test_accuracy"])
        assert cell["test_metrics"]["calibration"]["ece"] == cell["test_ece"] and cell["test_top5"] is None
    for row in document["table"]:
        assert row["mean_per_class"] == pytest.approx(row["mean"]) and row["top5"] is None and row["ece"] is not None
    header, *lines = (tmp_path / "c.csv").read_text().splitlines()
    assert "test_mean_per_class,test_worst_class,test_top5,test_ece" in header and len(lines) == 6
    (few,) = (n for n in document["notes"] if "fewer than" in n)  # as the searches say it
    assert f"{shapes}: 3 of 3 classes have fewer than 16 few-shot pictures" in few and "weigh classes by their" in few
    shown = run(*args, "-v")
    assert "accuracy on the worst class" in shown and "expected calibration error (15 bins" in shown
    plain = run(*args)
    assert "worst class" not in plain and "3 of 3 classes have fewer than 16" in plain
    run("report", document["run"]["study"], "--out", str(tmp_path / "r.html"))
    page = (tmp_path / "r.html").read_text()
    assert "Other metrics on the test pictures" in page and "expected calibration error (15 bins" in page
    assert f"{100 * document['table'][0]['ece']:.2f}" in page


def test_a_comparison_of_a_data_set_whose_name_is_markup(shapes: Path, tmp_path: Path) -> None:
    root = tmp_path / "a[bold]b[" / "red]|c\x1b[31m"  # ends a tag that was never begun: [/red]
    shutil.copytree(shapes, root)
    args = ["compare", "--model", "tiny", "--dataset", str(root), "--shots", "1", "--seeds", "1", "--methods"]
    shown = run(
        *args, "hand-written,whole-bank", "--bank", "simple-imagenet", "--markdown", str(tmp_path / "c.md"), "-v"
    )
    written = (tmp_path / "c.md").read_text()
    assert "\x1b" not in shown + written and "a[bold]b[/red]|c" in shown.replace("\n", "")
