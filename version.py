"""The version of promptsearch."""

__version__ = "0.1.0"
