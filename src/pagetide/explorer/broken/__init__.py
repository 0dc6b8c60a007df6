"""What is broken on purpose, by where it is."""
