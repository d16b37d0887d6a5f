"""Exports a run's winner to the formats of other tools."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptsearch.banks import Bank, PromptSet, Template
from promptsearch.errors import InputError
from promptsearch.evaluators.cache import model_folders
from promptsearch.evaluators.data.corruptions import split_condition
from promptsearch.evaluators.encoding.given_model import GIVEN
from promptsearch.evaluators.encoding.model_spec import EMBEDDED
from promptsearch.evaluators.encoding.transformers_model import is_transformers

#: Folder of the scripts that exported folders contain.
SCRIPTS = Path(__file__).resolve().parent / "scripts"

#: Values of `promptsearch export --to`.
FORMATS = ("clip-benchmark", "open-clip", "transformers", "bank", "python", "folder", "onnx", "hub")

#: Largest number of prompts per class, counting repetitions, in a file for CLIP_benchmark.
MOST_REPEATED = 400

#: The transformers checkpoint with the same weights as each open_clip model.
_CHECKPOINTS = {
    "ViT-B-32:openai": "openai/clip-vit-base-patch32",
    "ViT-B-16:openai": "openai/clip-vit-base-patch16",
    "ViT-L-14:openai": "openai/clip-vit-large-patch14",
    "ViT-L-14-336:openai": "openai/clip-vit-large-patch14-336",
    "ViT-B-32-quickgelu:metaclip_400m": "facebook/metaclip-b32-400m",
    "ViT-B-32-quickgelu:metaclip_fullcc": "facebook/metaclip-b32-fullcc2.5b",
    "ViT-B-16-quickgelu:metaclip_400m": "facebook/metaclip-b16-400m",
    "ViT-B-16-quickgelu:metaclip_fullcc": "facebook/metaclip-b16-fullcc2.5b",
    "ViT-L-14-quickgelu:metaclip_400m": "facebook/metaclip-l14-400m",
    "ViT-L-14-quickgelu:metaclip_fullcc": "facebook/metaclip-l14-fullcc2.5b",
    "ViT-H-14-quickgelu:metaclip_fullcc": "facebook/metaclip-h14-fullcc2.5b",
    "ViT-B-16-SigLIP:webli": "google/siglip-base-patch16-224",
    "ViT-B-16-SigLIP-256:webli": "google/siglip-base-patch16-256",
    "ViT-B-16-SigLIP-384:webli": "google/siglip-base-patch16-384",
    "ViT-B-16-SigLIP-512:webli": "google/siglip-base-patch16-512",
    "ViT-L-16-SigLIP-256:webli": "google/siglip-large-patch16-256",
    "ViT-L-16-SigLIP-384:webli": "google/siglip-large-patch16-384",
    "ViT-SO400M-14-SigLIP:webli": "google/siglip-so400m-patch14-224",
    "ViT-SO400M-14-SigLIP-384:webli": "google/siglip-so400m-patch14-384",
    "ViT-B-16-SigLIP2:webli": "google/siglip2-base-patch16-224",
    "ViT-B-16-SigLIP2-256:webli": "google/siglip2-base-patch16-256",
    "ViT-B-16-SigLIP2-384:webli": "google/siglip2-base-patch16-384",
    "ViT-B-16-SigLIP2-512:webli": "google/siglip2-base-patch16-512",
    "ViT-B-32-SigLIP2-256:webli": "google/siglip2-base-patch32-256",
    "ViT-L-16-SigLIP2-256:webli": "google/siglip2-large-patch16-256",
    "ViT-L-16-SigLIP2-384:webli": "google/siglip2-large-patch16-384",
    "ViT-L-16-SigLIP2-512:webli": "google/siglip2-large-patch16-512",
    "ViT-SO400M-14-SigLIP2:webli": "google/siglip2-so400m-patch14-224",
    "ViT-SO400M-16-SigLIP2-256:webli": "google/siglip2-so400m-patch16-256",
    "ViT-SO400M-16-SigLIP2-384:webli": "google/siglip2-so400m-patch16-384",
    "ViT-SO400M-16-SigLIP2-512:webli": "google/siglip2-so400m-patch16-512",
}

#: Prefixes of the names of open_clip's models, and of their hub repositories, that transformers does not have.
_NOT_IN_TRANSFORMERS = ("EVA", "MobileCLIP", "hf-hub:timm/", "hf-hub:apple/")


@dataclass(frozen=True)
class Winner:
    """The winning prompt set of a run, with what an export needs to know about the run.

        winner = Winner(PromptSet.of("a photo of a {}."), ("cat", "dog"), "my-run", "RN50", "cifar10")
        print(to_clip_benchmark(winner))

    Attributes:
        prompt_set: The winning prompt set.
        classes: The data set's class names, in its order.
        study: Name of the run.
        model: Name of the model, as in `--model`.
        dataset: Name of the data set, as in `--dataset`.
        weights: File of the model's weights, if they were read from one.
        about: Further comment lines for the top of a generated script, e.g. accuracies.
        logit_scale: The logit scale that fits the few labels; None for the model's own.
    """

    prompt_set: PromptSet
    classes: tuple[str, ...]
    study: str
    model: str
    dataset: str
    weights: Path | None = None
    about: Sequence[str] = field(default=())
    logit_scale: float | None = None

    @property
    def said_names(self) -> tuple[str, ...]:
        """What prompts call each class: the first of its phrases, or the data set's name if it has none."""
        return tuple(phrases[0][0] for phrases in self.prompt_set.phrases_of(self.classes))

    @property
    def prompts(self) -> list[list[tuple[str, float]]]:
        """The prompts of each class with their shares: each of its phrases put into every template."""
        return self.prompt_set.prompts_of(self.classes)

    @property
    def shown_model(self) -> str:
        """The model's name; of a model in a folder, that folder's name."""
        return _without_folders(self.model, self.model.startswith("local-dir:"))

    @property
    def shown_dataset(self) -> str:
        """The data set's name; of a data set in a folder, that folder's name."""
        return _without_folders(self.dataset, os.path.isabs(self.dataset) or self.dataset.startswith(("~", ".")))

    @property
    def several(self) -> bool:
        """Whether a class has several phrases."""
        return self.prompt_set.phrases is not None and self.prompt_set.class_names is None

    @property
    def simple(self) -> bool:
        """Whether each class has one name and filling only replaces `{}`, without choosing between "a" and "an"."""
        return not self.several and all(
            self.prompt_set.texts(t, self.classes) == [[t.replace("{}", name)] for name in self.said_names]
            for t in self.prompt_set.templates
        )


