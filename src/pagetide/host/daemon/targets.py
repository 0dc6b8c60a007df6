"""Which targets a guest can have, and which it can have without running out of memory."""

from collections.abc import Iterable
from typing import Protocol

from pagetide.units import PAGE_SIZE_BYTES, format_size
from pagetide.virtio.balloon import Config

_KEPT_SHARE = 8  # of what it shares a kernel may keep less out, as User-Mode Linux does with its own pages


class TargetError(Exception):
    """A guest is not to have this target; the message says why."""


class Sized(Protocol):
    """What of a guest decides; `AttachedGuest` says what each is."""

    @property
    def ram_bytes(self) -> int:
        """Memory that it has; 0 before it has shared any."""

    @property
    def config(self) -> Config:
        """Its configuration space."""

    @property
    def statistics(self) -> dict[str, int]:
        """Its own figures as told last."""


def used_bytes(guest: Sized) -> int | None:
    """What a guest could not do without, by its own statistics: what it has, but for its balloon and what is available.

    None if it has not told what is available (VIRTIO_BALLOON_S_AVAIL, virtio 1.2, 5.5.6.4), or has shared no memory.
    """
    available_bytes = guest.statistics.get("avail")
    if available_bytes is None or not guest.ram_bytes:
        return None
    return max(0, guest.ram_bytes - guest.config.actual * PAGE_SIZE_BYTES - available_bytes)


def check_targets(name: str, guests: Iterable[Sized], target_bytes: int, *, force: bool) -> None:
    """Let a target pass that is to be that of all guests at a socket.

    Args:
        name: of the guest, for people.
        guests: those who are attached; nobody need be.
        target_bytes: the target.
        force: whether less than a guest uses is meant.

    Raises:
        TargetError: it is nothing, or more than the guest has, or less than it uses and not meant.
    """
    if target_bytes == 0:
        raise TargetError(f"{name} cannot make do with no memory at all; target=none takes a target back")
    for guest in guests:
        if guest.ram_bytes:
            _check(name, guest, target_bytes, force=force)


def _check(name: str, guest: Sized, target_bytes: int, *, force: bool) -> None:
    if target_bytes > guest.ram_bytes + guest.ram_bytes // _KEPT_SHARE:
        raise TargetError(
            f"{name} has {format_size(guest.ram_bytes)} and cannot have {format_size(target_bytes)}; target=none lets "
            "it have all of it"
        )
    used = used_bytes(guest)
    if used is not None and target_bytes < used and not force:
        raise TargetError(
            f"{name} uses {format_size(used)} by its own statistics, and would run out of memory with "
            f"{format_size(target_bytes)}; --force sets that nevertheless"
        )
