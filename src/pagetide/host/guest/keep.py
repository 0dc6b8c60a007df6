"""What is kept of one guest, so that a successor goes on with it whenever this process is killed.

All of it hangs on a descriptor box (descriptor_box.py). In the box are the connection, every descriptor that the guest
gave, and two memory files of ours:

- *State*: a head with the layout's version, then two slots that are written by turns, each with its sequence number and
  a checksum, so that one of them is whole at any time (`kept_state.py` is what is in it); then the guest's account.
- *Replies*: every reply goes there before it goes to the connection, and it goes by sendfile(2). What has gone is the
  file's own position, which the kernel moves within that one call: a kill comes before it or after.

The descriptors of a state are in the box before the state that names them is written, and are taken out after the
next one no longer does.
"""

import contextlib
import fcntl
import logging
import mmap
import os
import struct
import zlib
from typing import Self

import numpy as np

from pagetide import linux
from pagetide.host.device.kept_state import VERSION, GuestKept, UnreadableStateError, decode_kept, encode_kept
from pagetide.host.guest.descriptor_box import DescriptorBox
from pagetide.host.memory.ledger import LEDGER_WORDS, Ledger

_MAGIC = b"pagetide"
_HEAD = struct.Struct("<8sII")  # magic, version, words of the account
_SLOT_HEAD = struct.Struct("<QII")  # sequence number, bytes, checksum
_SLOTS_AT = 4096
_SLOT_BYTES = 1 << 16
_WORDS_AT = _SLOTS_AT + 2 * _SLOT_BYTES
_STATE_BYTES = _WORDS_AT + LEDGER_WORDS * 8
_PUNCH_BYTES = 1 << 16
_STATE, _REPLIES, _CONNECTION = range(3)  # numbers in the box
_FLOCK = struct.Struct("hhqqi4x")

_log = logging.getLogger(__name__)


class Keep:
    """One guest's.

    Attributes:
        key: what the box is called where it is kept.
        box: of descriptors.
        ledger: the guest's account, in the state file.
        kept: the state as it is written.
        sequence: of that state; 0 before the first.
        fds: descriptors of what was in the box when it was opened, by number; for whoever restores the guest.
    """

    key: str
    box: DescriptorBox
    ledger: Ledger
    kept: GuestKept | None
    sequence: int
    fds: dict[int, int]

    def __init__(self, key: str, box: DescriptorBox, state_fd: int, replies_fd: int) -> None:
        """Use these, which are this object's from now on. See `create` and `open`."""
        self.key, self.box, self._replies_fd = key, box, replies_fd
        self._file = mmap.mmap(state_fd, _STATE_BYTES)
        os.close(state_fd)
        self.ledger = Ledger(np.frombuffer(self._file, np.int64, LEDGER_WORDS, _WORDS_AT))
        self.kept, self.sequence, self.fds = None, 0, {}
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
            made.append(linux.sealed_memfd("pagetide-state", _STATE_BYTES))
            os.pwrite(made[0], _HEAD.pack(_MAGIC, VERSION, LEDGER_WORDS), 0)
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
            UnreadableStateError: it cannot be read, or is another version's.
            OSError: there is no room.
        """
        box = DescriptorBox(fds)
        try:
            found = box.open_all()
        except OSError:
            box.close()
            raise
        try:
            if not {_STATE, _REPLIES, _CONNECTION} <= found.keys():
                raise UnreadableStateError("a guest was about to attach when the daemon before this one ended")
            _check_head(found[_STATE])
            keep = cls(key, box, found[_STATE], found[_REPLIES])
            found.pop(_STATE)
            found.pop(_REPLIES)
            keep._load()
        except (UnreadableStateError, OSError):
            for fd in found.values():
                with contextlib.suppress(OSError):
                    os.close(fd)
            box.close()
            raise
        keep.fds = found
        keep._numbers = {fd: number for number, fd in found.items()}
        return keep

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
        data = encode_kept(state)
        if len(data) > _SLOT_BYTES - _SLOT_HEAD.size:
            raise OSError("a guest's state is larger than there is room for")
        sequence = self.sequence + 1
        at = _SLOTS_AT + sequence % 2 * _SLOT_BYTES
        self._file[at + _SLOT_HEAD.size : at + _SLOT_HEAD.size + len(data)] = data
        self._file[at : at + _SLOT_HEAD.size] = _SLOT_HEAD.pack(sequence, len(data), zlib.crc32(data))
        self.kept, self.sequence = state, sequence
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
        if self._file.closed:
            return
        self.ledger.words = self.ledger.words.copy()
        with contextlib.suppress(BufferError):
            self._file.close()

    def _load(self) -> None:
        found: list[tuple[int, bytes]] = []
        for at in (_SLOTS_AT, _SLOTS_AT + _SLOT_BYTES):
            sequence, size, checksum = _SLOT_HEAD.unpack_from(self._file, at)
            data = self._file[at + _SLOT_HEAD.size : at + _SLOT_HEAD.size + min(size, _SLOT_BYTES)]
            if sequence and zlib.crc32(data) == checksum:
                found.append((sequence, data))
        if not found:
            raise UnreadableStateError("a guest was about to attach when the daemon before this one ended")
        self.sequence, data = max(found)
        self.kept = decode_kept(data)
        self._replies_end = self.kept.replies_end
        self._punched = self._replies_end // _PUNCH_BYTES * _PUNCH_BYTES


def mark_sent(fd: int) -> int:
    """A second open file of the same memory, to be sent, that `was_sent` knows again; the caller closes it."""
    copy = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    fcntl.fcntl(copy, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return copy


def was_sent(fd: int) -> bool:
    """Whether a file of `mark_sent` for the same memory is open anywhere, or under way."""
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def _check_head(state_fd: int) -> None:
    data = os.pread(state_fd, _HEAD.size, 0)
    magic, version, words = _HEAD.unpack(data) if len(data) == _HEAD.size else (b"", 0, 0)
    if magic != _MAGIC:
        raise UnreadableStateError("it is no guest of a pagetide daemon's")
    if version != VERSION or words != LEDGER_WORDS or os.fstat(state_fd).st_size != _STATE_BYTES:
        raise UnreadableStateError(
            f"a guest was kept in version {version} with {words} words of account, and this daemon reads version "
            f"{VERSION} with {LEDGER_WORDS}"
        )
