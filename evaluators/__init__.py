"""Evaluators: tasks, encoders, and the scores of PromptSets.  Nothing here imports torch before it is needed."""

from promptsearch.evaluators.cache import Cache, CacheWarning
from promptsearch.evaluators.encoder import Encoder, Progress, TooLongError, no_progress
from promptsearch.evaluators.evaluator import Evaluator
from promptsearch.evaluators.models import ModelSpec, resolve_model
from promptsearch.evaluators.problem import Problem, default_cache, open_pictures, open_problem
from promptsearch.evaluators.score import Interval, Score, mid_p, paired_difference, wilson
from promptsearch.evaluators.task import Split, Task

__all__ = [
    "Cache",
    "CacheWarning",
    "Encoder",
    "Evaluator",
    "Interval",
    "ModelSpec",
    "Problem",
    "Progress",
    "Score",
    "Split",
    "Task",
    "TooLongError",
    "default_cache",
    "mid_p",
    "no_progress",
    "open_pictures",
    "open_problem",
    "paired_difference",
    "resolve_model",
    "wilson",
]
