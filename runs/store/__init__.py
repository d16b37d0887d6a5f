"""Runs kept as Optuna studies: their storage, their trials, who works on which."""
