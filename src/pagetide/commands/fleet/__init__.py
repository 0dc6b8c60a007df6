"""`pagetide fleet` and its own commands."""
