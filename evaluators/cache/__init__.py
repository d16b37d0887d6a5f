"""The content-addressed cache of vectors on disk, and the text vectors kept in memory above it."""
