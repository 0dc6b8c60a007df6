"""Gives a virtual machine's free memory back to its host, shows that it did, and measures the cost."""
