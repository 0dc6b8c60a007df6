"""The state of an explored machine."""
