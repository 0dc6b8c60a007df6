"""A connection to a socket of a VMM, and which process listens there."""

import socket
import struct
from pathlib import Path


def dial(path: Path, timeout_s: float) -> tuple[socket.socket, int]:
    """A connected socket that waits so long at most, and the process at the other end.

    Raises:
        OSError: nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout_s)
        sock.connect(str(path))
        told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return sock, int(struct.unpack("3i", told)[0])
    except OSError:
        sock.close()
        raise
