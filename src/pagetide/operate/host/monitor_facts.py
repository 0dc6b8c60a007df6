"""What QEMU's monitor tells, or libvirt of the same. All sizes are bytes; no names and no addresses."""

from typing import Literal

import msgspec

from pagetide.operate.sizes import Count, Size, Word


class MemoryBackend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A memory backend (`query-memdev`).

    Attributes:
        size_bytes: how large it is.
        is_shared: whether it is mapped shared; None for a QEMU that does not say.
        is_preallocated: whether QEMU touched all of it at its start.
    """

    size_bytes: Size
    is_shared: bool | None
    is_preallocated: bool


class VirtioMem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A virtio-mem device (`query-memory-devices`).

    Attributes:
        size_bytes: what is plugged.
        requested_bytes: what is to be plugged.
        max_bytes: what can be.
    """

    size_bytes: Size
    requested_bytes: Size
    max_bytes: Size


class MonitorFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a monitor says.

    Attributes:
        source: who said it.
        version: QEMU's.
        has_balloon: whether it has a balloon of its own.
        offers_reporting: whether that offers free page reporting; None without one, or if it could not be asked.
        ram_bytes: memory that the guest has, with what was plugged in.
        actual_bytes: memory that the guest has without what is in the balloon; None without one.
        backends: its memory backends.
        virtio_mem: its virtio-mem devices.
        statistics_age_s: how old the guest's statistics are; None if there are none.
        statistics_interval_s: how often QEMU asks for them; 0 for never, and then they stay as they first were.
        migration: `query-migrate`'s status; None if none was ever begun.
        run_state: `query-status`'s; None if it was not asked.
        takes_snapshot: whether a migration is a snapshot of a VM that goes on (background-snapshot).
    """

    source: Literal["QEMU's monitor", "libvirt"] = "QEMU's monitor"
    version: Word
    has_balloon: bool
    offers_reporting: bool | None
    ram_bytes: Size | None
    actual_bytes: Size | None
    backends: tuple[MemoryBackend, ...] = ()
    virtio_mem: tuple[VirtioMem, ...] = ()
    statistics_age_s: Count | None = None
    statistics_interval_s: Count | None = None
    migration: Word | None = None
    run_state: Word | None = None
    takes_snapshot: bool = False
