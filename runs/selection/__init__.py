"""Chooses the winner among the sets that a search found, and estimates its accuracy."""
