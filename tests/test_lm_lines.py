"""Lines that are valid by construction, and the reading of what prompts share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from promptsearch.banks import PhraseBank
from promptsearch.cli import main
from promptsearch.errors import InputError
from promptsearch.lm import EMBEDDED, LocalModel, locate
from promptsearch.lm.lines import Line, LineRules, LineWriter, Vocabulary
from promptsearch.lm.reader import Reader, common_beginning
from promptsearch.search.proposers import Request
from promptsearch.search.proposers.fill import FillProposer, _gap
from promptsearch.search.proposers.phrases import PhraseWriter, merged
from promptsearch.search.proposers.prompts import few_shot

PROMPTS = ["Caption: a photo of a {}.\nShorter:", "Caption: a dark picture of the {} in the snow.\nAnother medium:"]


@pytest.fixture(scope="module")
def embedded() -> LocalModel:
    return LocalModel(locate(EMBEDDED)).load()


def random_model(kind: str) -> Any:
    """A small model with random weights, and with the embedded one's vocabulary."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 1536, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "llama":
        sizes |= {"intermediate_size": 64, "num_key_value_heads": 2}
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
    if kind == "gemma2":
        sizes |= {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}
        return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**sizes)).eval()
    return transformers.BloomForCausalLM(transformers.BloomConfig(**sizes, n_head=4, n_layer=2)).eval()


