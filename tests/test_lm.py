"""Local language models: the embedded one, others from folders, and what is said when there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from promptsearch.cli import main
from promptsearch.errors import InputError, PromptSearchError
from promptsearch.lm import EMBEDDED, LocalModel, locate
from promptsearch.lm.lines import Line
from promptsearch.search.proposers import MUTATIONS, Request
from promptsearch.search.proposers.forms import CHAT, FEW_SHOT
from promptsearch.search.proposers.language import REMEMBERED, LanguageProposer
from promptsearch.search.reply_parser import ProposalFilter

PARENT = "a dark photo of a {} in the snow."
REQUESTS = [Request(kind, (PARENT,)) for kind in MUTATIONS]
REQUESTS += [
    Request("crossover", (PARENT, "a painting of my {}.")),
    Request("history", scores=((20, "a bright photo of a {}."), (71, "a dim picture of the {}."), (75, PARENT))),
    Request("better", good=(PARENT, "a {} at night."), bad=("a bright {}.",)),
]
TEMPLATE = "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"


@pytest.fixture(scope="module")
def embedded() -> LocalModel:
    return LocalModel(locate(EMBEDDED)).load()


def copied(tmp_path: Path, **tokenizer: Any) -> Path:
    """The embedded model's folder with other settings of its tokenizer; None takes one away."""
    folder = tmp_path / "lm"
    folder.mkdir(exist_ok=True)
    for file in locate(EMBEDDED).folder.glob("*.*"):
        if file.suffix in (".json", ".safetensors"):
            shutil.copy(file, folder)
    settings = folder / "tokenizer_config.json"
    kept = {**json.loads(settings.read_text()), **tokenizer}
    settings.write_text(json.dumps({k: v for k, v in kept.items() if v is not None}))
    return folder


def test_the_embedded_model_is_small_and_writes_valid_templates(embedded: LocalModel) -> None:
    shipped = [f for f in locate(EMBEDDED).folder.iterdir() if f.is_file()]
    assert sum(f.stat().st_size for f in shipped) < 6_000_000
    proposer, read = LanguageProposer(embedded), ProposalFilter().read
    verdicts = [read(reply) for seed in range(5) for reply in proposer.propose(REQUESTS, seed)]
    assert sum(v.template is not None for v in verdicts) > 0.8 * len(verdicts)
    assert len({v.template for v in verdicts}) > 15


def test_the_same_seed_writes_the_same_and_nothing_global_is_touched(embedded: LocalModel) -> None:
    import torch

    proposer = LanguageProposer(embedded)
    state = torch.random.get_rng_state()
    one = proposer.propose(REQUESTS, 3)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert proposer.propose(REQUESTS, 3) == one != proposer.propose(REQUESTS, 4)


def test_many_prompts_are_written_for_in_batches(embedded: LocalModel) -> None:
    before = embedded.usage["calls"]
    assert len(LanguageProposer(embedded).propose(REQUESTS * 5, 0)) == 40
    assert embedded.usage["calls"] == before + 3  # 64 lines at a time, four for each request


def test_likelihoods_are_those_of_the_model_one_by_one(embedded: LocalModel) -> None:
    import torch

    texts = ["a photo of a cat.", "a dark photo of the truck at night.", "xq jjw kk!"]
    got = embedded.log_likelihood(texts)
    for text, (total, tokens) in zip(texts, got, strict=True):
        ids = torch.tensor([embedded._ids(text)])
        with torch.inference_mode():
            loss = embedded._model(ids, labels=ids).loss
        assert total / tokens == pytest.approx(-float(loss), abs=1e-4)
        assert tokens == ids.shape[1] - 1
    perplexity = got[:, 0] / got[:, 1]
    assert perplexity[0] > perplexity[2] + 3


def test_a_chat_template_is_used_where_there_is_one(tmp_path: Path) -> None:
    model = LocalModel(locate(str(copied(tmp_path, chat_template=TEMPLATE))))
    assert model.chats
    proposer = LanguageProposer(model, form=CHAT)
    (prompt,) = [model._tokenizer.decode(model._ids(proposer._prompt(REQUESTS[0])))]
    assert "Rewrite this caption" in prompt and PARENT in prompt and "exactly once" in prompt
    assert len(proposer.propose(REQUESTS[:2], 0)) == 2


