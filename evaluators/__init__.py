"""Tasks, encoders, and the evaluator that scores PromptSets; torch is only imported when it is needed."""

from promptsearch.evaluators.cache import Cache, CacheWarning, default_cache
from promptsearch.evaluators.encoding.encoder import Encoder, Progress, TooLongError, no_progress
from promptsearch.evaluators.encoding.model_spec import ModelSpec, resolve_model
from promptsearch.evaluators.evaluator import Evaluator
from promptsearch.evaluators.intervals import Interval, mid_p, paired_difference, wilson
from promptsearch.evaluators.problem import Problem, open_configured, open_pictures, open_problem
from promptsearch.evaluators.task import Split, Task
from promptsearch.score import Score

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
    "open_configured",
    "open_pictures",
    "open_problem",
    "paired_difference",
    "resolve_model",
    "wilson",
]
