"""Labelled pictures: where they come from, how they are decoded and degraded, their cached features."""
