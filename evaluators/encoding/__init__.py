"""Texts and pictures to unit vectors by any open_clip model, in this process or on a Ray cluster."""
