"""Proposers, which write new templates on request: a language model, or random edits from a bank."""

from promptsearch.plugins import Registry
from promptsearch.search.proposers.fill import FillProposer
from promptsearch.search.proposers.grammar import GrammarProposer
from promptsearch.search.proposers.language import LanguageProposer
from promptsearch.search.proposers.request import KINDS, MUTATIONS, Proposer, Request

PROPOSERS = Registry("proposers", {"fill": FillProposer, "grammar": GrammarProposer, "lm": LanguageProposer})

__all__ = ["KINDS", "MUTATIONS", "PROPOSERS", "Proposer", "Request"]
