"""Files that are written whole or not at all, and a look at whether that will be possible."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path
from typing import TextIO

_MODE = 0o666


class TargetError(ValueError):
    """A file could not be written, and nothing was tried; the message is a sentence without a full stop."""


class UnwrittenError(OSError):
    """A file could not be written; the message is a sentence that names it, without a full stop."""

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}"


def check_writable(path: Path, what: str, *, makes_folders: bool = False) -> None:
    """Find out whether a file can be written before there is something to write: work must not be done in vain.

    Args:
        path: the file; it may not exist yet.
        what: what is to be in it, for the message.
        makes_folders: whether whoever writes it makes missing folders.

    Raises:
        TargetError: it cannot.
    """
    path = path.absolute()
    if path.is_dir():
        raise TargetError(f"{what} cannot be written to {path}: it is a folder")
    folder = path.parent
    while makes_folders and not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise TargetError(f"there is no folder {folder} to write {what} to")
    if not os.access(path if path.exists() else folder, os.W_OK, effective_ids=True):
        raise TargetError(f"{what} cannot be written to {path}: permission denied")
    if path.exists():
        return
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise TargetError(f"{what} cannot be written to {path}: {(error.strerror or '').lower()}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, so that at every moment there is the old one or the whole new one.

    What is not a plain file (a pipe, a terminal) is written straight into, and so is a file in a folder in which no
    other can be made.

    Raises:
        UnwrittenError: that cannot be.
    """
    with _named(path), _beside(path) as file:
        file.write(content)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """The same piece by piece, as UTF-8 with line ends as they are: takes its place once all of it is written.

    Raises:
        UnwrittenError: that cannot be.
    """
    with _named(path), _beside(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield text
        text.detach()  # writes what is left, and leaves the file to its owner


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """A write that fails does not say of which file it was."""
    try:
        yield
    except OSError as error:
        raise UnwrittenError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[BufferedWriter]:
    """A temporary file that is given the name when all is well; or the file itself."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            yield file
        return
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except PermissionError:
        with target.open("wb") as file:
            yield file
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, _mode(target))
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _mode(target: Path) -> int:
    """Of the file that is replaced, or what a new one would have."""
    if target.exists():
        return target.stat().st_mode & 0o7777
    umask = os.umask(0)
    os.umask(umask)
    return _MODE & ~umask
