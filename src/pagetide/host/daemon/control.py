"""What can be asked of a running daemon: requests and answers, each one JSON object on a line. No I/O here.

A request names a command and, for all but `list`, a guest. An answer holds guests, or an error in one sentence. `add`
and `remove` are about the socket for a guest, and are answered with its path. After `take-over` the connection is no
longer ours (handover.py).

What is wanted is wanted of a socket: of every guest that is attached there, and of those that will be, so a guest that
must not lose a page (device assignment) never does. Where no guest has a name, it stands for the socket of that name.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from pagetide.host.daemon.guest_sockets import GuestSocket, GuestSockets
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.guest.wishes import TargetBytes, Wishes
from pagetide.host.memory.held import Held
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import Feature

LINE_BYTES_MAX = 4096
"""The longest request."""

Command = Literal[
    "list", "show", "set", "pause", "resume", "inhibit", "uninhibit", "hint", "add", "remove", "take-over"
]


class ControlledHost(Protocol):
    """What is controlled; `Server` says what each does."""

    @property
    def guests(self) -> tuple[AttachedGuest, ...]:
        """Those attached now."""

    @property
    def sockets(self) -> GuestSockets:
        """Where guests connect."""

    def hand_over(self) -> None:
        """Give everything to who asks, once this request is dealt with."""

    def look_for_refaults(self, guest: AttachedGuest) -> None:
        """Begin to count what has come back of what was discarded."""


class ControlRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request.

    Attributes:
        command: what to do.
        guest: for which guest, by its name.
        target_bytes: memory that the guest is to make do with; for `set`.
    """

    command: Command
    guest: str | None = None
    target_bytes: TargetBytes | None = None


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
        held: what the host holds of its memory in RAM and in swap, for `show`; None for other commands.
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


class ControlAnswer(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        guests: those that were asked for, as they are now.
        waiting: the same of sockets at which nobody is attached.
        socket: the path of the socket that was made or removed.
        error: why it could not be done.
        note: what else there is to know.
    """

    guests: list[GuestState] = []
    waiting: list[WaitingState] = []
    socket: str | None = None
    error: str | None = None
    note: str | None = None


class ControlError(Exception):
    """The daemon says no; the message says why."""


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
        held=guest.look_at_held() if held else None,
    )


def handle(line: bytes, host: ControlledHost) -> bytes:
    """Do what one line asks for; the answer's line, if it has one."""
    answer: ControlAnswer | None
    try:
        answer = _answer(msgspec.json.decode(line, type=ControlRequest), host)
    except msgspec.MsgspecError as error:
        return refusal(f"not a request: {error}")
    except (ControlError, GuestGoneError, ValueError) as error:
        return refusal(str(error))
    return b"" if answer is None else msgspec.json.encode(answer) + b"\n"


def refusal(reason: str) -> bytes:
    """The line that says why nothing was done."""
    return msgspec.json.encode(ControlAnswer(error=reason)) + b"\n"


def _answer(request: ControlRequest, host: ControlledHost) -> ControlAnswer | None:
    """The answer; None for `take-over`, which is no longer for the control socket to answer."""
    if request.command == "take-over":
        host.hand_over()
        return None
    if request.command == "list":
        return ControlAnswer(
            [state_of(guest) for guest in host.guests], list(map(_waiting_state, host.sockets.waiting))
        )
    if request.command == "add":
        return ControlAnswer(socket=str(host.sockets.add(request.guest or "")))
    if request.command == "remove":
        return ControlAnswer(socket=str(host.sockets.remove(request.guest or "")))
    guests = _named(request.guest, host)
    if guests:
        if request.command in {"show", "hint"}:
            del guests[1:]
        note = _act(request, guests, host)
        return ControlAnswer([state_of(guest, held=request.command == "show") for guest in guests], note=note)
    waiting = next((sock for sock in host.sockets.waiting if sock.name == request.guest), None)
    if waiting is None:
        raise ControlError(f"there is no guest {request.guest!r}")
    if request.command == "hint":
        raise ControlError(f"nobody is attached as {request.guest!r} who could be asked for hints")
    _want(request, waiting.wishes)
    note = None if request.command == "show" else f"nobody is attached at {waiting.path} yet; a guest will find it so"
    return ControlAnswer(waiting=[_waiting_state(waiting)], note=note)


def _named(name: str | None, host: ControlledHost) -> list[AttachedGuest]:
    """The guest of this name and then the others at its socket, or all who are attached at the socket of this name."""
    named = [guest for guest in host.guests if guest.name == name]
    if not named:
        attached = next((sock.attached for sock in host.sockets if sock.name == name), ())
        named = [guest for guest in host.guests if guest.name in attached]
    return named + [guest for guest in host.guests if guest not in named and guest.wishes in [n.wishes for n in named]]


def _waiting_state(sock: GuestSocket) -> WaitingState:
    return WaitingState(sock.name, sock.wishes.target_bytes, sock.wishes.paused, sock.wishes.inhibited)


def _want(request: ControlRequest, wishes: Wishes) -> bool:
    """Want it of the guests of a socket; whether anything was said to be wanted."""
    match request.command:
        case "set":
            if request.target_bytes is None:
                raise ControlError("set needs a target")
            wishes.want(target_bytes=request.target_bytes)
        case "pause" | "resume":
            wishes.want(paused=request.command == "pause")
        case "inhibit" | "uninhibit":
            wishes.want(inhibited=request.command == "inhibit")
        case _:
            return False
    return True


def _act(request: ControlRequest, guests: Sequence[AttachedGuest], host: ControlledHost) -> str | None:
    """Do it to all of them; what else there is to know."""
    told = True
    if _want(request, guests[0].wishes):
        told = _follow(guests)
    elif request.command == "hint":
        told = guests[0].begin_hinting()
    else:
        assert request.command == "show"
        host.look_for_refaults(guests[0])
    if not told:
        return "the guest cannot be told of the change and sees it when it looks"
    away = {guest.state for guest in guests if request.command == "set"} & {"no driver", "stopped"}
    return f"{guests[0].name} is told when its driver is there: {', '.join(sorted(away))}" if away else None


def _follow(guests: Sequence[AttachedGuest]) -> bool:
    """Have each do as is wanted, also if one of them has gone; whether all could be told.

    Raises:
        GuestGoneError: one has gone.
    """
    told, gone = True, None
    for guest in guests:
        try:
            told &= guest.follow_wishes()
        except GuestGoneError as error:
            gone = error
    if gone is not None:
        raise gone
    return told


class LineReader:
    """Cuts what comes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[bytes]:
        """The lines that are whole now.

        Raises:
            ControlError: a line is too long.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if any(len(line) > LINE_BYTES_MAX for line in (*lines, self._rest)):
            raise ControlError(f"a request is longer than {LINE_BYTES_MAX} bytes")
        return lines
