"""The reasons why memory does not come back, each with evidence and remedy."""
