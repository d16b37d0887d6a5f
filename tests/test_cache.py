"""The cache: what is put in comes out, damage is noticed, and nothing depends on being able to write."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from promptsearch.errors import InputError
from promptsearch.evaluators import Cache, CacheWarning
from promptsearch.evaluators.cache import MANY_BLOCKS, TextCache, read_block, write_block

arrays = st.dictionaries(
    st.text("abcxyz_", min_size=1, max_size=8),
    hnp.arrays(st.sampled_from(["<f4", "<f2", "<i8", "u1"]), hnp.array_shapes(min_dims=0, max_dims=3, max_side=5)),
    max_size=3,
)
keys = st.dictionaries(st.text(max_size=6), st.one_of(st.integers(-5, 5), st.text(max_size=6)), max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=arrays, key=keys, meta=keys)
def test_round_trip(tmp_path: Path, content: dict, key: dict, meta: dict) -> None:
    path = write_block(tmp_path, key, content, meta)
    block = read_block(path)
    assert block.key == key
    assert {k: v for k, v in block.meta.items() if k != "empty"} == {k: v for k, v in meta.items() if k != "empty"}
    assert block.arrays.keys() == content.keys()
    for name, a in content.items():
        np.testing.assert_array_equal(block.arrays[name], a)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = write_block(tmp_path, {"a": 1}, {"x": np.arange(20, dtype=np.float32)}, {"m": "n"})
    good = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    damaged = bytearray(good)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(damaged))
    try:
        block = read_block(path)
    except ValueError:
        return
    np.testing.assert_array_equal(block.arrays["x"], np.arange(20, dtype=np.float32))  # a bit nobody reads
    assert block.key == {"a": 1}


def test_a_damaged_file_is_put_away_and_computed_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.add("texts", {"model": "m"}, {"x": np.ones(100, np.float32)})
    (file,) = cache.shelf("texts", {"model": "m"}).iterdir()
    content = bytearray(file.read_bytes())
    content[-7] ^= 4
    file.write_bytes(bytes(content))
    with pytest.warns(CacheWarning, match="damaged"):
        assert cache.get("texts", {"model": "m"}) is None
    cache.add("texts", {"model": "m"}, {"x": np.ones(100, np.float32)})
    block = cache.get("texts", {"model": "m"})
    assert block is not None and block.arrays["x"].sum() == 100


@pytest.mark.parametrize("size", [0, 1, 7, 8, 60])
def test_a_truncated_file_is_put_away(tmp_path: Path, size: int) -> None:
    cache = Cache(tmp_path)
    cache.add("k", {}, {"x": np.ones(100, np.float32)})
    (file,) = cache.shelf("k", {}).iterdir()
    file.write_bytes(file.read_bytes()[:size])
    with pytest.warns(CacheWarning):
        assert cache.get("k", {}) is None


def test_an_unwritable_cache_is_said_once_and_done_without(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = Cache(blocked / "cache")
    with pytest.warns(CacheWarning, match="PROMPTSEARCH_CACHE"):
        cache.add("k", {}, {"x": np.ones(1)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.add("k", {}, {"x": np.ones(1)})
    assert cache.get("k", {}) is None
    assert cache.info() == []


def test_packs_stand_behind_the_cache_and_are_never_written(tmp_path: Path) -> None:
    pack = Cache(tmp_path / "pack")
    pack.add("packs", {"d": 1}, {"x": np.zeros(3)})
    before = sorted(p.name for p in (tmp_path / "pack").rglob("*"))
    cache = Cache(tmp_path / "own", packs=[tmp_path / "pack"])
    assert cache.holds("packs", {"d": 1}) and cache.get("packs", {"d": 1}) is not None
    cache.clear()
    assert sorted(p.name for p in (tmp_path / "pack").rglob("*")) == before


def test_clear_one_kind_and_refuse_an_unknown_one(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.add("texts", {}, {"x": np.zeros(3)})
    cache.add("pictures", {}, {"x": np.zeros(3)})
    with pytest.raises(InputError, match="no kind 'nothing'.*pictures, texts"):
        cache.clear("nothing")
    assert cache.clear("texts") > 0
    assert [r[0] for r in cache.info()] == ["pictures"]


def test_text_cache_computes_each_text_once_and_keeps_it(tmp_path: Path) -> None:
    asked: list[str] = []

    def compute(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return np.array([[len(t), 1.0] for t in texts], np.float32)

    first = TextCache(Cache(tmp_path), {"model": "m"})
    assert first.lookup(["a", "bb", "a"], compute)[:, 0].tolist() == [1, 2, 1]
    again = TextCache(Cache(tmp_path), {"model": "m"})
    assert again.lookup(["bb", "ccc"], compute)[:, 0].tolist() == [2, 3]
    assert asked == ["a", "bb", "ccc"]
    other = TextCache(Cache(tmp_path), {"model": "another"})
    other.lookup(["a"], compute)
    assert asked[-1] == "a"


def test_text_cache_compacts_many_blocks_without_losing_any(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(MANY_BLOCKS + 5)]
    cache = TextCache(Cache(tmp_path), {})
    for i, t in enumerate(texts):
        cache.lookup([t], lambda _, i=i: np.full((1, 2), i, np.float32))
    cache.compact()
    assert len(list(Cache(tmp_path).blocks("texts", {}))) == 1
    fresh = TextCache(Cache(tmp_path), {})
    assert fresh.lookup(texts, lambda _: np.empty((0, 2)))[:, 0].tolist() == list(range(len(texts)))


@settings(max_examples=40, deadline=None)
@given(
    asked=st.lists(st.lists(st.integers(0, 30), max_size=12), min_size=1, max_size=8),
    held=st.integers(0, 200),
    shared=st.booleans(),
)
def test_text_cache_gives_the_same_however_little_it_holds(asked: list[list[int]], held: int, shared: bool) -> None:
    computed: list[str] = []

    def compute(texts: list[str]) -> np.ndarray:
        computed.extend(texts)
        return np.array([[float(t), 2.0, 3.0] for t in texts], np.float32)

    with tempfile.TemporaryDirectory() as folder:
        cache = TextCache(Cache(Path(folder)), {}, held=held)
        for numbers in asked:
            texts = [str(n) for n in numbers]
            if texts:
                assert cache.lookup(texts, compute)[:, 0].tolist() == [float(t) for t in texts]
            held_now = sum(v.nbytes for v in cache._held.values())
            assert cache._bytes == held_now
            assert shared or held_now <= max(held, 12 * 12)  # a block stays while it is used
            if shared:  # another process puts the blocks together meanwhile
                whole = TextCache(Cache(Path(folder)), {})
                for i in range(MANY_BLOCKS):
                    whole.lookup([str(100 + i)], lambda t: np.array([[float(t[0]), 2.0, 3.0]], np.float32))
                whole.compact()
    if not shared:
        assert len(computed) == len(set(computed))


def test_text_cache_computes_again_what_another_process_removed(tmp_path: Path) -> None:
    cache = TextCache(Cache(tmp_path), {}, held=0)
    cache.lookup(["1"], lambda _: np.ones((1, 2), np.float32))
    cache.lookup(["2"], lambda _: np.full((1, 2), 2, np.float32))
    Cache(tmp_path).clear("texts")
    assert cache.lookup(["1", "2"], lambda t: np.array([[float(x)] * 2 for x in t]))[:, 0].tolist() == [1, 2]


def test_many_processes_write_one_shelf(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from promptsearch.evaluators.cache import Cache\n"
        "for i in range(20): Cache(Path(sys.argv[1])).add('k', {}, {'x': np.array([int(sys.argv[2]) * 100 + i])})\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ours = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(w)], env=env) for w in range(3)]
    assert [p.wait(300) for p in ours] == [0, 0, 0]  # a minute was too short on a machine under load
    seen = {int(b.arrays["x"][0]) for b in Cache(tmp_path).blocks("k", {})}
    assert seen == {w * 100 + i for w in range(3) for i in range(20)}
