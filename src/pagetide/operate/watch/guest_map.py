"""A VM's page map, read a piece at a time: from our daemon, or of any other VM from the kernel.

The kernel's /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst) says which pages a process has, in RAM or in
swap; whether a page was given back it does not say, so that is known only of what was seen to go.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from pagetide.host.device.allowance import CONTROL_BURST_S, SHARE
from pagetide.host.memory.page_map import HELD, NEVER, PARTIAL, REFAULTED, RETURNED, UNKNOWN, MapPiece
from pagetide.operate.host.control import ControlConnection, decode_told
from pagetide.operate.host.processes import ram_ranges
from pagetide.operate.watch.seen import Seen
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SIZE_BYTES

_BLOCK_PAGES = HUGE_PAGE_BYTES // PAGE_SIZE_BYTES
_THERE = np.uint64(3 << 62)  # present, or in swap
_PIECE_BLOCKS = 128
_TIMEOUT_S = 8.0

DAEMON_SHARE = SHARE / 4
"""Most of the time in which one who shows maps asks the daemon for pieces: all at its control socket have `SHARE`."""

DAEMON_BURST_S = CONTROL_BURST_S / 4
"""What may be asked of it at once, after some time without: the map of a guest of 4 GiB, whatever that holds."""

KERNEL_SHARE = 0.02
"""Most of the time in which pieces are asked of the kernel."""

REST_MAX_S = 5.0
"""Longest rest after a piece, however long that took."""


class Pace:
    """How long to ask for no piece of any map after one, for all maps that somebody reads."""

    def __init__(self, now_s: float) -> None:
        """Have asked for nothing yet."""
        self._left_s, self._as_of_s = DAEMON_BURST_S, now_s

    def rest_s(self, vm: Seen, took_s: float, now_s: float) -> float:
        """After one of this VM's that took so long and has just come; meanwhile the daemon serves guests."""
        if not vm.is_ours:
            return min(took_s * (1 / KERNEL_SHARE - 1), REST_MAX_S)
        grown_s = DAEMON_SHARE * (now_s - self._as_of_s)
        left_s = min(self._left_s + grown_s, DAEMON_BURST_S) - took_s
        self._left_s, self._as_of_s = max(left_s, -REST_MAX_S * DAEMON_SHARE), now_s
        return max(-self._left_s / DAEMON_SHARE, min(took_s, REST_MAX_S))


class MapError(Exception):
    """There is no map; the message says why."""


class MapSource(Protocol):
    """Where a map comes from."""

    def piece(self, first: int) -> MapPiece:
        """The piece that begins with this block.

        Raises:
            MapError: there is none.
        """


def source_of(vm: Seen, control: Path) -> MapSource:
    """Where the map of a VM comes from: from the daemon at this control socket, if it is that one's guest.

    Raises:
        MapError: its process may not be looked at.
    """
    if vm.is_ours:
        return DaemonMap(control, vm.name)
    assert vm.pid is not None, "who is not the daemon's was found by its process"
    try:
        return KernelMap(vm.pid, ram_ranges(vm.pid))
    except OSError as error:
        raise MapError(f"process {vm.pid} may not be looked at: {error.strerror}") from error


class GuestMap:
    """A map that is read again and again.

    Attributes:
        letters: a letter for each block, as of when it was read last; `UNKNOWN` before that.
        regions: where each region begins in the guest, its size and the number of its first block.
        rounds: how often all of it was read.
    """

    letters: bytearray
    regions: list[tuple[int, int, int]]
    rounds: int

    def __init__(self, source: MapSource) -> None:
        """Have read nothing yet."""
        self._source = source
        self.letters = bytearray()
        self.regions = []
        self.rounds = 0
        self._at = 0

    def read(self) -> bool:
        """Read the next piece; whether that was the last of a round.

        Raises:
            MapError: there is none.
        """
        piece = self._source.piece(self._at)
        if piece.regions != self.regions:  # memory came or went
            self.regions, self.letters = piece.regions, bytearray(UNKNOWN.encode() * piece.blocks)
            if self._at:
                self._at = 0
                return False
        self.letters[self._at : self._at + len(piece.states)] = piece.states.encode()
        self._at += len(piece.states)
        if self._at < piece.blocks and piece.states:
            return False
        self._at, self.rounds = 0, self.rounds + 1
        return True

    def counts(self) -> dict[str, int]:
        """How many blocks there are of each letter."""
        numbers = np.bincount(np.frombuffer(self.letters, np.uint8), minlength=128)
        return {chr(letter): int(numbers[letter]) for letter in np.flatnonzero(numbers)}


