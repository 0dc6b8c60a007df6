"""Responses learned from simulated runs, and the model that follows them checked against others."""
