"""Looking into a real guest's kernel while it runs: its files, by way of init, and who wants them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

TRACEFS = "/sys/kernel/tracing"
"""Where a guest's init mounts its tracefs, if the kernel has one."""

_SENT = "sent"


class GuestFiles:
    """The guest's files, as `KernelFiles` has them, and a way out for bytes.

    Every method raises OSError where the guest's kernel refuses, and whatever ends the run if the guest ends.
    """

    def __init__(
        self, ask: Callable[[str], list[str]], folder: Path, look_on: Callable[[Callable[[], bool], str], None]
    ) -> None:
        """Take the way to init.

        Args:
            ask: has init run a command, and returns the lines that it tells.
            folder: the guest's, where its second port writes.
            look_on: lets the run go on until something is so; it is told what is waited for.
        """
        self._ask, self._sent, self._look_on = ask, sent_file(folder), look_on

    def read(self, path: str) -> str:
        """The text of a file."""
        return "\n".join([*self._ask(f"tell {_absolute(path)}"), ""])

    def write(self, path: str, text: str) -> None:
        """Write one line to a file that exists."""
        self._ask(f"put {_absolute(path)} {text}")

    def make_folder(self, path: str) -> None:
        """Make a folder."""
        self._ask(f"mkdir {_absolute(path)}")

    def remove_folder(self, path: str) -> None:
        """Remove one."""
        self._ask(f"rmdir {_absolute(path)}")

    def fetch(self, path: str, chunk_bytes: int, is_whole: Callable[[bytes], bool]) -> bytes:
        """What comes out of a file that has no end, read in chunks of this size, until it is whole.

        `is_whole` is given whole chunks, in order and each once.
        """
        taken = bytearray()
        with self._sent.open("rb") as file:
            file.seek(0, 2)
            self._ask(f"send {_absolute(path)} {chunk_bytes}")

            def come() -> bool:
                data = file.read()
                done = len(taken) // chunk_bytes * chunk_bytes
                taken.extend(data)
                return is_whole(bytes(taken[done : len(taken) // chunk_bytes * chunk_bytes]))

            self._look_on(come, f"sending {path}")
            self._ask("sent")
        return bytes(taken)


class Attendant(Protocol):
    """Who looks into the guest's kernel while it runs."""

    def attending(self, files: GuestFiles) -> AbstractContextManager[None]:
        """A context around all that the guest does."""

    def stage(self, name: str) -> None:
        """The guest begins with something."""


def sent_file(folder: Path) -> Path:
    """Where a guest's second port writes."""
    return folder / _SENT


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"{TRACEFS}/{path}"
