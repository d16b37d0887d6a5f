"""The embedded model `tiny`: its weights, its feature pack, and how both were made."""