def test_a_model_that_may_think_aloud_is_told_not_to(tmp_path: Path) -> None:
    """As in the templates of Qwen 3 and others."""
    chat = TEMPLATE + "{% if enable_thinking is defined and not enable_thinking %}{{ 'at once' }}{% endif %}"
    model = LocalModel(locate(str(copied(tmp_path, chat_template=chat))))
    prompt = model._tokenizer.decode(model._ids(LanguageProposer(model, form=CHAT)._prompt(REQUESTS[0])))
    assert prompt.endswith("at once")


def test_a_model_without_a_pad_or_an_end_token_writes_too(tmp_path: Path, embedded: LocalModel) -> None:
    assert embedded._tokenizer.pad_token_id is None  # as in GPT-2
    folder = copied(tmp_path, eos_token=None, bos_token=None)
    model = LocalModel(locate(str(folder)))
    assert model._tokenizer.eos_token_id is None
    assert len(LanguageProposer(model).propose(REQUESTS, 0)) == len(REQUESTS)


def test_long_histories_are_cut_and_what_is_too_long_is_said(embedded: LocalModel) -> None:
    long = Request("history", scores=tuple((i, f"a photo number {i} of the {{}} in the snow.") for i in range(90)))
    prompt = LanguageProposer(embedded)._prompt(long)
    assert embedded.fits(prompt) and "number 89 " in str(prompt) and "number 1 " not in str(prompt)
    with pytest.raises(InputError, match="do not fit into the context of 320 of the language model embedded"):
        LanguageProposer(embedded).propose([Request("shorter", ("very " * 400 + "{}",))], 0)
    with pytest.raises(InputError, match="reads 320; shorten the template"):
        embedded.log_likelihood(["very " * 400])


class Recorder:
    """A model with a chat template, whose lines are templates in conversations and none otherwise, or the reverse."""

    chats, embedded, usage = True, False, {}

    def __init__(self, good: str) -> None:
        self.good, self.kept, self.asked = good, {}, 0

    def fits(self, prompt: Any) -> bool:
        return True

    def write_lines(self, prompts: Any, seed: int, *, names: Any = ()) -> list[list[Line]]:
        self.asked += 1
        good = [(CHAT if isinstance(p, list) else FEW_SHOT) == self.good for p in prompts]
        return [[Line(f"picture number {i} of a {{}}" if g else "hello", -1.0)] for i, g in enumerate(good)]

    def share(self, prompts: Any) -> None:
        assert len(prompts) == 4

    def recall(self, key: str) -> Any:
        return self.kept.get(key)

    def remember(self, key: str, value: Any) -> None:
        self.kept[key] = value


@pytest.mark.parametrize("form", [CHAT, FEW_SHOT])
def test_the_form_that_more_templates_come_from_is_found_once(form: str) -> None:
    model = Recorder(form)
    proposer = LanguageProposer(model)
    assert proposer.asked is None
    proposer.propose(REQUESTS, 0)
    assert proposer.asked == form == model.kept[REMEMBERED] and model.asked == 3
    LanguageProposer(model).propose(REQUESTS, 0)
    assert model.asked == 4


def test_what_is_remembered_of_a_model_is_in_the_cache(embedded: LocalModel) -> None:
    assert embedded.recall("form") is None
    embedded.remember("form", "chat")
    embedded.remember("other", 1)
    assert LocalModel(locate(EMBEDDED)).recall("form") == "chat"
    embedded._memory.write_text("{")
    assert embedded.recall("form") is None


def test_the_likeliest_line_that_is_new_is_taken() -> None:
    class Fixed(Recorder):
        def write_lines(self, prompts: Any, seed: int, *, names: Any = ()) -> list[list[Line]]:
            return [[Line(t, -1.0) for t in (PARENT, "a {}.", "the {}.", "my {}.")] for _ in prompts]

    proposer = LanguageProposer(Fixed(CHAT), form=CHAT)
    ask = Request("shorter", (PARENT,), seen=frozenset({"the {}."}))
    assert proposer.propose([ask, ask, ask], 0) == ["a {}.", "my {}.", PARENT]


