"""The cache of encoded pictures and texts: a content-addressed store on disk, with text vectors in memory above it."""
