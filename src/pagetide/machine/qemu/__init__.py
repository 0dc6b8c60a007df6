"""A QEMU without a guest, whose devices are driven from outside."""
