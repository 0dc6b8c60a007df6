"""A Unix socket at which a thread serves one client after the other, as a test says."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[Path]:
    """Listen there until the end of the block; each client is given to `serve`, and its connection closed then."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            while True:
                client, _ = listener.accept()
                with client:
                    if client.recv(1, socket.MSG_PEEK) == b"\0":
                        return
                    serve(client)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield path
        finally:
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
                last.sendall(b"\0")
                thread.join()
