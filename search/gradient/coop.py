"""CoOp: context vectors learnt by few-shot cross-entropy (Zhou et al. 2022), with optional regularisers.

The regularisers pull the class features towards those of the hand-written prompt (KgCoOp, Yao et al. 2023) or towards
the convex hull of a bank's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from promptsearch.errors import InputError
from promptsearch.search.gradient.graphed_step import GraphedStep
from promptsearch.search.gradient.hull import BankHull
from promptsearch.search.gradient.learned import Learned
from promptsearch.search.gradient.tower import Layout, TextTower
from promptsearch.search.gradient.training import (
    Checkpoint,
    FewShots,
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


@dataclass(frozen=True)
class CoOpOptions:
    """Options of CoOp; the defaults are the paper's.

    Attributes:
        vectors: Number of context vectors (per class if `specific`). If `init` is given, its number of tokens is used.
        position: Position of the class name: "end", "middle" or "front".
        specific: Whether each class has its own context (CSC) instead of one shared by all.
        init: Text from whose embeddings the context starts; None for random vectors, N(0, 0.02²).
        schedule: Training schedule; None for the published one for this number of shots.
        kg: Weight of the mean squared distance to the hand-written prompt's class features (Yao et al. 2023, eq. 4;
            8 in the paper).
        hull: Weight of the mean squared distance to the convex hull of a bank's class features.

    Raises:
        InputError: An option is out of range.
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
                raise InputError(f"--{name} {getattr(self, name)}: the weight must be 0 or larger")


def prompts_of(
    contexts: Sequence[Sequence[int]], class_names: Sequence[str], tower: TextTower, position: str
) -> list[list[int]]:
    """Build one prompt per class from its context, its name and a full stop.

    Args:
        contexts: Context of each class, as token ids or ~j for the learnt vector j.
        class_names: The C class names.
        tower: Tokenizes the names.
        position: Position of the class name in the context: "end", "middle" or "front".
    """
    prompts = []
    for context, name in zip(contexts, class_names, strict=True):
        named, stop = tower.tokens(name), tower.tokens(".")
        cut = {"end": len(context), "middle": len(context) // 2, "front": 0}[position]
        prompts.append([*context[:cut], *named, *context[cut:], *stop])
    return prompts


def context_layout(
    tower: TextTower, class_names: Sequence[str], vectors: int, position: str = "end", specific: bool = False
) -> Layout:
    """Build CoOp's prompts: learnt vectors and the class name, for every class.

    Args:
        tower: The text tower that will encode them.
        class_names: The C class names.
        vectors: Number of learnt vectors in each prompt.
        position: Position of the class name: "end", "middle" or "front".
        specific: Whether each class has its own vectors.

    Raises:
        InputError: A prompt is longer than the model's context length.
    """
    own = [range(c * vectors, (c + 1) * vectors) if specific else range(vectors) for c in range(len(class_names))]
    contexts = [[~j for j in slots] for slots in own]
    return tower.layout(prompts_of(contexts, class_names, tower, position), class_names)


def initial_context(tower: TextTower, options: CoOpOptions, classes: int, seed: int) -> torch.Tensor:
    """Return the initial context vectors (V, W); class-specific contexts follow one another (V = classes · vectors)."""
    import torch

    copies = classes if options.specific else 1
    if options.init is not None:
        return tower.embeddings(tower.tokens(options.init)).float().repeat(copies, 1)
    shape = (copies * options.vectors, tower.width)
    return (INITIAL_STD * torch.randn(shape, generator=generator(seed, 0, 1))).to(tower.device)


def coop(
    tower: TextTower,
    shots: FewShots,
    options: CoOpOptions,
    seed: int,
    *,
    hand_written: np.ndarray | None = None,
    bank: np.ndarray | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> Learned:
    """Learn context vectors by few-shot cross-entropy (Zhou et al. 2022, eq. 3).

    The vectors after the last step are returned; no validation set is used.

    Args:
        tower: The model's text tower.
        shots: The labelled pictures.
        options: What is learnt, and how.
        seed: Seed of the initial vectors and of the batches.
        hand_written: (C, D) unit class features of the hand-written prompt, needed if `options.kg` is not 0.
        bank: (T, C, D) unit class features of templates, needed if `options.hull` is not 0.
        checkpoint: Where the state is saved after each epoch; None to save nothing.
        progress: Called after each epoch.

    Returns:
        The class weights, the `context` (V, W) and, with a bank, the `mixture` (T,) of templates nearest to them.

    Raises:
        InputError: A prompt is longer than the model's context length.
        PromptSearchError: The training diverged.
    """
    import torch

    if options.init is not None:
        if not (words := tower.tokens(options.init)):
            raise InputError(f"--init {options.init!r}: the text has no tokens; write words, e.g. 'a photo of a'")
        options = _with_vectors(options, len(words))
    class_names, features, labels = shots.class_names, shots.features, shots.labels
    layout = context_layout(tower, class_names, options.vectors, options.position, options.specific)
    context = initial_context(tower, options, len(class_names), seed)
    schedule = options.schedule or Schedule(published_epochs(len(labels) // len(class_names)))
    y = torch.as_tensor(labels, device=tower.device)
    x = None if callable(features) else torch.as_tensor(features, device=tower.device)
    anchor = None if hand_written is None else torch.as_tensor(hand_written, device=tower.device)
    hull = None if bank is None else BankHull(torch.as_tensor(bank, device=tower.device))
    if (options.kg and anchor is None) or (options.hull and hull is None):
        raise InputError("options.kg needs the argument hand_written, and options.hull the argument bank")

    def loss(batch: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        pictures = x[batch] if x is not None else features(batch, random)  # type: ignore[operator]
        weights = tower.encode(layout, context)  # (C, D)
        value = few_shot_loss(pictures, weights, y[batch], shots.logit_scale)
        if options.kg and anchor is not None:
            value = value + options.kg * (weights - anchor).square().sum(dim=1).mean()
        if options.hull and hull is not None:
            value = value + options.hull * hull.distance(weights)
        return value

    same = x is not None and hull is None  # a graph can replay the step only if each batch is computed in the same way
    step = GraphedStep(loss, [context]) if same else loss
    losses = train({"context": context}, step, len(labels), schedule, seed, checkpoint=checkpoint, progress=progress)
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
    """Replace every context vector by its nearest word.

    Args:
        words: The words to choose from.
        context: (V, W) learnt context vectors.
        classes: Number of classes.
        options: The options that the context was learnt with.
        metric: "cosine" or "euclidean".

    Returns:
        One template if all classes share the context, else one per class.
    """
    import torch

    ids = words.nearest(torch.as_tensor(context, device=words.tower.device), metric)
    contexts = np.array(ids).reshape(classes if options.specific else 1, -1).tolist()
    return [context_template(words, own, options.position) for own in contexts]


def context_template(words: Words, context: Sequence[int], position: str) -> str:
    """Return the template whose tokens are these words around the class name, in the order of `prompts_of`."""
    cut = {"end": len(context), "middle": len(context) // 2, "front": 0}[position]
    before, after = words.text(context[:cut]), words.text(context[cut:])
    # A space precedes the full stop, because the last word may be a full stop too: ". ." is two tokens, ".." is one.
    return " ".join(part for part in (before, f"{{}} {after} ." if after else "{}.") if part)
