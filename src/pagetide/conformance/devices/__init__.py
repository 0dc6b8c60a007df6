"""Devices under test: ours, one behind a socket, those of a stock QEMU."""
