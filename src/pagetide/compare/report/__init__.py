"""The page, its pictures and its tables."""
