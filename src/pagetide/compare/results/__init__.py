"""What runs have given: stored, put in order, measured."""
