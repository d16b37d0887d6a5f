"""A run's winner in the forms that other tools read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptsearch.banks import Bank, PromptSet, Template
from promptsearch.errors import InputError
from promptsearch.evaluators.data.corruptions import split_condition

#: What `promptsearch export --to` knows.
FORMATS = ("clip-benchmark", "open-clip", "transformers", "bank", "python")

#: Checkpoints of transformers that have the weights of open_clip's names.
_CHECKPOINTS = {
    "ViT-B-32:openai": "openai/clip-vit-base-patch32",
    "ViT-B-16:openai": "openai/clip-vit-base-patch16",
    "ViT-L-14:openai": "openai/clip-vit-large-patch14",
    "ViT-L-14-336:openai": "openai/clip-vit-large-patch14-336",
}


@dataclass(frozen=True)
class Winner:
    """What is exported: the prompts, the classes they are filled with, and where they come from.

        winner = Winner(PromptSet.of("a photo of a {}."), ("cat", "dog"), "my-run", "RN50", "cifar10")
        print(to_clip_benchmark(winner))

    Attributes:
        classes: the data set's own class names, in its order.
        about: more lines for the head of a snippet, e.g. figures.
    """

    prompt_set: PromptSet
    classes: tuple[str, ...]
    study: str
    model: str
    dataset: str
    weights: Path | None = None
    about: Sequence[str] = field(default=())

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names that are filled in: the prompt set's own where it has some."""
        return self.prompt_set.class_names or self.classes

    @property
    def prompts(self) -> list[list[str]]:
        """For each class, the filled templates."""
        return [[t.fill(n) for t in self.prompt_set.templates] for n in self.class_names]

    def plain(self, template: Template) -> bool:
        """Whether filling is nothing but replacing `{}`."""
        return all(template.fill(n) == template.replace("{}", n) for n in self.class_names)


def to_bank(winner: Winner) -> str:
    """A `.txt` bank of the templates; the weights of a weighted set are not in it."""
    return Bank.of(winner.study, winner.prompt_set.templates).to_txt()


def to_clip_benchmark(winner: Winner, key: str | None = None) -> str:
    """CLIP_benchmark's `--custom_template_file`: a list of templates, or prompts by class where names are chosen.

    Args:
        key: CLIP_benchmark's name of the data set; by default the run's, without condition and folders.

    Raises:
        InputError: the set is weighted, which CLIP_benchmark cannot express.
    """
    _unweighted(winner, "clip-benchmark")
    templates: list[str] | dict[str, list[str]]
    if winner.prompt_set.class_names is None and all(winner.plain(t) for t in winner.prompt_set.templates):
        templates = [t.replace("{}", "{c}") for t in winner.prompt_set.templates]
    else:
        templates = dict(zip(winner.classes, winner.prompts, strict=True))
    name = key or Path(split_condition(winner.dataset)[0]).name
    return json.dumps({name: templates}, indent=2, ensure_ascii=False) + "\n"


def to_open_clip(winner: Winner, weights: Any, logit_scale: float, file: Path) -> None:
    """What open_clip's `build_zero_shot_classifier` gives, (D, C), as `classifier` of a safetensors file.

    Args:
        weights: (C, D) unit class weights.

    Raises:
        InputError: the file cannot be written.
    """
    import numpy as np
    from safetensors.numpy import save

    meta = {
        "class_names": json.dumps(list(winner.class_names), ensure_ascii=False),
        "prompts": json.dumps(winner.prompt_set.to_dict(), ensure_ascii=False),
        "model": winner.model,
        "run": winner.study,
        "logit_scale": repr(float(logit_scale)),
    }
    data = save({"classifier": np.ascontiguousarray(np.asarray(weights, np.float32).T)}, meta)
    write(file, data)


def to_python(winner: Winner) -> str:
    """A script that classifies pictures with open_clip and these prompts, and needs promptsearch only for `tiny`."""
    plain = all(winner.plain(t) for t in winner.prompt_set.templates)
    if plain:
        prompts = (
            f"TEMPLATES = {_lines([str(t) for t in winner.prompt_set.templates])}\n"
            'PROMPTS = [[t.replace("{}", name) for t in TEMPLATES] for name in CLASS_NAMES]'
        )
    else:
        prompts = f"PROMPTS = {_lines(winner.prompts)}"
    weights = winner.prompt_set.weights or (1.0,) * winner.prompt_set.size
    imports, model, create = _open_clip_model(winner)
    return _PYTHON.format(
        head=_head(winner, "open_clip_torch"),
        imports=imports,
        model=model,
        create=create,
        class_names=_lines(list(winner.class_names)),
        prompts=prompts,
        weights=list(weights),
    )


