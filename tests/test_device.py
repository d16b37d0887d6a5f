"""What `auto` stands for is asked once; a Mac's GPU is used only where its vectors are the CPU's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from promptsearch.errors import InputError
from promptsearch.evaluators import Cache, Encoder, default_cache, open_problem, resolve_model
from promptsearch.evaluators.encoding import device as module
from promptsearch.evaluators.encoding import device_check
from promptsearch.evaluators.encoding.device import resolve_device
from promptsearch.evaluators.encoding.device_check import checked
from promptsearch.evaluators.encoding.model_spec import ModelSpec


@pytest.mark.parametrize(
    ("has", "asked", "expected"),
    [
        ((), "auto", "cpu"),
        (("cuda",), "auto", "cuda"),
        (("mps",), "auto", "mps"),
        (("mps",), "mps", "mps"),
        (("cuda", "mps"), "cpu", "cpu"),
    ],
)
def test_what_auto_stands_for(has: tuple[str, ...], asked: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_may_have", lambda kind: kind in has)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in has)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in has)
    assert resolve_device(asked) == expected


@pytest.mark.parametrize(("asked", "message"), [("mps", "no Apple GPU"), ("cuda", "no GPU"), ("tpu", "choose from")])
def test_what_is_not_here_is_refused(asked: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--device {asked}: .*{message}"):
        resolve_device(asked)
    assert resolve_device("cuda", here=False) == "cuda"


def test_a_gpu_that_was_there_is_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "_may_have", lambda kind: kind == "mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(asked.append(1)) or len(asked) > 1)
    cache = Cache(tmp_path)
    assert [resolve_device("auto", cache=cache) for _ in range(4)] == ["cpu", "mps", "mps", "mps"]
    assert len(asked) == 2  # that there is none is asked again
    monkeypatch.setattr(module, "torch_version", lambda: "another")
    assert resolve_device("auto", cache=cache) == "mps" and len(asked) == 3


def test_another_driver_is_asked_again_in_a_container_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may have the driver's library without what the driver says of itself under /proc."""
    asked: list[int] = []
    monkeypatch.setattr(module, "_may_have", lambda kind: kind == "cuda")
    monkeypatch.setattr(module, "_LIBRARIES", (str(tmp_path / "lib"), str(tmp_path / "none")))
    monkeypatch.setattr(module, "_VERSION", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: not asked.append(1))
    cache = Cache(tmp_path / "cache")
    asked_by_now = []
    for library in (None, "libcuda.so.1", "libcuda.so.535.104.05", "libcuda.so.550.54"):
        if library is not None:
            (tmp_path / "lib").mkdir(exist_ok=True)
            (tmp_path / "lib" / library).touch()
        assert [resolve_device("auto", cache=cache) for _ in range(2)] == ["cuda", "cuda"]
        asked_by_now.append(len(asked))
    assert asked_by_now == [2, 4, 5, 6]  # without a version the answer is not cached
    (tmp_path / "version").write_text("NVRM version: 550.54")
    assert [resolve_device("auto", cache=cache) for _ in range(2)] == ["cuda", "cuda"] and len(asked) == 7


def test_cores_are_those_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert module.available_cores() == 8
    quotas = {
        "max 100000": 8,
        "200000 100000": 2,
        "150000 100000": 2,
        "10000 100000": 1,
        "6400000 100000": 8,
        "": 8,
        "x": 8,
    }
    for quota, cores in quotas.items():
        (tmp_path / "cpu.max").write_text(quota + "\n")
        assert module.available_cores() == cores, quota


def on_the_cpu(change: Any) -> Any:
    """Encoders whose `mps` is the CPU with a change to the model."""

    def make(spec: ModelSpec) -> Encoder:
        encoder = Encoder(replace(spec, device="cpu"), Cache(Path("/nonexistent")))
        if spec.device == "mps":
            change(encoder.model)
        return encoder

    return make


def nothing(model: Any) -> None:
    pass


def wrong_texts(model: Any) -> None:
    model.positional_embedding.data = model.positional_embedding.data.roll(1, 0)


def wrong_pictures(model: Any) -> None:
    model.visual.conv1.weight.data = model.visual.conv1.weight.data.flip(3)


def not_finite(model: Any) -> None:
    model.token_embedding.weight.data[:] = float("nan")


def no_such_operation(model: Any) -> None:
    def missing(_: Any) -> torch.Tensor:
        raise NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device")

    model.ln_final.forward = missing


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (nothing, None),
        (wrong_texts, "for texts"),
        (wrong_pictures, "for pictures"),
        (not_finite, "not finite"),
        (no_such_operation, "aten::x"),
    ],
)
@pytest.mark.filterwarnings("ignore::promptsearch.evaluators.cache.CacheWarning")
def test_a_device_is_used_where_its_vectors_are_right(change: Any, why: str | None, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    spec = replace(resolve_model("tiny", cache, device="cpu"), device="mps")
    found, note = checked(spec, cache, on_the_cpu(change))
    assert found.device == ("mps" if why is None else "cpu")
    assert (note is None) if why is None else (why in str(note) and "The CPU computes instead" in str(note))

    def never(spec: ModelSpec) -> Encoder:
        raise AssertionError("compared again")

    assert checked(spec, cache, never) == (found, note)


def test_the_problem_says_that_the_cpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_may_have", lambda kind: kind == "mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(device_check, "_encoder", lambda cache: on_the_cpu(wrong_pictures))
    problem = open_problem("tiny", "cifar10", cache=default_cache())
    assert problem.encoder.spec.device == "cpu"
    assert any("(mps) is not used" in note for note in problem.notes)
