"""Real Linux kernels as guests: User-Mode Linux, and QEMU."""
