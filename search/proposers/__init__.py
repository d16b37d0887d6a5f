"""Proposers: they write new templates on request; a language model, or edits drawn from a bank."""

from promptsearch.search.proposers.request import KINDS, MUTATIONS, Proposer, Request

__all__ = ["KINDS", "MUTATIONS", "Proposer", "Request"]
