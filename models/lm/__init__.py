"""The embedded language model: its weights, the sentences it was trained on, and how."""
