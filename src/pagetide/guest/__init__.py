"""The memory side of a guest kernel: zone, per-CPU lists, reporting designs, and the balloon driver."""
