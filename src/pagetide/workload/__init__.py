"""What a guest does with its memory, as operations on blocks."""
