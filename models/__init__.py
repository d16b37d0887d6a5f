"""The embedded models: their weights, feature packs, and how they were made."""
