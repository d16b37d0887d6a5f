"""Labelled pictures: where they come from, how they are decoded and degraded, their cached features."""

from promptsearch.evaluators.data.datasets import PictureData, open_dataset

__all__ = ["PictureData", "open_dataset"]
