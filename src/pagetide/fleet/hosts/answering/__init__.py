"""What a host does when it is short of memory, a file for each policy."""
