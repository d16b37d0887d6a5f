"""Banks: templates, the grammars that make them, and the ensembles that are searched for."""

from promptsearch.banks.bank import Bank
from promptsearch.banks.grammar import Grammar
from promptsearch.banks.load import builtin_banks, load_bank
from promptsearch.banks.prompt_set import PromptSet
from promptsearch.banks.template import BASELINE, Template, printable, why_invalid

__all__ = [
    "BASELINE",
    "Bank",
    "Grammar",
    "PromptSet",
    "Template",
    "builtin_banks",
    "load_bank",
    "printable",
    "why_invalid",
]
