"""One guest's connection, and what is wanted of it."""
