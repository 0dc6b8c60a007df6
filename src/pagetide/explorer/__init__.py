"""Every interleaving of a small guest and its host."""