class _Answer(msgspec.Struct):
    page_map: MapPiece | None = None
    error: str | None = None


class DaemonMap:
    """The map of a guest of our daemon."""

    def __init__(self, control: Path, name: str) -> None:
        """Know whom to ask, and about whom."""
        self._control, self._name = control, name

    def piece(self, first: int) -> MapPiece:
        """The piece that begins with this block.

        Raises:
            MapError: the daemon does not answer, or has no such guest.
        """
        try:
            with ControlConnection(self._control, timeout_s=_TIMEOUT_S) as connection:
                connection.send({"command": "map", "guest": self._name, "first": first})
                answer = decode_told(connection.receive(), _Answer)
        except (OSError, msgspec.MsgspecError) as error:
            raise MapError(f"the daemon does not tell: {error}") from error
        if answer.page_map is None:
            raise MapError(answer.error or "the daemon tells no map")
        return answer.page_map


class KernelMap:
    """The map of any VM, by its process's page tables; addresses are the process's."""

    def __init__(self, pid: int, ranges: Sequence[tuple[int, int]]) -> None:
        """Know its process, and where in that its memory is: first address and end of each part."""
        self._path = Path(f"/proc/{pid}/pagemap")
        self._regions: list[tuple[int, int, int]] = []
        blocks = 0
        for start, end in ranges:
            self._regions.append((start, end - start, blocks))
            blocks += -(-(end - start) // HUGE_PAGE_BYTES)
        self._was_held = np.zeros(blocks, np.bool_)
        self._has_gone = np.zeros(blocks, np.bool_)

    def piece(self, first: int) -> MapPiece:
        """The piece that begins with this block.

        Raises:
            MapError: the process has gone, or may not be looked at.
        """
        letters = b""
        for start, size_bytes, before in self._regions:
            blocks = -(-size_bytes // HUGE_PAGE_BYTES)
            if before <= first < before + blocks:
                count = min(_PIECE_BLOCKS, before + blocks - first)
                into = first - before
                pages = min(count * _BLOCK_PAGES, size_bytes // PAGE_SIZE_BYTES - into * _BLOCK_PAGES)
                letters = self._letters(first, self._there(start // PAGE_SIZE_BYTES + into * _BLOCK_PAGES, pages))
        return MapPiece(first, len(self._was_held), letters.decode("ascii"), self._regions)

    def _there(self, page: int, pages: int) -> npt.NDArray[np.bool_]:
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(page * 8)
                words = np.frombuffer(file.read(pages * 8), np.uint64)
        except OSError as error:
            raise MapError(f"{self._path}: {error.strerror}") from error
        if len(words) < pages:
            raise MapError("the VM has ended")
        there: npt.NDArray[np.bool_] = words & _THERE != 0
        return there

    def _letters(self, first: int, there: npt.NDArray[np.bool_]) -> bytes:
        """The letters of blocks whose pages are or are not there, and what is to be remembered of them."""
        starts = np.arange(0, len(there), _BLOCK_PAGES)
        held = np.add.reduceat(there, starts, dtype=np.int64)
        whole = np.minimum(_BLOCK_PAGES, len(there) - starts)
        where = slice(first, first + len(starts))
        self._has_gone[where] |= self._was_held[where] & (held == 0)
        self._was_held[where] |= held > 0
        states = [held == 0, self._has_gone[where], held >= whole]
        gone = np.where(self._was_held[where], ord(RETURNED), ord(NEVER))
        letters: npt.NDArray[np.uint8] = np.select(
            states, [gone, np.full(len(starts), ord(REFAULTED)), np.full(len(starts), ord(HELD))], ord(PARTIAL)
        ).astype(np.uint8)
        return letters.tobytes()