@pytest.mark.parametrize("option", [{"temperature": 0.0}, {"temperature": float("inf")}, {"top_p": 0.0}])
def test_bad_drawing_options(option: dict[str, float]) -> None:
    with pytest.raises(InputError, match="--t"):
        LocalModel(locate(EMBEDDED), **option)


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


EVOLVE = ["evolve", "--model", "tiny", "--dataset", "cifar10-dark", "--shots", "2", "--bank", "templates"]
EVOLVE += ["--population", "4", "--offspring", "4", "--trials", "20", "--no-estimate"]


def test_a_hub_id_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import promptsearch.evaluators.data.hub as hub

    monkeypatch.setattr(hub, "_answer", (False, "HF_HUB_OFFLINE is set"))
    error = run(*EVOLVE, "--lm", "gpt2", code=1).stderr
    assert "--lm gpt2: the hub cannot be reached (HF_HUB_OFFLINE is set)" in error and "--lm embedded" in error
    assert "Error: " in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not valid"),
        (lambda f: (f / "config.json").write_text('{"architectures": ["CLIPModel"]}'), "a CLIPModel writes no text"),
        (lambda f: (f / "model.safetensors").unlink(), r"no \*.safetensors"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
    ],
)
def test_folders_that_are_no_language_model(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = copied(tmp_path)
    spoil(folder)
    with pytest.raises(InputError, match=message):
        locate(str(folder))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(InputError, match="no such folder; give a folder you have"):
        locate(name)


def test_damaged_weights_and_tokenizers_are_one_line(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    assert "cannot be loaded" in run(*EVOLVE, "--lm", str(folder), code=1).stderr
    folder = copied(tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(PromptSearchError, match="tokenizer cannot be loaded"):
        LocalModel(locate(str(folder))).load()


def test_evolve_runs_offline_through_the_embedded_model_and_resumes_exactly() -> None:
    whole = json.loads(run(*EVOLVE, "--study", "whole", "--json").stdout)
    assert whole["proposals"]["usage"]["calls"] >= 3 and whole["evaluations"] == 20
    run(*EVOLVE, "--study", "part", "--trials", "13")
    more = json.loads(run("runs", "resume", "part", "--trials", "20", "--json").stdout)
    assert (more["winner"], more["runners_up"]) == (whole["winner"], whole["runners_up"])
    assert "calls of the language model" in run(*EVOLVE, "--study", "whole").stdout


def test_climb_asks_a_language_model_where_one_is_named() -> None:
    options = ["climb", *EVOLVE[1:7], "--bank", "templates", "--trials", "20", "--json"]
    asked = json.loads(run(*options, "--pool", "6", "--lm", "embedded").stdout)
    assert asked["proposals"]["usage"]["calls"] >= 2
    assert "proposals" not in json.loads(run(*options).stdout)


def test_another_model_is_another_run(tmp_path: Path) -> None:
    run(*EVOLVE, "--study", "mine")
    other = copied(tmp_path)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    assert "lm 'embedded'" in run(*EVOLVE, "--study", "mine", "--lm", str(other), code=2).stderr


def test_likelihoods_do_not_depend_on_the_company(embedded: LocalModel) -> None:
    alone = embedded.log_likelihood(["a photo of a cat."])
    crowd = embedded.log_likelihood(["a photo of a cat.", *(f"a long photo of a thing, {i}." for i in range(200))])
    np.testing.assert_allclose(alone[0], crowd[0], atol=1e-3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--proposer", "grammar", "--lm", "embedded"], "--lm would do nothing: --proposer grammar"),
        (["--offspring", "0"], "--offspring 0: must be at least 1"),
        (["--temperature", "nan"], "--temperature nan"),
        (["--top-p", "1.1"], "--top-p 1.1: must be above 0"),
        (["--lm-timeout", "3"], "--lm-timeout would do nothing: it is a server's"),
        (["--fluency-lm", "embedded"], "--fluency-lm would do nothing"),
    ],
)
def test_wrong_options_and_those_that_would_do_nothing_are_refused(args: list[str], message: str) -> None:
    assert message in run(*EVOLVE, *args, code=2).stderr


def test_climbing_without_a_language_model_refuses_its_options() -> None:
    assert "--shown would do nothing" in run("climb", *EVOLVE[1:7], "--shown", "2", code=2).stderr
