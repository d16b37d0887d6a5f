"""The gradient baselines as functions that train on a Setting and return decoded, scorable results.

Each trains with `search/gradient` on the setting's support set. The baselines' commands and `promptsearch compare` call
the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from promptsearch.banks import BASELINE, Bank, PromptSet
from promptsearch.evaluators import Problem
from promptsearch.evaluators.encoding.fused_resnet import differentiable_tower
from promptsearch.evaluators.scoring.metrics import predict
from promptsearch.runs.baselines.training_context import Row, Setting, Trained, decoded_row, set_row, whole_bank

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from promptsearch.search.gradient import CoOpOptions, FewShots, NamesOptions, PezOptions, SparseOptions, VptOptions

UNREADABLE = "The result consists of learnt vectors. The words shown are the nearest ones, scored as text below."

#: Number of templates to show of the mixture that is nearest to learnt vectors.
NEAREST = 4

#: Number of pictures in a forward pass.
BATCH = 64


def learn_context(setting: Setting, options: CoOpOptions, bank: Bank | None = None, augment: bool = False) -> Trained:
    """Learn context vectors with CoOp or one of its variants, and decode them to their nearest words.

    Args:
        setting: What to train with.
        options: Options of CoOp.
        bank: If given, the result also has the bank's templates nearest to the learnt vectors.
        augment: Whether pictures are cropped and flipped at random in every step, instead of using cached features.
    """
    from promptsearch.search.gradient import AugmentedPictures, coop, decode_context, top_templates
    from promptsearch.search.gradient.words import METRICS

    encoder, support = setting.problem.encoder, setting.support
    notes = ["Picture features are cached, without augmentation."]
    features: Any = support.features
    if augment:
        features = AugmentedPictures(encoder.model, encoder.preprocess, setting.pictures("train", support.indices))
        notes = ["Pictures are cropped and flipped at random in every step."]
    learned = coop(
        setting.tools.tower,
        _few_shots(setting, features),
        options,
        setting.training_seed,
        hand_written=setting.evaluator.class_weights(PromptSet.of(BASELINE)) if options.kg else None,
        bank=setting.bank_weights(bank.templates) if bank is not None else None,
        **_kept(setting),
    )
    words, classes = setting.tools.words, len(setting.class_names)
    decoded = {m: decode_context(words, learned.tensors["context"], classes, options, m) for m in METRICS}
    others = [decoded_row(setting, f"nearest words ({m}), as text", texts) for m, texts in decoded.items()]
    if bank is not None:
        nearest = top_templates(bank.templates, learned.tensors["mixture"], NEAREST)
        others.append(set_row(setting, "nearest templates", nearest))
    winner = Row("learnt context", learned.class_weights, decoded["cosine"], readable=False)
    return Trained(learned, winner, others, whole_bank(bank.templates) if bank else [], [*notes, UNREADABLE])


def learn_context_restarted(setting: Setting, options: CoOpOptions, starts: int = 3) -> Trained:
    """Learn context vectors with CoOp, and again from another start if the training collapsed.

    A training has collapsed if it classifies its own few-shot pictures worse than the hand-written prompt does.

    Args:
        setting: What to train with.
        options: Options of CoOp.
        starts: Largest number of trainings.

    Returns:
        The first training that did not collapse, else the one with the highest few-shot accuracy.
    """
    from promptsearch.search.gradient import Checkpoint

    floor = setting.evaluator.score([PromptSet.of(BASELINE)])[0].accuracy
    found: list[tuple[float, Trained]] = []
    for i in range(starts):
        own = setting.checkpoint
        if own is not None and i > 0:
            own = Checkpoint(own.path.with_name(f"{own.path.stem}-{i}.pt"), f"{own.key} {i}")
        # The first start is the one of `learn_context`; the others have seeds that no other draw is likely to use.
        seed = setting.training_seed
        start = seed if i == 0 else int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
        trained = learn_context(replace(setting, start=start, checkpoint=own), options)
        if own is not None and i > 0:
            own.remove()
        support = setting.support
        right = predict(support.features @ trained.winner.weights.T, support.labels) == support.labels
        found.append((float(right.mean()), trained))
        if right.mean() >= floor:
            break
    return max(found, key=lambda f: f[0])[1]


def sample_bank(setting: Setting, options: SparseOptions, bank: Bank) -> Trained:
    """Learn a mixture of a bank's templates, annealed to a small ensemble.

    Args:
        setting: What to train with.
        options: Options of the learnt distribution.
        bank: The bank.
    """
    from promptsearch.search.gradient import learn_ensemble

    found, learned = learn_ensemble(
        [str(t) for t in bank.templates],
        setting.bank_weights(bank.templates),
        _few_shots(setting),
        options,
        setting.training_seed,
        **_kept(setting),
    )
    winner = set_row(setting, "sampled templates", found)
    mixture = Row("the mixture before sampling", learned.class_weights, readable=False)
    return Trained(learned, winner, [mixture], whole_bank(bank.templates))


def learn_class_names(setting: Setting, options: NamesOptions) -> Trained:
    """Learn class names in a frozen template, and decode them to their nearest words.

    Args:
        setting: What to train with.
        options: Options of learnt class names.
    """
    from promptsearch.search.gradient import decode_names, learn_names
    from promptsearch.search.gradient.words import METRICS

    learned = learn_names(
        setting.tools.tower,
        _few_shots(setting),
        options,
        setting.training_seed,
        **_kept(setting),
    )
    words, template = setting.tools.words, str(options.template)
    read = {m: decode_names(words, learned.tensors["names"], learned.tensors["counts"], m) for m in METRICS}
    others = [decoded_row(setting, f"nearest words ({m}), as text", [template], found) for m, found in read.items()]
    winner = Row("learnt names", learned.class_weights, [template], read["cosine"], readable=False)
    return Trained(learned, winner, others, notes=[UNREADABLE])


def project_words(setting: Setting, options: PezOptions) -> Trained:
    """Learn a prompt of real words by projected gradients (PEZ).

    Args:
        setting: What to train with.
        options: Options of PEZ.
    """
    from promptsearch.search.gradient import pez

    template, learned = pez(
        setting.tools.tower,
        setting.tools.words,
        _few_shots(setting),
        options,
        setting.training_seed,
        **_kept(setting),
    )
    return Trained(learned, Row("projected words", learned.class_weights, [template], readable=False))


def prompt_pictures(setting: Setting, options: VptOptions, template: str = BASELINE) -> Trained:
    """Learn a visual prompt; prompts and class names are fixed.

    Args:
        setting: What to train with.
        options: Options of the visual prompt.
        template: The template that classifies.
    """
    import torch

    from promptsearch.search.gradient import learn_visual_prompt

    encoder, support = setting.problem.encoder, setting.support
    pictures = setting.pictures("train", support.indices)
    pixels = torch.cat(list(_batches(encoder.preprocess, pictures)))  # (N, 3, H, W)
    weights = setting.evaluator.class_weights(PromptSet.of(template))
    prompt, learned = learn_visual_prompt(
        encoder.model,
        weights,
        _few_shots(setting, pixels),
        options,
        setting.training_seed,
        tower=differentiable_tower(encoder.model, encoder.spec.device),
        **_kept(setting),
    )

    def test(indices: np.ndarray) -> np.ndarray:
        return prompt.encode_all(_batches(encoder.preprocess, setting.pictures("test", indices)))

    winner = Row(f"visual prompt ({options.kind})", weights, [str(template)], readable=False)
    return Trained(learned, winner, support=prompt.encode_all(pixels.split(BATCH)), test=test)


@dataclass(frozen=True)
class Prompted:
    """A learnt visual prompt with its class weights.

    Attributes:
        kind: "border", "shallow" or "deep".
        tensors: The learnt tensors by name.
        weights: (C, D) class weights of unit length.
    """

    kind: str
    tensors: Mapping[str, np.ndarray]
    weights: np.ndarray


def classify_prompted(problem: Problem, prompts: Sequence[Prompted], split: str, indices: np.ndarray) -> np.ndarray:
    """Classify pictures with several visual prompts, decoding each picture once.

    Args:
        problem: Model and data set.
        prompts: P visual prompts.
        split: "train" or "test".
        indices: (n,) indices of the pictures.

    Returns:
        (P, n, C) cosines of pictures and classes under each prompt.
    """
    import torch

    from promptsearch.search.gradient import VisualPrompt, VptOptions

    encoder = problem.encoder
    tower = differentiable_tower(encoder.model, encoder.spec.device)
    made = [VisualPrompt(encoder.model, VptOptions(p.kind), 0, tower) for p in prompts]
    for prompt, known in zip(made, prompts, strict=True):
        for name, tensor in prompt.tensors.items():
            tensor.copy_(torch.as_tensor(known.tensors[name]))
    parts: list[list[np.ndarray]] = []
    for batch in _batches(encoder.preprocess, (p.open() for p in problem.source.stored(split, indices.tolist()))):
        encoder.progress(BATCH * len(parts), len(indices), f"classifying {split} pictures under {len(made)} prompts")
        features = [prompt.encode_all([batch]) for prompt in made]
        parts.append([x @ p.weights.T for x, p in zip(features, prompts, strict=True)])
    return np.stack([np.concatenate(logits) for logits in zip(*parts, strict=True)])


def _few_shots(setting: Setting, features: Any = None) -> FewShots:
    """Return the pictures to train on, with the support set's features unless others are given."""
    from promptsearch.search.gradient import FewShots

    support = setting.support
    given = support.features if features is None else features
    return FewShots(setting.class_names, given, support.labels, setting.logit_scale)


def _kept(setting: Setting) -> dict[str, Any]:
    """Return the arguments for saving and reporting a training's state."""
    return {"checkpoint": setting.checkpoint, "progress": setting.progress}


def _batches(preprocess: Any, pictures: Iterable[Image]) -> Iterator[torch.Tensor]:
    """Yield batches of preprocessed pictures (B, 3, H, W)."""
    import torch

    batch: list[torch.Tensor] = []
    for picture in pictures:
        batch.append(preprocess(picture))
        if len(batch) == BATCH:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)
