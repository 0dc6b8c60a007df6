"""What can be asked of a running daemon: requests and answers, each one JSON object on a line. No I/O here.

A request names a command and, but for `list`, `figures` and `kept`, a guest. An answer holds guests, or an error in one
sentence. `add` and `remove` are about the socket for a guest, and are answered with its path; `kept` is for who is
about to replace the daemon. After `take-over` the connection is no longer ours (handover.py). To tell of very many
guests at once keeps all of them waiting, so who asks again and again asks for `figures`, and a few at a time; so it is
with `map`, which tells a piece of a guest's page map.

What is wanted is wanted of a socket: of every guest that is attached there, and of those that will be, so a guest that
must not lose a page (device assignment) never does. Where no guest has a name, it stands for the socket of that name.
"""

import bisect
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import msgspec
import numpy as np

from pagetide.host.daemon.guest_sockets import GuestSocket, GuestSockets
from pagetide.host.daemon.guests import Standing
from pagetide.host.daemon.states import (
    GuestState,
    WaitingState,
    figures_of,
    state_of,
    waiting_state,
)
from pagetide.host.daemon.targets import TargetError, check_targets
from pagetide.host.device.figures import GuestFigures
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.guest.wishes import TargetBytes, Wishes
from pagetide.host.memory.ledger import WORD_NAMES
from pagetide.host.memory.page_map import MapPiece

Command = Literal[
    "list", "figures", "show", "set", "pause", "resume", "inhibit", "uninhibit", "hint", "map", "add", "remove",
    "kept", "take-over",
]  # fmt: skip

_ABOUT_SOCKETS = frozenset({"list", "figures", "kept", "add", "remove"})


class ControlledHost(Protocol):
    """What is controlled; `Server` says what each does."""

    @property
    def guests(self) -> tuple[AttachedGuest, ...]:
        """Those attached now."""

    @property
    def guests_by_name(self) -> Sequence[AttachedGuest]:
        """The same, in the order of their names."""

    @property
    def sockets(self) -> GuestSockets:
        """Where guests connect."""

    def standing(self, guest: AttachedGuest) -> Standing:
        """How one of them stands with the loop."""

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
        no_target: for `set`, that it is to have all of its memory, instead.
        force: for `set`, also if that is less than the guest uses.
        most: for `list` and `figures`, how many guests and sockets are wanted at most, in the order of their names.
        after: for the same, only those whose names come after this one.
        words: for `figures`, which of the ledger's words are wanted.
        first: for `map`, the number of the block with which it is to begin.
    """

    command: Command
    guest: str | None = None
    target_bytes: TargetBytes | None = None
    no_target: bool = False
    force: bool = False
    most: Annotated[int, msgspec.Meta(ge=1)] | None = None
    after: str | None = None
    words: list[str] = []
    first: Annotated[int, msgspec.Meta(ge=0)] = 0


class KeptTold(msgspec.Struct, frozen=True):
    """How a guest is kept for a daemon after this one.

    Attributes:
        name: the guest's.
        version: of the layout; 0 if the guest is not kept.
        words: of its account.
        has_names: whether these have names.
        comes_back: whether its front-end reconnects, and nothing is lost by that.
    """

    name: str
    version: int
    words: int
    has_names: bool
    comes_back: bool


class ControlAnswer(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        guests: those that were asked for, as they are now.
        waiting: the same of sockets at which nobody is attached.
        socket: the path of the socket that was made or removed.
        error: why it could not be done.
        note: what else there is to know.
        more_after: with `most`, the name after which there are more; None if that is all.
        figures: for `figures`, those of the guests that were asked for.
        page_map: for `map`, the piece of the guest's page map.
        kept: for `kept`, how each guest is kept.
    """

    guests: list[GuestState] = []
    waiting: list[WaitingState] = []
    socket: str | None = None
    error: str | None = None
    note: str | None = None
    more_after: str | None = None
    page_map: MapPiece | None = None
    kept: list[KeptTold] = []
    figures: list[GuestFigures] = []


class ControlError(Exception):
    """The daemon says no; the message says why."""


