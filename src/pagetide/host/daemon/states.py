"""What the daemon tells of a guest, and of a socket that waits for one."""

import functools

import msgspec
import numpy as np
import numpy.typing as npt

from pagetide.host.daemon.guest_sockets import GuestSocket
from pagetide.host.daemon.guests import Standing
from pagetide.host.device.figures import ROUND_US, GuestFigures
from pagetide.host.device.lag import Lag
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.memory.held import Held
from pagetide.host.memory.ledger import WORD_NAMES
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import Feature

_MALFORMED = ("malformed", "inflate_malformed", "deflate_malformed")
_MALFORMED_AT = tuple(WORD_NAMES.index(name) for name in _MALFORMED)


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
        lag: how long its reports waited to be acknowledged: `count` of them, `p50_us`, `p99_us` and `max_us`, and
            `sum_us` of all together.
        lag_within: of these, how many waited no longer than so many microseconds, for a few of them.
        ledger: every word of its account.
        account: a number that changes when `ledger`, `lag` and `errors` begin anew.
        waiting: elements in each of its queues that are still to be served.
        errors: what went wrong, by kind: `ring`, `discard` (`AttachedGuest.errors`), and `malformed` descriptors.
        allowance_spent_s: the daemon's time that it has used in vain, of which it has but a small share.
        resting: it is not served for now, because it used more than that.
        given_up: how many guests at its socket were given up, this one's predecessors.
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
    lag_within: list[tuple[int, int]]
    ledger: dict[str, int]
    statistics: dict[str, int]
    socket: str | None
    state: str
    account: int
    waiting: dict[str, int]
    errors: dict[str, int]
    allowance_spent_s: float
    resting: bool
    given_up: int
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
        given_up: how many guests there were given up.
    """

    name: str
    target_bytes: int | None
    paused: bool
    inhibited: bool
    given_up: int = 0
    attached: bool = False


def state_of(guest: AttachedGuest, standing: Standing, *, held: bool = False) -> GuestState:
    """What is known of a guest, with what is held of its memory or without."""
    config, sizes, lag = guest.config, guest.sizes, guest.lag
    ledger = guest.ledger.snapshot()
    malformed = sum(ledger[name] for name in _MALFORMED)
    return GuestState(
        guest.name,
        sizes.ram_bytes,
        sizes.shared_bytes,
        max(0, sizes.ram_bytes - config.num_pages * PAGE_SIZE_BYTES),
        config.actual * PAGE_SIZE_BYTES,
        _feature_names(guest.features),
        guest.paused,
        guest.inhibited,
        guest.hinting,
        _lag_figures(lag),
        list(zip(ROUND_US, lag.within(), strict=True)),
        ledger,
        guest.statistics,
        None if guest.wishes.socket_path is None else str(guest.wishes.socket_path),
        guest.state,
        guest.account,
        guest.waiting,
        {**guest.errors, "malformed": malformed},
        *standing,
        held_bytes=sizes.held_bytes,
        held=guest.look_at_held() if held else None,
    )


def figures_of(guest: AttachedGuest, standing: Standing, words: npt.NDArray[np.intp]) -> GuestFigures:
    """What is measured of a guest, with these words of its ledger."""
    spent_s, resting, given_up = standing
    config, lag, account, wrong, sizes = guest.config, guest.lag, guest.ledger.words, guest.errors, guest.sizes
    return GuestFigures(
        guest.name,
        guest.account,
        guest.state,
        given_up,
        resting,
        spent_s,
        *sizes,
        max(0, sizes.ram_bytes - config.num_pages * PAGE_SIZE_BYTES),
        config.actual * PAGE_SIZE_BYTES,
        guest.waiting,
        guest.statistics,
        account[words].tolist(),
        (lag.count, -(-lag.sum_ns // 1000)),
        lag.within(),
        (wrong["ring"], wrong["discard"], sum(map(account.item, _MALFORMED_AT))),
    )


@functools.cache
def _feature_names(features: int) -> list[str]:
    return [feature.name for feature in Feature if feature & features and feature.name]


def _lag_figures(lag: Lag) -> dict[str, int]:
    """In microseconds, rounded up."""
    return {
        "count": lag.count,
        "p50_us": -(-lag.quantile_ns(0.5) // 1000),
        "p99_us": -(-lag.quantile_ns(0.99) // 1000),
        "max_us": -(-lag.max_ns // 1000),
        "sum_us": -(-lag.sum_ns // 1000),
    }


def waiting_state(sock: GuestSocket) -> WaitingState:
    """What is wanted of the guest that will connect there."""
    wishes = sock.wishes
    return WaitingState(sock.name, wishes.target_bytes, wishes.paused, wishes.inhibited, sock.given_up)