@pytest.mark.parametrize("kind", ["llama", "gemma2", "bloom"])
def test_reading_what_rows_share_once_gives_the_logits_of_reading_each_whole(kind: str) -> None:
    import torch

    model = random_model(kind)
    rng = np.random.default_rng(0)
    head = rng.integers(5, 1500, 12).tolist()
    rows = [[*head, *rng.integers(5, 1500, n).tolist()] for n in (1, 4, 2)]
    whole = [model(input_ids=torch.tensor([[*r, 7, 8]])).logits[0, -3:].detach() for r in rows]
    reader = Reader(model, pad=0)
    first = reader.begin(rows)
    reader.select([0, 1, 2, 1])
    second = reader.go_on([7, 7, 7, 7])
    reader.select([1, 3, 2])
    third = reader.go_on([8, 8, 8])
    for i, w in enumerate(whole):
        torch.testing.assert_close(first[i], w[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(second[i], w[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(third[:2], whole[1][2].expand(2, -1), atol=1e-4, rtol=1e-4)
    assert (reader.shared == 12) == (kind != "bloom")  # whose attention cannot be replaced
    rated = reader.rate(rows[1], [[7, 8], [9]])
    logs = model(input_ids=torch.tensor([[*rows[1], 7]])).logits[0, -2:].log_softmax(-1)
    assert float(rated[0, 0]) == pytest.approx(float(logs[0, 7] + logs[1, 8]), abs=1e-3)
    assert float(rated[1, 0]) == pytest.approx(float(logs[0, 9]), abs=1e-3) and rated[:, 1].tolist() == [2, 1]


def test_the_common_beginning_leaves_each_row_a_token() -> None:
    assert common_beginning([[1, 2, 3], [1, 2, 4, 5]]) == [1, 2]
    assert common_beginning([[1, 2], [1, 2, 3]]) == [1]
    assert common_beginning([[1], [2]]) == common_beginning([[4]]) == []


def test_lines_carry_the_likelihood_that_the_model_gives_them(embedded: LocalModel) -> None:
    for prompt, lines in zip(PROMPTS, embedded.write_lines(PROMPTS, 3), strict=True):
        assert [line.likelihood for line in lines] == sorted((line.likelihood for line in lines), reverse=True)
        for line in lines:
            before, after = embedded.log_likelihood([prompt, f"{prompt} {line.text}"])
            total, tokens = after - before
            assert line.text.endswith(".") and line.likelihood == pytest.approx(total / tokens, abs=1e-3)


@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_a_model_of_noise_writes_templates_too(kind: str, embedded: LocalModel) -> None:
    """By the rules alone: random weights never mean to end, and never mean `{}`."""
    model = random_model(kind)
    writer = LineWriter(Reader(model, 0), Vocabulary.of(embedded._tokenizer, 1536, [0]))
    rules = LineRules(words=6, names=("photo", "snow"), continuations=8)
    rows = [embedded._ids(p) for p in PROMPTS]
    lines = [line.text for some in writer.write(rows, [0], rules, 1.0, 1.0) for line in some]
    assert len(lines) == 16 and len(set(lines)) > 8
    for text in lines:
        assert text.count("{}") == 1 and text == text.lower() and text.isprintable()
        assert 2 <= len(text.split()) <= 6 and not {"photo", "snow"} & set(text.replace(".", "").split())


def test_a_class_name_is_never_written(embedded: LocalModel) -> None:
    free = {w for lines in embedded.write_lines(PROMPTS, 0) for line in lines for w in line.text.strip(".").split()}
    barred = sorted(w for w in free if w not in ("a", "the", "of", "in", "{}"))
    assert barred
    held = embedded.write_lines(PROMPTS, 0, names=barred)
    assert not set(barred) & {w for lines in held for line in lines for w in line.text.strip(".").split()}


def test_a_line_without_a_place(embedded: LocalModel) -> None:
    rules = LineRules(place=False, words=4, least=1)
    for lines in embedded.write_lines(PROMPTS, 0, rules=rules):
        assert lines and all("{}" not in line.text and 1 <= len(line.text.split()) <= 4 for line in lines)


def test_what_was_read_once_is_not_read_again(embedded: LocalModel) -> None:
    model = LocalModel(locate(EMBEDDED))
    head = "Caption: a photo of a {}.\nShorter: a {}.\n" * 3
    prompts = [f"{head}Caption: a {w} {{}}.\nShorter:" for w in ("big", "small", "dark")]
    model.share(prompts)
    model.write_lines(prompts, 0)
    read = model.usage["tokens read"]
    first = model.write_lines(prompts, 1)
    assert model.usage["tokens read"] - read < 0.5 * sum(len(model._ids(p)) for p in prompts)
    assert [[x.text for x in some] for some in first] == [
        [x.text for x in some] for some in embedded.write_lines(prompts, 1)
    ]


def test_every_request_of_the_few_shot_form_begins_alike() -> None:
    requests = [Request(k, ("a {}.", "the {}.")) for k in ("shorter", "crossover")]
    requests.append(Request("history", scores=((3, "a {}."),)))
    one, two, three = (few_shot(r) for r in requests)
    assert min(len(common_beginning([one, other])) for other in (two, three)) > 0.9 * len(three)


def test_gaps_are_filled_with_new_words_and_the_place_stays(embedded: LocalModel) -> None:
    parents = ("a dark photo of a {}, at night.", "my {}")
    requests = [Request("condition", (p,)) for p in parents] * 5 + [Request("crossover", parents)]
    replies = FillProposer(embedded, ["snow"]).propose(requests, 0)
    assert all(r.count("{}") == 1 and "snow" not in r and " ." not in r and " ," not in r for r in replies)
    assert not set(replies) & set(parents) and FillProposer(embedded, ["snow"]).propose(requests, 0) == replies


def test_a_gap_keeps_the_place_and_the_full_stop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        before, behind = _gap("a dark photo, of a {} at night.", rng)
        assert f"{before} {behind}".count("{}") == 1 and behind.endswith(".")


def test_phrases_are_written_for_classes_and_belong_to_one(embedded: LocalModel) -> None:
    writer = PhraseWriter(embedded)
    looks = writer.write(["cat", "polar_bear"], "looks", each=2)
    assert looks.keys() == {"cat", "polar_bear"} and all(len(p) <= 2 for p in looks.values())
    assert all(p.startswith("polar bear, ") and "{}" not in p for p in looks["polar_bear"]) and looks["polar_bear"]
    names = writer.write(["cat", "polar_bear"], "names")
    assert not set(names["cat"]) & set(names["polar_bear"]) and "cat" not in " ".join(names["cat"]).split()
    bank = PhraseBank("written", merged([looks, names]))
    assert len(bank.of_classes(["cat", "polar_bear"])[0]) == 1 + len(looks["cat"]) + len(names["cat"])
    assert merged([{"a": ("b",), "c": ()}, {"a": ("d",)}]) == {"a": ("b", "d")}


class SaysAlways:
    """A language model that writes the same lines for every prompt of a name."""

    def __init__(self, said: dict[str, list[str]]) -> None:
        self.said = said

    def write_phrases(self, prompts: Sequence[str], seed: int, **rules: Any) -> list[list[Line]]:
        return [[Line(text, 0.0) for text in self.said[p.split("Thing: ")[-1].split("\n")[0]]] for p in prompts]


def test_phrases_are_checked_by_the_text_tower() -> None:
    said = {"cat": ["kitten", "puppy", "pet", "x" * 99, "{}", "tom"], "dog": ["puppy two", "pet", "hound"]}
    near = {"cat": 0, "kitten": 0, "tom": 0, "dog": 1, "puppy": 1, "puppy two": 1, "hound": 0}

    def encode(texts: Sequence[str]) -> np.ndarray:
        for t in texts:
            if len(t) > 90:
                raise InputError(t)
        return np.eye(2, dtype=np.float32)[[near.get(t, 0) for t in texts]]

    writer = PhraseWriter(SaysAlways(said), encode)
    assert writer.write(["cat", "dog"], "names", each=3) == {"cat": ("kitten", "tom"), "dog": ("puppy two",)}
    assert writer.rejected == {"not a phrase": 1, "too long": 1, "two classes": 2, "another class": 2}
    assert PhraseWriter(SaysAlways(said)).write(["cat", "dog"], "names")["dog"] == ("puppy two", "hound")


def test_a_bank_of_phrases_is_written_and_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "phrases.yaml"
    args = ["banks", "write", str(file), "--lm", "embedded", "--model", "zeroshot", "--dataset", "pacs-photo"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0 and "phrases for 7 classes" in result.output, result.output
    assert file.read_text().startswith("# written by embedded, seed 0") and "# looks" in file.read_text()
    assert CliRunner().invoke(main, ["banks", "check", "--phrases", str(file)]).output.startswith("ok: phrase bank")
    before = file.read_text()
    for wrong, said in (
        ([*args], "exists already"),
        ([*args[:2], str(tmp_path / "no" / "x.yaml"), *args[3:]], "folder does not exist"),
        ([*args[:2], str(tmp_path / "y.yaml"), "--lm", "no-such-folder/x.gguf"], "no-such-folder"),
    ):
        refused = CliRunner().invoke(main, wrong)
        assert refused.exit_code == 2 and said in refused.stderr and refused.stderr.count("\n") == 1, refused.output
    assert file.read_text() == before and not (tmp_path / "y.yaml").exists()