def handle(line: bytes, host: ControlledHost) -> bytes:
    """Do what one line asks for; the answer's line, if it has one."""
    answer: ControlAnswer | None
    try:
        answer = _answer(msgspec.json.decode(line, type=ControlRequest), host)
    except msgspec.MsgspecError as error:
        return refusal(f"not a request: {error}")
    except (ControlError, TargetError, GuestGoneError, ValueError) as error:
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
    if request.command in _ABOUT_SOCKETS:
        return _about_sockets(request, host)
    guests = _named(request.guest, host)
    if request.command == "map":
        return _map(request, guests, host)
    if guests:
        if request.command in {"show", "hint"}:
            del guests[1:]
        note = _act(request, guests, host)
        held = request.command == "show"
        return ControlAnswer([state_of(guest, host.standing(guest), held=held) for guest in guests], note=note)
    waiting = next((sock for sock in host.sockets.waiting if sock.name == request.guest), None)
    if waiting is None:
        raise ControlError(f"there is no guest {request.guest!r}")
    if request.command == "hint":
        raise ControlError(f"nobody is attached as {request.guest!r} who could be asked for hints")
    _want(request, waiting.wishes, [])
    note = None if request.command == "show" else f"nobody is attached at {waiting.path} yet; a guest will find it so"
    return ControlAnswer(waiting=[waiting_state(waiting)], note=note)


def _about_sockets(request: ControlRequest, host: ControlledHost) -> ControlAnswer:
    """The answer to what is not about one guest that is attached."""
    if request.command in {"list", "figures"}:
        return _list(request, host)
    if request.command == "kept":
        return ControlAnswer(kept=[_kept(guest) for guest in host.guests])
    change = host.sockets.add if request.command == "add" else host.sockets.remove
    return ControlAnswer(socket=str(change(request.guest or "")))


def _map(request: ControlRequest, guests: Sequence[AttachedGuest], host: ControlledHost) -> ControlAnswer:
    """A piece of a guest's page map; whoever begins one wants to know what has come back, too."""
    if not guests:
        raise ControlError(f"nobody is attached as {request.guest!r} who has a page map")
    if request.first == 0:
        host.look_for_refaults(guests[0])
    return ControlAnswer(page_map=guests[0].look_at_blocks(request.first))


def _list(request: ControlRequest, host: ControlledHost) -> ControlAnswer:
    """All who are attached and all sockets that wait, or as many of them as are wanted after a name.

    Raises:
        ControlError: words are wanted that the ledger has not.
    """
    unknown = set(request.words) - set(WORD_NAMES)
    if unknown:
        raise ControlError(f"the ledger has no {', '.join(sorted(unknown))}")
    words = np.array([WORD_NAMES.index(name) for name in request.words], np.intp)
    everyone: list[AttachedGuest | GuestSocket] = [*host.guests, *host.sockets.waiting]
    more_after = None
    if request.most is not None:
        after, guests = request.after or "", host.guests_by_name
        first = bisect.bisect_right(guests, after, key=lambda guest: guest.name)
        everyone = [*guests[first : first + request.most + 1]]
        everyone += [sock for sock in host.sockets.waiting if sock.name > after]
        everyone.sort(key=lambda each: each.name)
        if len(everyone) > request.most:
            more_after = everyone[request.most - 1].name
            del everyone[request.most :]
    answer = ControlAnswer([], [], more_after=more_after)
    for each in everyone:
        if isinstance(each, GuestSocket):
            answer.waiting.append(waiting_state(each))
        elif request.command == "figures":
            answer.figures.append(figures_of(each, host.standing(each), words))
        else:
            answer.guests.append(state_of(each, host.standing(each)))
    return answer


def _kept(guest: AttachedGuest) -> KeptTold:
    if guest.keep is None:
        return KeptTold(guest.name, 0, 0, has_names=False, comes_back=guest.may_come_back)
    head = guest.keep.head
    return KeptTold(guest.name, head.version, head.words, bool(head.word_names), guest.may_come_back)


def _named(name: str | None, host: ControlledHost) -> list[AttachedGuest]:
    """The guest of this name and then the others at its socket, or all who are attached at the socket of this name."""
    named = [guest for guest in host.guests if guest.name == name]
    if not named:
        attached = next((sock.attached for sock in host.sockets if sock.name == name), ())
        named = [guest for guest in host.guests if guest.name in attached]
    return named + [guest for guest in host.guests if guest not in named and guest.wishes in [n.wishes for n in named]]


def _want(request: ControlRequest, wishes: Wishes, guests: Sequence[AttachedGuest]) -> bool:
    """Want it of the guests of a socket, those who are there; whether anything was said to be wanted."""
    match request.command:
        case "set" if request.no_target:
            wishes.want(no_target=True)
        case "set":
            if request.target_bytes is None:
                raise ControlError("set needs a target")
            check_targets(request.guest or "", guests, request.target_bytes, force=request.force)
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
    if _want(request, guests[0].wishes, guests):
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
