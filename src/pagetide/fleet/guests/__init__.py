"""From what a guest uses to what its host holds for it."""
