"""`pagetide top`: the table of all VMs, one VM's curves and page map, and the keys."""
