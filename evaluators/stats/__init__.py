"""Confidence intervals and paired comparisons of classifiers."""
