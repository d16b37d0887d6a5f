"""From cached vectors to the figures of many prompt ensembles at once."""
