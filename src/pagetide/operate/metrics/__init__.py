"""The metrics of `pagetide serve`, told by a process of their own: what there is, how it is written, who asks."""
