"""How the embedded language model is made: its sentences, and the script from nothing to a folder that loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from promptsearch.banks import Template
from promptsearch.lm import LocalModel, locate
from promptsearch.models.lm.sentences import document, draw, edit, say
from promptsearch.models.lm.train import main
from promptsearch.search.proposers import Request
from promptsearch.search.proposers.prompts import LABELS, completion


def test_sentences_are_varied_templates_that_are_the_same_for_the_same_seed() -> None:
    made = [say(draw(rng), rng) for rng in [np.random.default_rng(0)] for _ in range(2000)]
    assert len({Template(t) for t in made}) > 1500
    assert made == [say(draw(rng), rng) for rng in [np.random.default_rng(0)] for _ in range(2000)]
    assert document(np.random.default_rng(1)) == document(np.random.default_rng(1))


@pytest.mark.parametrize("kind", LABELS)
def test_the_texts_learnt_have_the_form_that_models_are_asked_in(kind: str) -> None:
    rng = np.random.default_rng(3)
    made = None
    while made is None:
        made = edit(kind, rng)
    parents, answer = made
    assert answer not in parents and Template(answer)
    assert completion(Request(kind, parents), 0).splitlines()[-1] == f"{LABELS[kind]}:"
    texts = [document(np.random.default_rng(i)) for i in range(200)]
    assert any(f"\n{LABELS[kind]}: " in t for t in texts)


def test_the_script_makes_a_folder_that_writes_and_goes_on_from_one(tmp_path: Path) -> None:
    small = ["--layers", "1", "--width", "16", "--vocabulary", "300", "--documents", "50", "--batch", "1"]
    for args in (["--steps", "9", "--stop", "1"], ["--steps", "2", "--start", str(tmp_path / "0"), "--seed", "1"]):
        out = tmp_path / str(int("--start" in args))
        result = CliRunner().invoke(main, [*small, *args, "--out", str(out)])
        assert result.exit_code == 0, result.exception
        assert (out / "train_log.jsonl").read_text().count("loss") == 1
        model = LocalModel(locate(str(out)))
        assert len(model.write(["Caption: a photo of a {}.\nShorter:"] * 2, 0)) == 2
