"""What is kept of one guest, so that a successor goes on with it whenever this process is killed.

All of it hangs on a descriptor box (descriptor_box.py). In the box are the connection, every descriptor that the guest
gave, and two memory files of ours:

- *State*: `kept_file.py`; `kept_state.py` is what is in it.
- *Replies*: every reply goes there before it goes to the connection, and it goes by sendfile(2). What has gone is the
  file's own position, which the kernel moves within that one call: a kill comes before it or after.

The descriptors of a state are in the box before the state that names them is written, and are taken out after the
next one no longer does.
"""

import contextlib
import fcntl
import logging
import os
import socket
import struct
from typing import Self

from pagetide import linux
from pagetide.host.device.kept_file import KeptFile, new_kept_file, read_head
from pagetide.host.device.kept_head import KeptHead
from pagetide.host.device.kept_state import GuestKept, UnreadableStateError, decode_kept, encode_kept
from pagetide.host.guest.descriptor_box import DescriptorBox
from pagetide.host.memory.ledger import Ledger

_PUNCH_BYTES = 1 << 16
_STATE, _REPLIES, _CONNECTION = range(3)  # numbers in the box
_HALF = "a guest was about to attach when the daemon before this one ended"
_FLOCK = struct.Struct("hhqqi4x")
_SENT, _WAITED_FOR = range(2)
"""Bytes of the file that goes with a reply; by locks on them it is known how that went."""

_log = logging.getLogger(__name__)


class OtherReleaseError(UnreadableStateError):
    """A guest was kept by a release that this one does not follow; the message says why.

    Attributes:
        head: what there is to know of it.
        connection: with its front-end, the caller's.
    """

    head: KeptHead
    connection: socket.socket

    def __init__(self, why: str, head: KeptHead, connection: socket.socket) -> None:
        super().__init__(why)
        self.head, self.connection = head, connection


