"""The host: one guest, many, bad ones, and QEMU beside it."""
