"""What the daemon tells of a guest, and of a socket that waits for one."""

import msgspec

from pagetide.host.daemon.guest_sockets import GuestSocket
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.memory.held import Held
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import Feature


class GuestState(msgspec.Struct, frozen=True):
    """A guest as the daemon sees it.

    Attributes:
        name: its name.
        state: `serving`, `no driver`, `stopped`, `needs reset`, `no shared memory`, `paused` or `inhibited`, as
            `AttachedGuest` has it.
        attached: True.
        ram_bytes: memory that it has, as well as its statistics and what is populated tell.
        shared_bytes: memory that it has shared, which is more if a virtio-mem device is not plugged to its full size.
        target_bytes: memory that it is to make do with.
        balloon_bytes: what its driver says is in the balloon.
        features: the balloon's features that were negotiated.
        paused: reports wait in the ring.
        inhibited: nothing is discarded.
        hinting: a round of free page hints is asked for or under way.
        lag: how long its reports waited to be acknowledged: `count` of them, and `p50_us`, `p99_us` and `max_us`.
        ledger: every word of its account.
        statistics: its own memory statistics, as told last.
        socket: the path at which it connected; None if it came otherwise.
        held_bytes: what the host holds of its memory, in RAM and in swap, by the memory files' own count.
        held: what of that is in RAM and what in swap, for `show`; None for other commands.
    """

    name: str
    ram_bytes: int
    shared_bytes: int
    target_bytes: int
    balloon_bytes: int
    features: list[str]
    paused: bool
    inhibited: bool
    hinting: bool
    lag: dict[str, int]
    ledger: dict[str, int]
    statistics: dict[str, int]
    socket: str | None
    state: str
    attached: bool = True
    held_bytes: int = 0
    held: Held | None = None


class WaitingState(msgspec.Struct, frozen=True):
    """A socket at which nobody is attached.

    Attributes:
        name: of the guest that will be.
        attached: False.
        target_bytes: memory that it is to make do with; None for all of it.
        paused: its reports will wait in the ring.
        inhibited: nothing will be discarded.
    """

    name: str
    target_bytes: int | None
    paused: bool
    inhibited: bool
    attached: bool = False


def state_of(guest: AttachedGuest, *, held: bool = False) -> GuestState:
    """What is known of a guest, with what is held of its memory or without."""
    config, ram_bytes = guest.config, guest.ram_bytes
    names = [feature.name for feature in Feature if feature & guest.features and feature.name]
    return GuestState(
        guest.name,
        ram_bytes,
        guest.shared_bytes,
        max(0, ram_bytes - config.num_pages * PAGE_SIZE_BYTES),
        config.actual * PAGE_SIZE_BYTES,
        names,
        guest.paused,
        guest.inhibited,
        guest.hinting,
        {
            "count": guest.lag.count,
            "p50_us": -(-guest.lag.quantile_ns(0.5) // 1000),
            "p99_us": -(-guest.lag.quantile_ns(0.99) // 1000),
            "max_us": -(-guest.lag.max_ns // 1000),
        },
        guest.ledger.snapshot(),
        guest.statistics,
        None if guest.wishes.socket_path is None else str(guest.wishes.socket_path),
        guest.state,
        held_bytes=guest.held_bytes,
        held=guest.look_at_held() if held else None,
    )


def waiting_state(sock: GuestSocket) -> WaitingState:
    """What is wanted of the guest that will connect there."""
    return WaitingState(sock.name, sock.wishes.target_bytes, sock.wishes.paused, sock.wishes.inhibited)
