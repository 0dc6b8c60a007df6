"""Experiments: one run seen live and summed up."""
