"""Compares methods over data sets, shots and seeds, computing each combination once."""
