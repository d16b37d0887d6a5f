"""The loop that joins a searcher and an evaluator, alone or shared by several workers."""