def to_bank(winner: Winner) -> str:
    """Return the templates as a `.txt` bank, without their weights."""
    return Bank.of(winner.study, winner.prompt_set.templates).to_txt()


def to_clip_benchmark(winner: Winner, key: str | None = None) -> str:
    """Return JSON for CLIP_benchmark's `--custom_template_file`.

    It lists the templates, or the prompts of each class if the run chose phrases. CLIP_benchmark gives all prompts the
    same weight, so prompts are repeated in proportion to their weights.

    Args:
        winner: The winner of a run.
        key: CLIP_benchmark's name of the data set. By default the run's, without its condition and folder.

    Returns:
        JSON text.

    Raises:
        InputError: The weights cannot be expressed by a few repetitions.
    """
    templates: list[str] | dict[str, list[str]]
    if winner.prompt_set.phrases is None and winner.simple:
        templates = _repeated([(t.replace("{}", "{c}"), w) for t, w in _templates(winner.prompt_set)], winner)
    else:
        prompts = zip(winner.classes, winner.prompts, strict=True)
        templates = {name: _repeated(of_class, winner) for name, of_class in prompts}
    name = key or Path(split_condition(winner.dataset)[0]).name
    return json.dumps({name: templates}, indent=2, ensure_ascii=False) + "\n"


def to_open_clip(winner: Winner, weights: Any, logit_scale: float, file: Path) -> None:
    """Write the class weights to a safetensors file, in the layout of open_clip's `build_zero_shot_classifier`.

    The tensor `classifier` is (D, C) float32; class names, prompts and logit scale are in the file's metadata.

    Args:
        winner: The winner of a run.
        weights: (C, D) class weights of unit length.
        logit_scale: What cosines are multiplied by before the softmax (not its logarithm): the scale that fits the few
            labels, as `predict` uses it, or the model's own.
        file: Where to write.

    Raises:
        InputError: The file cannot be written.
    """
    import numpy as np
    from safetensors.numpy import save

    meta = {
        "class_names": json.dumps(list(winner.classes), ensure_ascii=False),
        "prompts": json.dumps(winner.prompt_set.to_dict(), ensure_ascii=False),
        "model": winner.model,
        "run": winner.study,
        "logit_scale": repr(float(logit_scale)),
    }
    data = save({"classifier": np.ascontiguousarray(np.asarray(weights, np.float32).T)}, meta)
    write(file, data)


