"""A guest and its host, joined."""
