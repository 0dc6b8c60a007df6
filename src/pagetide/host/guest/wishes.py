"""What the host wants of a guest, apart from its connection, and a file beside the guest's socket that keeps it.

A guest that comes back finds what was wanted as it was, also at a daemon that was started after the first one was
killed or stopped: a guest with an assigned device must not lose a page because its daemon was replaced. A wish is in
the file before it takes effect, and the file is replaced whole, so that whoever dies when, it holds one or the other.
"""

import logging
import os
from pathlib import Path
from typing import Annotated

import msgspec

from pagetide.units import format_size

KEPT_SUFFIX = ".wishes.json"
"""What follows the socket's name in the name of the file."""

_log = logging.getLogger(__name__)

_NEW_SUFFIX = ".new"
_BYTES_MAX = 4096


TargetBytes = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""What a target can be."""


class _Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    target_bytes: TargetBytes | None = None
    paused: bool = False
    inhibited: bool = False


_NOTHING = _Wanted()


class Wishes:
    """What is wanted of the guest of one socket.

    Attributes:
        socket_path: the socket's; None for a guest that came otherwise.
    """

    socket_path: Path | None

    def __init__(self, socket_path: Path | None = None) -> None:
        """Want what a daemon before this one wanted, or nothing.

        Args:
            socket_path: of the guest's socket; without one nothing is kept beyond this object's life.

        Raises:
            OSError: what was left there cannot be read, or was not left by a daemon of this user.
        """
        self.socket_path = None if socket_path is None else socket_path.resolve()
        self._path = None if socket_path is None else socket_path.with_name(socket_path.name + KEPT_SUFFIX)
        self._wanted = _NOTHING if self._path is None else _read(self._path)

    @property
    def target_bytes(self) -> int | None:
        """Memory that the guest is to make do with; None for all of it."""
        return self._wanted.target_bytes

    @property
    def paused(self) -> bool:
        """Whether its reports are to stay in the ring."""
        return self._wanted.paused

    @property
    def inhibited(self) -> bool:
        """Whether nothing of it is to be discarded."""
        return self._wanted.inhibited

    def want(
        self,
        *,
        target_bytes: int | None = None,
        no_target: bool = False,
        paused: bool | None = None,
        inhibited: bool | None = None,
    ) -> None:
        """Change what is given, and keep it; `no_target` takes a target back.

        Raises:
            ValueError: it cannot be kept; nothing has changed.
        """
        old = self._wanted
        new = _Wanted(
            None if no_target else old.target_bytes if target_bytes is None else target_bytes,
            old.paused if paused is None else paused,
            old.inhibited if inhibited is None else inhibited,
        )
        if new != old and self._path is not None:
            try:
                _write(self._path, new)
            except OSError as error:
                raise ValueError(
                    f"this cannot be kept for a daemon after this one, so it is not done: {error}"
                ) from error
        self._wanted = new
        if new != old and self.socket_path is not None:
            _log.info("wanted: %s", self if str(self) else "nothing", extra={"guest": self.socket_path.stem})

    def forget(self) -> None:
        """Want nothing any more, and leave no file.

        Raises:
            OSError: the file stays; nothing has changed.
        """
        if self._path is not None:
            _write(self._path, _NOTHING)
        self._wanted = _NOTHING

    def __str__(self) -> str:
        """What is wanted, in a few words; nothing if nothing is."""
        words = [name for name in ("paused", "inhibited") if getattr(self, name)]
        if self.target_bytes is not None:
            words.append(f"target {format_size(self.target_bytes)}")
        return ", ".join(words)


def _read(path: Path) -> _Wanted:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return _NOTHING
    with os.fdopen(fd, "rb") as file:
        owner = os.fstat(fd).st_uid
        data = file.read(_BYTES_MAX)
    try:
        if owner != os.geteuid():
            raise ValueError(f"it is user {owner}'s")
        return msgspec.json.decode(data, type=_Wanted)
    except ValueError as error:  # msgspec's are, too
        raise OSError(f"{path} is not what a daemon of ours left ({error}); remove it to begin anew") from error


def _write(path: Path, wanted: _Wanted) -> None:
    new = path.with_name(path.name + _NEW_SUFFIX)
    if wanted == _NOTHING:
        for left in (new, path):
            left.unlink(missing_ok=True)
        return
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(wanted))
    new.replace(path)