def to_python(winner: Winner) -> str:
    """Return a script that classifies pictures with open_clip and these prompts.

    The script imports promptsearch only to find the embedded model.

    Raises:
        InputError: The model is in transformers' format, which open_clip does not read, or was given as objects.
    """
    if winner.model.endswith(GIVEN):
        raise InputError(
            f"run {winner.study!r}: its model was given as objects, which a script cannot load; use --to open-clip"
        )
    if _transformers_folder(winner) is not None:
        raise InputError(
            f"run {winner.study!r}: open_clip does not read {winner.model}, which transformers wrote; use "
            "--to transformers"
        )
    if winner.simple and winner.said_names == winner.classes:
        prompts = (
            f"TEMPLATES = {_lines([(str(t), w) for t, w in _templates(winner.prompt_set)])}\n"
            'PROMPTS = [[(t.replace("{}", name), w) for t, w in TEMPLATES] for name in CLASS_NAMES]'
        )
    else:
        prompts = f"PROMPTS = {_lines([[(text, round(w, 6)) for text, w in p] for p in winner.prompts])}"
    imports, model, create = _open_clip_model(winner)
    return _PYTHON.format(
        head=_head(winner, "open_clip_torch"),
        imports=imports,
        model=model,
        create=create,
        class_names=_lines(list(winner.classes)),
        prompts=prompts,
        logit_scale=winner.logit_scale,
        open_picture=_open_picture(),
    )


def _open_picture() -> str:
    """Return the source of the function that opens a picture in exported scripts."""
    source = (SCRIPTS / "predict_open_clip.py").read_text("utf-8")
    begin = source.index("def open_picture(")
    return source[begin : source.index("\n\n\n", begin)]


def to_transformers(winner: Winner) -> str:
    """Return a script that classifies pictures with transformers' zero-shot-image-classification pipeline.

    Raises:
        InputError: The set has several templates, several phrases for a class, or an article that depends on the class
            name ("a(n) {}").
    """
    if winner.several:
        raise InputError(
            f"run {winner.study!r}: transformers takes one name for each class, but the winner has several phrases; "
            "use --to python"
        )
    if winner.prompt_set.size > 1:
        raise InputError(
            f"run {winner.study!r}: transformers takes one template, but the winner has several; use --to python"
        )
    (template,) = winner.prompt_set.templates
    if not winner.simple:
        raise InputError(
            f"run {winner.study!r}: transformers cannot choose between 'a' and 'an', as {str(template)!r} requires; "
            "use --to python"
        )
    return _TRANSFORMERS.format(
        head=_head(winner, "transformers, torch"),
        template=str(template),
        said_names=_lines(list(winner.said_names)),
        class_names="CANDIDATE_LABELS" if winner.said_names == winner.classes else _lines(list(winner.classes)),
        checkpoint=_checkpoint(winner),
        chosen=winner.model,
    )


def _checkpoint(winner: Winner) -> str | None:
    """Return the checkpoint with the model's weights: a name of the hub, a folder, or None if none is known.

    Raises:
        InputError: transformers does not have the model's architecture.
    """
    if winner.model.startswith(_NOT_IN_TRANSFORMERS):
        raise InputError(
            f"run {winner.study!r}: transformers does not have {winner.model}, which is open_clip's; use "
            "--to python or --to folder"
        )
    if winner.model.startswith("hf-hub:"):
        return winner.model.removeprefix("hf-hub:")
    folder = _transformers_folder(winner)
    return str(folder) if folder is not None else _CHECKPOINTS.get(winner.model)


def _transformers_folder(winner: Winner) -> Path | None:
    """Return the model's folder if transformers wrote it; open_clip cannot read it."""
    if not winner.model.startswith("local-dir:"):
        return None
    folder = Path(winner.model.removeprefix("local-dir:")).expanduser()
    return folder.resolve() if is_transformers(folder) else None


