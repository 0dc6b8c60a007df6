"""`pagetide compare`: a grid of runs, kept in a database, and what becomes of it."""
