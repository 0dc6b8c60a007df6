"""Which cells there are, and how they are run."""
