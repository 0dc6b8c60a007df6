"""Its queues: turns and elements of each kind, and where they are."""
