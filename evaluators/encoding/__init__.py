"""Encodes texts and pictures to unit vectors with any open_clip model, in this process or on a Ray cluster."""
