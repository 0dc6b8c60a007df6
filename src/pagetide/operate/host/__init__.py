"""What can be asked on the host: the kernel about a process, QEMU at its monitor, our daemon."""
