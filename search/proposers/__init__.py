"""Proposers, which write new templates on request: a language model, or random edits from a bank."""

from promptsearch.plugins import Registry
from promptsearch.search.proposers.request import KINDS, MUTATIONS, Proposer, Request

PROPOSERS = Registry("proposers")

__all__ = ["KINDS", "MUTATIONS", "PROPOSERS", "Proposer", "Request"]
