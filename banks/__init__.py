"""Banks of templates and phrases, grammars, and prompt sets, which are the result of a search."""

from promptsearch.banks.bank import Bank, PhraseBank
from promptsearch.banks.grammar import Grammar
from promptsearch.banks.load import PHRASE_BANKS, builtin_banks, load_bank, load_class_names, load_phrases
from promptsearch.banks.prompt_set import PromptSet
from promptsearch.banks.template import BASELINE, Template, printable, why_invalid

__all__ = [
    "BASELINE",
    "PHRASE_BANKS",
    "Bank",
    "Grammar",
    "PhraseBank",
    "PromptSet",
    "Template",
    "builtin_banks",
    "load_bank",
    "load_class_names",
    "load_phrases",
    "printable",
    "why_invalid",
]
