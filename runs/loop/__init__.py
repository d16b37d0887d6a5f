"""The loop that connects a searcher and an evaluator, in one process or in several workers."""
