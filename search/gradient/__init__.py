"""Gradient baselines: they learn vectors, not readable prompts, and are compared with the searchers.

Each is a function that takes a model's text tower and few-shot features, and returns class weights.
"""

from promptsearch.search.gradient.augment import AugmentedPictures
from promptsearch.search.gradient.coop import CoOpOptions, context_layout, coop, decode_context
from promptsearch.search.gradient.hull import BankHull
from promptsearch.search.gradient.learned import Learned
from promptsearch.search.gradient.names import NamesOptions, decode_names, learn_names
from promptsearch.search.gradient.pez import PezOptions, pez
from promptsearch.search.gradient.sparse import SparseOptions, learn_ensemble, top_templates
from promptsearch.search.gradient.tower import TextTower
from promptsearch.search.gradient.training import Checkpoint, FewShots, Schedule, published_epochs, train
from promptsearch.search.gradient.vpt import VisualPrompt, VptOptions, learn_visual_prompt, takes_tokens, vpt_schedule
from promptsearch.search.gradient.words import Words

__all__ = [
    "AugmentedPictures",
    "BankHull",
    "Checkpoint",
    "FewShots",
    "CoOpOptions",
    "Learned",
    "NamesOptions",
    "PezOptions",
    "Schedule",
    "SparseOptions",
    "TextTower",
    "VisualPrompt",
    "VptOptions",
    "Words",
    "context_layout",
    "coop",
    "decode_context",
    "decode_names",
    "learn_ensemble",
    "learn_names",
    "learn_visual_prompt",
    "pez",
    "published_epochs",
    "takes_tokens",
    "top_templates",
    "train",
    "vpt_schedule",
]
