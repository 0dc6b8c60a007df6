"""What a command's exit status says."""

STATUS_OK = 0
"""The run is complete and nothing was wrong."""

STATUS_FAILED = 1
"""Something was wrong: a stamp, a discard that the kernel contradicts, a process that died, no memory."""

STATUS_USAGE = 2
"""The arguments were wrong, and nothing was run."""

STATUS_INTERRUPTED = 130
"""Ctrl-C, as a shell says it; what was measured was shown."""
