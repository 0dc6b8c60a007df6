"""Standard output and error whose failures can be told from all others: a full disk, a terminal that has gone."""

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


has_written = False
"""Whether something was written to standard output or error since `name_failures`.

It is no threading.Event: the end of the program writes what is left, and stops other threads wherever they are, with
an event's lock in hand, too.
"""


class StandardOutputError(OSError):
    """What a program prints cannot be written; the message is a sentence that says where it should have gone."""

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}"


class _Descriptor(io.FileIO):
    """A descriptor that says which one it is when it fails."""

    def __init__(self, number: int, called: str) -> None:
        super().__init__(number, "wb", closefd=False)
        self._called = called

    def write(self, data: "ReadableBuffer", /) -> int:
        global has_written  # noqa: PLW0603 - there is one standard output
        has_written = True
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StandardOutputError(error.errno, error.strerror, self._called) from None


def name_failures() -> None:
    """From now on failures to write to standard output or standard error are StandardOutputErrors."""
    sys.stdout = _named(sys.stdout, "standard output")
    sys.stderr = _named(sys.stderr, "standard error")


def give_up_output() -> None:
    """Have what is still to be written go nowhere, so that the end of the program does not fail for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _named(stream: TextIO, called: str) -> TextIO:
    """The same stream again; one that is no descriptor, as in a test, stays as it is."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        number = stream.fileno()
        stream.flush()
    except OSError:
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(number, called)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
