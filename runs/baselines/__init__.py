"""Runs the gradient baselines of the literature on the same pictures as the searches."""
