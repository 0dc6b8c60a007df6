"""The page of `pagetide serve --web`, shown by a process of its own: what it keeps, what it answers, who may ask."""
