"""From what a search found to the prompt set that is kept, and an estimate of its accuracy."""
