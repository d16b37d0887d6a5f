"""Stores runs as Optuna studies, and coordinates the processes that work on a run."""