def write(file: Path, data: str | bytes) -> None:
    """Write text (as UTF-8) or bytes to a file.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        file.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    except OSError as e:
        raise InputError(f"{file}: cannot be written ({e.strerror or e}); name another file") from e


def _without_folders(name: str, is_path: bool) -> str:
    """Return a name without this machine's folders: of a path, only the last part."""
    return Path(name.removeprefix("local-dir:")).name or name if is_path else name


def _templates(prompt_set: PromptSet) -> list[tuple[Template, float]]:
    """Return the templates with their weights."""
    return list(zip(prompt_set.templates, prompt_set.weights or (1.0,) * prompt_set.size, strict=True))


def _repeated(prompts: Sequence[tuple[str, float]], winner: Winner) -> list[str]:
    """Repeat prompts in proportion to their weights, if at most `MOST_REPEATED` prompts can do so exactly."""
    least = min(w for _, w in prompts)
    for times in range(1, MOST_REPEATED + 1):
        counts = [w / least * times for _, w in prompts]
        if all(abs(n - round(n)) < 1e-6 * n for n in counts) and sum(counts) <= MOST_REPEATED + 0.5:
            return [text for (text, _), n in zip(prompts, counts, strict=True) for _ in range(round(n))]
    raise InputError(
        f"run {winner.study!r}: the winner's prompts have weights that clip-benchmark does not support; use "
        "--to python or --to open-clip, or search with --select none"
    )


def _lines(items: Sequence[Any]) -> str:
    """Format a list as Python source, one item per line."""
    return "[\n" + "".join(f"    {item!r},\n" for item in items) + "]"


def _head(winner: Winner, needs: str) -> str:
    lines = [f"run {winner.study!r}: {winner.model!r} on {winner.dataset!r}", *winner.about, f"needs {needs}"]
    return "\n".join(f"# {' '.join(line.split())}" for line in lines)


def _open_clip_model(winner: Winner) -> tuple[str, str, str]:
    """Return the script's import lines, the source of MODEL, and further arguments of create_model_and_transforms."""
    name, _, tag = winner.model.partition(":")
    if winner.model == EMBEDDED:
        there = f'"local-dir:" + str(files("promptsearch") / "models" / {winner.model!r})'
        return "from importlib.resources import files\n", there, ""
    if (folder := model_folders().get(winner.model)) is not None:
        return "", repr(f"local-dir:{folder.resolve()}"), ""
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
{imports}from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image, ImageOps

MODEL = {model}
LOGIT_SCALE = {logit_scale}  # fits the few labels of the run; None for the model's own
CLASS_NAMES = {class_names}
# For each class its prompts and how much each counts.
{prompts}


{open_picture}


@torch.inference_mode()
def classify(paths):
    """Yield the class name and its probability for each picture."""
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL{create})
    model.eval()
    tokenizer = open_clip.get_tokenizer(MODEL)
    classes = []
    for prompts in PROMPTS:
        texts, weights = zip(*prompts)
        vectors = model.encode_text(tokenizer(list(texts)), normalize=True)  # (T, D)
        classes.append(torch.nn.functional.normalize(torch.tensor(weights) @ vectors, dim=0))
    classifier = torch.stack(classes, dim=1)  # (D, C)
    scale = LOGIT_SCALE or model.logit_scale.exp()
    for path in paths:
        picture = preprocess(open_picture(path)).unsqueeze(0)
        logits = scale * model.encode_image(picture, normalize=True) @ classifier  # (1, C)
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
CANDIDATE_LABELS = {said_names}
CLASS_NAMES = {class_names}
MODEL = {checkpoint!r}  # the template was chosen with {chosen!r}; with another model it may be worth less

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--model", default=MODEL, required=MODEL is None)
    args = parser.parse_args()
    classify = pipeline("zero-shot-image-classification", model=args.model)
    for path in args.pictures:
        best = classify(path, candidate_labels=CANDIDATE_LABELS, hypothesis_template=HYPOTHESIS_TEMPLATE)[0]
        name = CLASS_NAMES[CANDIDATE_LABELS.index(best["label"])]
        print(f"{{path}}\\t{{name}}\\t{{best['score']:.4f}}")
'''
