"""Conformance vectors for virtio-balloon devices: what a driver does, and what must become of it."""