class Keep:
    """One guest's.

    Attributes:
        key: what the box is called where it is kept.
        box: of descriptors.
        ledger: the guest's account, in the state file.
        kept: the state as it is written.
        fds: descriptors of what was in the box when it was opened, by number; for whoever restores the guest.
    """

    key: str
    box: DescriptorBox
    ledger: Ledger
    kept: GuestKept | None
    fds: dict[int, int]

    def __init__(self, key: str, box: DescriptorBox, state_fd: int, replies_fd: int) -> None:
        """Use these, which are this object's from now on. See `create` and `open`."""
        self.key, self.box, self._replies_fd = key, box, replies_fd
        self._file = KeptFile(state_fd)
        self.ledger = Ledger(self._file.words)
        self.kept, self.fds = None, {}
        self._numbers: dict[int, int] = {}
        self._replies_end = self._punched = 0
        self._always = {_STATE, _REPLIES, _CONNECTION}

    @classmethod
    def create(cls, key: str, connection_fd: int) -> Self:
        """Begin for a new guest.

        Raises:
            OSError: there is no room.
        """
        box = DescriptorBox()
        made: list[int] = []
        try:
            made.append(new_kept_file())
            made.append(linux.memfd_create("pagetide-replies"))
            for number, fd in enumerate((*made, connection_fd)):
                assert box.put(fd) == number
            return cls(key, box, *made)
        except OSError:
            for fd in made:
                with contextlib.suppress(OSError):
                    os.close(fd)
            box.close()
            raise

    @classmethod
    def open(cls, key: str, fds: tuple[int, int]) -> Self:
        """Take back what was kept of a guest; the ends of its box are this object's, or closed if there is an error.

        Raises:
            OtherReleaseError: it is another release's.
            UnreadableStateError: no release can read it.
            OSError: there is no room.
        """
        box = DescriptorBox(fds)
        try:
            found = box.open_all()
        except OSError:
            box.close()
            raise
        keep = None
        try:
            if not {_STATE, _REPLIES, _CONNECTION} <= found.keys():
                raise UnreadableStateError(_HALF)
            head, lack = read_head(found[_STATE])
            if lack:
                raise OtherReleaseError(lack, head, _connection(found))
            keep = cls(key, box, found[_STATE], found[_REPLIES])
            del found[_STATE], found[_REPLIES]
            keep._load(found)
        except (UnreadableStateError, OSError):
            for fd in found.values():
                with contextlib.suppress(OSError):
                    os.close(fd)
            if keep is None:
                box.close()
            else:
                keep.close()
            raise
        keep.fds = found
        keep._numbers = {fd: number for number, fd in found.items()}
        return keep

    @property
    def head(self) -> KeptHead:
        """What every release can read of it."""
        return self._file.head

    @property
    def sequence(self) -> int:
        """Of the state; 0 before the first."""
        return self._file.sequence

    def take_connection(self) -> int:
        """The connection's descriptor, the caller's."""
        return self.fds.pop(_CONNECTION)

    def note(self, fd: int) -> None:
        """Keep a descriptor that came; `number_of` knows it from now on.

        Raises:
            OSError: there is no room.
        """
        self._numbers[fd] = self.box.put(fd)

    def number_of(self, fd: int) -> int:
        """What a descriptor is called in a state; -1 for none."""
        return self._numbers[fd] if fd >= 0 else -1

    def write(self, state: GuestKept) -> None:
        """Make this the state. It is so from one machine instruction on.

        Raises:
            OSError: it has no room.
        """
        self._file.write(encode_kept(state), state.name, comes_back=bool(state.session.inflight))
        self.kept = state
        self.box.keep_only(state.fds | self._always)

    def add_reply(self, data: bytes) -> None:
        """Put a reply behind those that are to be sent, to be sent once a state with the new `replies_end` is written.

        Raises:
            OSError: there is no room.
        """
        os.pwrite(self._replies_fd, data, self._replies_end)
        self._replies_end += len(data)

    @property
    def replies_end(self) -> int:
        """Where the replies end."""
        return self._replies_end

    @property
    def unsent_bytes(self) -> int:
        """How much of the replies is still to be sent."""
        return self._replies_end - os.lseek(self._replies_fd, 0, os.SEEK_CUR)

    def send_replies(self, connection_fd: int) -> None:
        """Send what is to be sent.

        Raises:
            BlockingIOError: the peer takes no more now.
            BrokenPipeError, ConnectionResetError: it is gone.
        """
        while (left := self.unsent_bytes) > 0:
            os.sendfile(connection_fd, self._replies_fd, None, left)
        if self._replies_end - self._punched >= 2 * _PUNCH_BYTES:
            # The peer reads the file's own pages: whole ones that are punched live on until it has.
            end = self._replies_end // _PUNCH_BYTES * _PUNCH_BYTES
            linux.punch_hole(self._replies_fd, self._punched, end - self._punched)
            self._punched = end

    def unread_reply(self) -> bytes:
        """What is still to be sent, for one that cannot go by sendfile; then `replies_gone`."""
        return os.pread(self._replies_fd, self.unsent_bytes, os.lseek(self._replies_fd, 0, os.SEEK_CUR))

    def replies_sent(self, size_bytes: int) -> None:
        """So much of them was sent in another way."""
        os.lseek(self._replies_fd, size_bytes, os.SEEK_CUR)

    def replies_gone(self) -> None:
        """All replies were sent in another way."""
        os.lseek(self._replies_fd, self._replies_end, os.SEEK_SET)

    def close_rest(self) -> None:
        """Close what was in the box and is of no use."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds = {}

    def close(self) -> None:
        """Let go of it here; what a service manager or a successor has lives on."""
        self.close_rest()
        os.close(self._replies_fd)
        self.box.close()
        self.close_account()

    def close_account(self) -> None:
        """Let go of the account's file, unless a started queue still counts in it; the ledger goes on by itself."""
        self.ledger.words = self.ledger.words.copy()
        self._file.close()

    def _load(self, found: dict[int, int]) -> None:
        data = self._file.read()
        if data is None:
            raise UnreadableStateError(_HALF)
        try:
            self.kept = decode_kept(data)
        except UnreadableStateError as error:
            raise OtherReleaseError(str(error), self.head, _connection(found)) from error
        self._replies_end = self.kept.replies_end
        self._punched = self._replies_end // _PUNCH_BYTES * _PUNCH_BYTES


def mark_sent(fd: int) -> int:
    """A second open file of the same memory, to be sent, that `was_sent` knows again; the caller closes it."""
    copy = _opened_again(fd)
    fcntl.fcntl(copy, fcntl.F_OFD_SETLK, _lock(_SENT))
    return copy


def was_sent(fd: int) -> bool:
    """Whether a file of `mark_sent` for the same memory is open anywhere, or under way."""
    return _is_locked(fd, _SENT)


def mark_waited_for(fd: int, *, is_so: bool) -> None:
    """Note on the open file of a descriptor in the box that a peer waits for the reply with it, or that it does not."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _lock(_WAITED_FOR, fcntl.F_WRLCK if is_so else fcntl.F_UNLCK))


def was_waited_for(fd: int) -> bool:
    """What `mark_waited_for` noted last."""
    other = _opened_again(fd)  # a lock of its own no open file is told of
    try:
        return _is_locked(other, _WAITED_FOR)
    finally:
        os.close(other)


def _opened_again(fd: int) -> int:
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)


def _lock(place: int, kind: int = fcntl.F_WRLCK) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0)


def _is_locked(fd: int, place: int) -> bool:
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _lock(place))
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def _connection(found: dict[int, int]) -> socket.socket:
    """The connection that is in an opened box, once more.

    Raises:
        OSError: it is none.
    """
    fd = os.dup(found[_CONNECTION])
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise
