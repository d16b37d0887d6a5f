"""Methods, shots, seeds and data sets side by side: every cell computed once."""
