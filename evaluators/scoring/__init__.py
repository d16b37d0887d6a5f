"""Scores many prompt ensembles at once from cached text and picture vectors."""
