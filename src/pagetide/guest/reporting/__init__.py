"""Designs: ways to find free blocks worth reporting, one a file."""
