"""What a device was told and its driver takes for known: it must outlive the device, like what is in flight.

A driver is not told that its device was replaced. It does not write `poison_val` and `actual` again, and takes a hint
round's id that it has had for the round that it knows. So these are in the memory that the front-end keeps.
"""

import struct
from typing import NamedTuple, Self

_LAYOUT = struct.Struct("<5I")
_KEPT = 1  # a memory file begins as zeros
_POISON_KNOWN = 2

STATE_BYTES = _LAYOUT.size


class DeviceState(NamedTuple):
    """The part of a device's state that its driver wrote or has seen.

    Attributes:
        actual: pages in the balloon, as the driver says.
        poison_val: what free pages are filled with, as the driver says; None if that is not known.
        cmd_id: which round of free page hints the device wanted.
        next_cmd_id: the id of the round after it.
    """

    actual: int
    poison_val: int | None
    cmd_id: int
    next_cmd_id: int

    def encode(self) -> bytes:
        """As it is kept."""
        flags = _KEPT | (0 if self.poison_val is None else _POISON_KNOWN)
        return _LAYOUT.pack(flags, self.actual, self.poison_val or 0, self.cmd_id, self.next_cmd_id)

    @classmethod
    def decode(cls, kept: bytes) -> Self | None:
        """From what was kept; None if nothing was."""
        flags, actual, poison_val, cmd_id, next_cmd_id = _LAYOUT.unpack(kept)
        if not flags & _KEPT:
            return None
        return cls(actual, poison_val if flags & _POISON_KNOWN else None, cmd_id, next_cmd_id)
