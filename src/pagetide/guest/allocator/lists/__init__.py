"""Free lists, and which block of which an allocation takes."""