def to_transformers(winner: Winner) -> str:
    """A script with the one template that transformers' zero-shot-image-classification takes.

    Raises:
        InputError: the set has several templates, or one that agrees with its class name ("a(n) {}").
    """
    if winner.prompt_set.size > 1:
        raise InputError(f"run {winner.study!r}: transformers takes one template, and its winner has several")
    (template,) = winner.prompt_set.templates
    if not winner.plain(template):
        raise InputError(
            f"run {winner.study!r}: transformers fills by replacement, and {str(template)!r} agrees with the class "
            "name; export it --to python"
        )
    checkpoint = _CHECKPOINTS.get(winner.model)
    if winner.model.startswith("hf-hub:"):
        checkpoint = winner.model.removeprefix("hf-hub:")
    return _TRANSFORMERS.format(
        head=_head(winner, "transformers, torch"),
        template=str(template),
        class_names=_lines(list(winner.class_names)),
        checkpoint=checkpoint,
        chosen=winner.model,
    )


def write(file: Path, data: str | bytes) -> None:
    """Write a file.  Raises InputError where that cannot be done."""
    try:
        file.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    except OSError as e:
        raise InputError(f"{file}: cannot be written ({e.strerror or e}); name another file") from e


def _unweighted(winner: Winner, form: str) -> None:
    if winner.prompt_set.weights is not None:
        raise InputError(
            f"run {winner.study!r}: its winner weights its templates, and {form} cannot; export it --to python or "
            "--to open-clip, or search with --select none"
        )


def _lines(items: Sequence[Any]) -> str:
    """A list as Python source, an item a line."""
    return "[\n" + "".join(f"    {item!r},\n" for item in items) + "]"


def _head(winner: Winner, needs: str) -> str:
    lines = [f"run {winner.study!r}: {winner.model!r} on {winner.dataset!r}", *winner.about, f"needs {needs}"]
    return "\n".join(f"# {' '.join(line.split())}" for line in lines)


def _open_clip_model(winner: Winner) -> tuple[str, str, str]:
    """(imports, source of MODEL, further arguments of create_model_and_transforms), as promptsearch loads it."""
    name, _, tag = winner.model.partition(":")
    if winner.model == "tiny":
        there = '"local-dir:" + str(files("promptsearch") / "models" / "tiny")'
        return "from importlib.resources import files\n", there, ""
    if winner.model.startswith(("local-dir:", "hf-hub:")):
        return "", repr(winner.model), ""
    if winner.weights is not None:
        return "", repr("RN50-quickgelu" if name == "RN50" else name), f", pretrained={str(winner.weights)!r}"
    if tag == "random":
        return "", repr(name), ""
    tag = tag or ("openai" if name == "RN50" else "")
    quick = f'bool(open_clip.get_pretrained_cfg(MODEL, {tag!r}).get("quick_gelu"))'
    return "", repr(name), f", pretrained={tag!r}, force_quick_gelu={quick}"


_PYTHON = '''\
"""Classify pictures with prompts that promptsearch found: python THIS_FILE PICTURE..."""
{head}

import sys
{imports}
import open_clip
import torch
from PIL import Image

MODEL = {model}
CLASS_NAMES = {class_names}
{prompts}
WEIGHTS = {weights}


@torch.inference_mode()
def classify(paths):
    """For each picture its class name and the probability."""
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL{create})
    model.eval()
    tokenizer = open_clip.get_tokenizer(MODEL)
    weights = torch.tensor(WEIGHTS)
    classes = []
    for prompts in PROMPTS:
        vectors = model.encode_text(tokenizer(prompts), normalize=True)  # (T, D)
        classes.append(torch.nn.functional.normalize(weights @ vectors, dim=0))
    classifier = torch.stack(classes, dim=1)  # (D, C)
    for path in paths:
        picture = preprocess(Image.open(path).convert("RGB")).unsqueeze(0)
        logits = model.logit_scale.exp() * model.encode_image(picture, normalize=True) @ classifier  # (1, C)
        probability, index = logits.softmax(dim=-1)[0].max(dim=0)
        yield CLASS_NAMES[index], float(probability)


if __name__ == "__main__":
    for path, (name, probability) in zip(sys.argv[1:], classify(sys.argv[1:])):
        print(f"{{path}}\\t{{name}}\\t{{probability:.4f}}")
'''

_TRANSFORMERS = '''\
"""Classify pictures with a template that promptsearch found: python THIS_FILE PICTURE... [--model CHECKPOINT]"""
{head}

import argparse

from transformers import pipeline

HYPOTHESIS_TEMPLATE = {template!r}
CANDIDATE_LABELS = {class_names}
MODEL = {checkpoint!r}  # the template was chosen with {chosen!r}; with another model it may be worth less

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--model", default=MODEL, required=MODEL is None)
    args = parser.parse_args()
    classify = pipeline("zero-shot-image-classification", model=args.model)
    for path in args.pictures:
        best = classify(path, candidate_labels=CANDIDATE_LABELS, hypothesis_template=HYPOTHESIS_TEMPLATE)[0]
        print(f"{{path}}\\t{{best['label']}}\\t{{best['score']:.4f}}")
'''
