"""The memory file in which a guest's state and account are kept: whoever is killed, one state in it is whole.

A head (`kept_head.py`), then two slots that are written by turns, each with its sequence number and a checksum, then
the account. Another release's account may have other words: it goes on with those that it has.
"""

import contextlib
import mmap
import os
import struct
import zlib

import numpy as np
import numpy.typing as npt

from pagetide import linux
from pagetide.host.device.kept_head import HEAD_BYTES, WORDS_ROOM, KeptHead, in_our_order
from pagetide.host.memory.ledger import LEDGER_WORDS

_SLOT_HEAD = struct.Struct("<QII")  # sequence number, bytes, checksum
_SLOT_BYTES = 1 << 16
_SLOTS_AT = (HEAD_BYTES, HEAD_BYTES + _SLOT_BYTES)
_WORDS_AT = HEAD_BYTES + 2 * _SLOT_BYTES


def new_kept_file() -> int:
    """A file without a state; its descriptor.

    Raises:
        OSError: there is no room.
    """
    fd = linux.sealed_memfd("pagetide-state", _WORDS_AT + WORDS_ROOM * 8)
    try:
        os.pwrite(fd, KeptHead().encode(), 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def read_head(fd: int) -> tuple[KeptHead, str]:
    """What a file's head says, and why this release cannot read the rest; empty if it can.

    Raises:
        UnreadableStateError: it is no such file.
    """
    head = KeptHead.decode(os.pread(fd, HEAD_BYTES, 0))
    room = (os.fstat(fd).st_size - _WORDS_AT) // 8
    short = "" if room >= LEDGER_WORDS else f"it has room for {room} words of account, and not for {LEDGER_WORDS}"
    return head, head.lack or short


class KeptFile:
    """One that this release can read.

    Attributes:
        head: as it is written.
        sequence: of the last state; 0 without one.
        words: the account.
    """

    head: KeptHead
    sequence: int
    words: npt.NDArray[np.int64]

    def __init__(self, fd: int) -> None:
        """Map the file; the descriptor is this object's, and closed.

        Raises:
            OSError: there is no room; the descriptor is the caller's.
        """
        self._file = mmap.mmap(fd, os.fstat(fd).st_size)
        os.close(fd)
        self.head = KeptHead.decode(self._file[:HEAD_BYTES])
        self.sequence = 0
        self._take_account()
        self.words = np.frombuffer(self._file, np.int64, LEDGER_WORDS, _WORDS_AT)

    def read(self) -> bytes | None:
        """The last state; None without one."""
        slots: list[tuple[int, bytes]] = []
        for at in _SLOTS_AT:
            sequence, size, checksum = _SLOT_HEAD.unpack_from(self._file, at)
            data = self._file[at + _SLOT_HEAD.size : at + _SLOT_HEAD.size + min(size, _SLOT_BYTES)]
            if sequence and zlib.crc32(data) == checksum:
                slots.append((sequence, data))
        if not slots:
            return None
        self.sequence, data = max(slots)
        return data

    def write(self, data: bytes, name: str, *, comes_back: bool) -> None:
        """Make this the state. It is so from one machine instruction on.

        Args:
            data: the state.
            name: the guest's, for the head.
            comes_back: the same.

        Raises:
            OSError: it has no room.
        """
        if len(data) > _SLOT_BYTES - _SLOT_HEAD.size:
            raise OSError("a guest's state is larger than there is room for")
        head = self.head._replace(name=name, comes_back=comes_back)
        if head != self.head:
            self._write_head(head)
        self.sequence += 1
        at = _SLOTS_AT[self.sequence % 2]
        self._file[at + _SLOT_HEAD.size : at + _SLOT_HEAD.size + len(data)] = data
        self._file[at : at + _SLOT_HEAD.size] = _SLOT_HEAD.pack(self.sequence, len(data), zlib.crc32(data))

    def close(self) -> None:
        """Let go of it, unless somebody still counts in it; `words` go on by themselves. May be repeated."""
        self.words = self.words.copy()
        with contextlib.suppress(BufferError):
            self._file.close()

    def _take_account(self) -> None:
        """Have the account in this release's order; a kill amid that has it begin anew."""
        names, ours = self.head.word_names, KeptHead(name=self.head.name, comes_back=self.head.comes_back)
        if self.head.words == ours.words and names in (ours.word_names, ()):
            return
        words = np.frombuffer(self._file, np.int64, -1, _WORDS_AT)
        moved = in_our_order(words, names)
        self._write_head(ours._replace(words=0, word_names=()))
        words[:] = 0
        words[: len(moved)] = moved
        self._write_head(ours)

    def _write_head(self, head: KeptHead) -> None:
        self.head = head
        self._file[:HEAD_BYTES] = head.encode()
