"""Zones, the buddy allocator, per-CPU lists, and the isolation of free blocks."""
