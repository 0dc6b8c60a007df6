"""A finding: one reason why memory does not come back, and what to do."""

from typing import Literal

import msgspec

Where = Literal["guest", "QEMU", "libvirt", "pagetide", "host", "VM"]
"""Where a remedy is applied: VM means its definition, at its next start."""


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """What can be done.

    Attributes:
        where: where it is done.
        command: what to enter there, or what to change.
        note: what is to be known of it; empty if nothing is.
    """

    where: Where
    command: str
    note: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One reason.

    Attributes:
        cause: its name, for programs.
        size_bytes: how much of what the host holds is held for this reason; None where that cannot be said.
        sentence: what is so.
        evidence: what it was concluded from: figures, and where each was read.
        remedies: what can be done, the best first; none where waiting is all.
        returns_bytes: what should come back once the first remedy was applied; None where nobody can tell.
        cost: what the first remedy costs.
        coming_s: it comes back without a remedy within so many seconds; None if it does not.
    """

    cause: str
    size_bytes: int | None
    sentence: str
    evidence: tuple[str, ...]
    remedies: tuple[Remedy, ...] = ()
    returns_bytes: int | None = None
    cost: str = ""
    coming_s: float | None = None
