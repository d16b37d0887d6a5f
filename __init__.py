"""promptsearch: gradient-free search for readable prompts of vision-language models."""

__version__ = "0.1.0"
