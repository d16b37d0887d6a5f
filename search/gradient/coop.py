"""CoOp: context vectors learnt by few-shot cross-entropy (Zhou et al. 2022), with KgCoOp's and a bank's pull."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from promptsearch.errors import InputError
from promptsearch.search.gradient.hull import BankHull
from promptsearch.search.gradient.learned import Learned
from promptsearch.search.gradient.tower import Layout, TextTower
from promptsearch.search.gradient.training import (
    Checkpoint,
    Progress,
    Schedule,
    few_shot_loss,
    generator,
    no_progress,
    published_epochs,
    train,
)
from promptsearch.search.gradient.words import Words

if TYPE_CHECKING:
    import torch

POSITIONS = ("end", "middle", "front")
INITIAL_STD = 0.02

#: Unit vectors (B, D) of the pictures at these indices (B,), drawn (augmented) anew each time.
FreshFeatures = Callable[["torch.Tensor", "torch.Generator"], "torch.Tensor"]


@dataclass(frozen=True)
class CoOpOptions:
    """What CoOp learns; the defaults are the paper's.

    Attributes:
        vectors: context vectors (per class where `specific`); `init` sets it by its number of tokens.
        position: of the class name: end, middle or front.
        specific: a context for every class (CSC) instead of one for all.
        init: a text whose embeddings the context starts from; random ones, N(0, 0.02²), without.
        schedule: CoOp's for the number of shots where it is None.
        kg: weight of the mean squared distance to the hand-written prompt's class features (Yao et al. 2023, eq. 4;
            the paper has 8).
        hull: weight of the mean squared distance to the convex hull of a bank's class features.
    """

    vectors: int = 16
    position: str = "end"
    specific: bool = False
    init: str | None = None
    schedule: Schedule | None = None
    kg: float = 0.0
    hull: float = 0.0

    def __post_init__(self) -> None:
        if self.vectors < 1:
            raise InputError(f"--vectors {self.vectors}: give at least 1")
        if self.position not in POSITIONS:
            raise InputError(f"--position {self.position}: choose from {', '.join(POSITIONS)}")
        for name in ("kg", "hull"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"--{name} {getattr(self, name)}: a weight is 0 or larger")


def prompts_of(
    contexts: Sequence[Sequence[int]], class_names: Sequence[str], tower: TextTower, position: str
) -> list[list[int]]:
    """One prompt per class: its context (token ids or ~j) around its name, and a full stop."""
    prompts = []
    for context, name in zip(contexts, class_names, strict=True):
        named, stop = tower.tokens(name), tower.tokens(".")
        cut = {"end": len(context), "middle": len(context) // 2, "front": 0}[position]
        prompts.append([*context[:cut], *named, *context[cut:], *stop])
    return prompts


def context_layout(
    tower: TextTower, class_names: Sequence[str], vectors: int, position: str = "end", specific: bool = False
) -> Layout:
    """CoOp's prompts: `vectors` learnt vectors and the class name, for every class.

    Raises:
        InputError: a prompt that is longer than the tower.
    """
    own = [range(c * vectors, (c + 1) * vectors) if specific else range(vectors) for c in range(len(class_names))]
    contexts = [[~j for j in slots] for slots in own]
    return tower.layout(prompts_of(contexts, class_names, tower, position), class_names)


def initial_context(tower: TextTower, options: CoOpOptions, classes: int, seed: int) -> torch.Tensor:
    """(V, W), with one context after another where they are class-specific (V = classes · vectors)."""
    import torch

    copies = classes if options.specific else 1
    if options.init is not None:
        return tower.embeddings(tower.tokens(options.init)).float().repeat(copies, 1)
    shape = (copies * options.vectors, tower.width)
    return (INITIAL_STD * torch.randn(shape, generator=generator(seed, 0, 1))).to(tower.device)


def coop(
    tower: TextTower,
    class_names: Sequence[str],
    features: np.ndarray | FreshFeatures,
    labels: np.ndarray,
    logit_scale: float,
    options: CoOpOptions,
    seed: int,
    *,
    hand_written: np.ndarray | None = None,
    bank: np.ndarray | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> Learned:
    """Learn a context.  The last step is the model: nothing is chosen by validation.

    Args:
        features: (N, D) unit vectors of the pictures (no augmentation), or what makes them anew for each batch.
        labels: (N,) class indices.
        hand_written: (C, D) unit class features that `options.kg` pulls to.
        bank: (T, C, D) unit class features of templates, whose hull `options.hull` pulls to.

    Returns:
        The class weights, with `context` (V, W), and `mixture` (T,) with a bank: the nearest mixture of templates.

    Raises:
        InputError: a prompt that is longer than the tower.
        PromptSearchError: the training diverged.
    """
    import torch

    if options.init is not None:
        if not (words := tower.tokens(options.init)):
            raise InputError(f"--init {options.init!r}: a text without tokens; write words, e.g. 'a photo of a'")
        options = _with_vectors(options, len(words))
    layout = context_layout(tower, class_names, options.vectors, options.position, options.specific)
    context = initial_context(tower, options, len(class_names), seed)
    schedule = options.schedule or Schedule(published_epochs(len(labels) // len(class_names)))
    y = torch.as_tensor(labels, device=tower.device)
    x = None if callable(features) else torch.as_tensor(features, device=tower.device)
    anchor = None if hand_written is None else torch.as_tensor(hand_written, device=tower.device)
    hull = None if bank is None else BankHull(torch.as_tensor(bank, device=tower.device))
    if (options.kg and anchor is None) or (options.hull and hull is None):
        raise InputError("a pull needs something to pull to: hand_written for kg, bank for hull")

    def loss(batch: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        pictures = x[batch] if x is not None else features(batch, random)  # type: ignore[operator]
        weights = tower.encode(layout, context)  # (C, D)
        value = few_shot_loss(pictures, weights, y[batch], logit_scale)
        if options.kg and anchor is not None:
            value = value + options.kg * (weights - anchor).square().sum(dim=1).mean()
        if options.hull and hull is not None:
            value = value + options.hull * hull.distance(weights)
        return value

    losses = train({"context": context}, loss, len(labels), schedule, seed, checkpoint=checkpoint, progress=progress)
    with torch.no_grad():
        weights = tower.encode(layout, context)
        tensors = {"context": context.cpu().numpy()}
        if hull is not None:
            tensors["mixture"] = hull.mixture(weights, rounds=2000).cpu().numpy()
    steps = schedule.epochs * max(1, len(labels) // schedule.batch)
    return Learned(weights.cpu().numpy(), tensors, losses, steps, {**asdict(options), "schedule": asdict(schedule)})


def _with_vectors(options: CoOpOptions, vectors: int) -> CoOpOptions:
    return options if options.vectors == vectors else replace(options, vectors=vectors)


def decode_context(
    words: Words, context: np.ndarray, classes: int, options: CoOpOptions, metric: str = "cosine"
) -> list[str]:
    """Templates in which every context vector (V, W) is replaced by its nearest word.

    One template where all classes share the context, else one per class.
    """
    import torch

    ids = words.nearest(torch.as_tensor(context, device=words.tower.device), metric)
    contexts = np.array(ids).reshape(classes if options.specific else 1, -1).tolist()
    return [context_template(words, own, options.position) for own in contexts]


def context_template(words: Words, context: Sequence[int], position: str) -> str:
    """The template that is tokenized to these words around the class name, as `prompts_of` puts them."""
    cut = {"end": len(context), "middle": len(context) // 2, "front": 0}[position]
    before, after = words.text(context[:cut]), words.text(context[cut:])
    # The full stop stands apart from a word, which may itself be a sign: ". ." is two tokens, ".." is one.
    return " ".join(part for part in (before, f"{{}} {after} ." if after else "{}.") if part)
