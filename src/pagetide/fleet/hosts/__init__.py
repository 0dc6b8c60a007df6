"""Which VMs share a host, how often it is short of memory, and what that leads to."""
