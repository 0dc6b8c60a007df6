"""Who is attached, what is done for each of them and at whose cost, and what becomes of those who go."""

import contextlib
import functools
import logging
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from pagetide.foreign_fds import Closer
from pagetide.host.daemon.guest_sockets import GuestSocket
from pagetide.host.daemon.keeper import Keeper
from pagetide.host.device.allowance import GUEST_BURST_S, START_S, Use
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.guest.fd_events import READABLE, FdEvents
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.sharing.costs import Costs
from pagetide.host.sharing.hold_ups import HoldUps
from pagetide.host.sharing.patience import Patience
from pagetide.host.sharing.refault_looks import RefaultLooks

_T = TypeVar("_T")
OUR_ERROR = "an error in pagetide, please report it"

_HELD_UP = "kept everybody waiting for %.3f s by what is done to its memory file, and rests"

_log = logging.getLogger(__name__)


class Left(NamedTuple):
    """What a guest that has gone leaves to where it came from.

    Attributes:
        origin: where it connected, if that was at a socket.
        held_until_s: until when it would have rested for keeping everybody waiting; 0 if it would not.
    """

    origin: GuestSocket | None
    held_until_s: float


class Standing(NamedTuple):
    """How a guest stands with the loop that serves it.

    Attributes:
        allowance_spent_s: all of the loop's time that it has used in vain since it connected (allowance.py).
        resting: whether it is not served for now, because it used too much.
        given_up: how many guests at its socket were given up until now.
    """

    allowance_spent_s: float
    resting: bool
    given_up: int


class Guests:
    """Those who are attached, in the order in which they came.

    Whatever is done for one of them goes through one fence, so that a mistake of ours costs that guest its connection,
    and the others nothing.
    """

    def __init__(
        self,
        events: FdEvents,
        costs: Costs[Hashable],
        patience: Patience[Hashable],
        hold_ups: HoldUps,
        keeper: Keeper | None,
        *,
        on_busy: Callable[[], None],
        on_left: Callable[[Left], None],
        on_gone: Callable[[AttachedGuest, str], None] | None,
        clock_s: Callable[[], float],
    ) -> None:
        """Have nobody.

        Args:
            events: where to watch connections.
            costs: of which they are parties.
            patience: with those who do not read; `end_wait` is to be called when it ends.
            hold_ups: notices those who keep the loop waiting.
            keeper: where they are kept, if they are.
            on_busy: called before anything is done for one.
            on_left: called when one has gone and all it had is given back.
            on_gone: called after that with a sentence why, if it was not let go by us.
            clock_s: the time.
        """
        self._events = events
        self._costs = costs
        self._patience = patience
        self._hold_ups = hold_ups
        self._keeper = keeper
        self._on_busy = on_busy
        self._on_left = on_left
        self._on_gone = on_gone
        self._clock_s = clock_s
        self._looks: RefaultLooks[AttachedGuest] = RefaultLooks()
        self._closer = Closer()  # of those who came otherwise than by a socket
        self._origins: dict[AttachedGuest, GuestSocket | None] = {}
        self._by_name: list[AttachedGuest] | None = None
        self._working: dict[AttachedGuest, None] = {}  # a set that keeps its order

    def __iter__(self) -> Iterator[AttachedGuest]:
        return iter(self._origins)

    def __len__(self) -> int:
        return len(self._origins)

    def __contains__(self, guest: AttachedGuest) -> bool:
        return guest in self._origins

    @property
    def by_name(self) -> Sequence[AttachedGuest]:
        """All of them, in the order of their names."""
        if self._by_name is None:
            self._by_name = sorted(self._origins, key=lambda guest: guest.name)
        return self._by_name

    @property
    def have_work(self) -> bool:
        """Whether somebody's turn would do something."""
        return bool(self._working)

    @property
    def pending(self) -> tuple[Collection[object], ...]:
        """What is empty, and stays the same object, while nothing is to be done for anybody before something comes."""
        return self._working, self._looks.wanted

    def enter(self, guest: AttachedGuest, origin: GuestSocket | None) -> None:
        """One is attached, and heard from now on."""
        self._events.watch(guest.fileno(), READABLE, functools.partial(self.talk, guest))
        self._costs.enter(guest, GUEST_BURST_S if origin is None else START_S, at=origin)
        self._origins[guest], self._by_name = origin, None
        if origin is not None:
            origin.attached.append(guest.name)

    def free_name(self, wanted: str, others: set[str]) -> str:
        """A name that neither a guest has nor another socket's guest will have, by the names of those."""
        taken = {guest.name for guest in self} | (others - {wanted})
        names = (f"{wanted}-{number}" if number > 1 else wanted for number in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    def standing(self, guest: AttachedGuest) -> Standing:
        """How one stands with the loop."""
        origin = self._origins[guest]
        given_up = 0 if origin is None else origin.given_up
        return Standing(self._costs.spent_s(guest), self._costs.is_resting(guest), given_up)

    def note_work(self, guest: AttachedGuest) -> None:
        """One has elements waiting."""
        if guest in self._origins:
            self._working[guest] = None

    def turns(self) -> None:
        """Give each guest with elements waiting a turn."""
        turns = list(self._working)
        self._working.clear()
        for guest in turns:
            if guest.has_work:
                self.attempt(guest, guest.turn)
                if guest.has_work:
                    self.note_work(guest)

    def finish(self, max_s: float) -> None:
        """Serve what is in their rings now, and nothing that comes later, for at most so long."""
        for guest in tuple(self):
            self.fenced(guest, guest.finish)
        end_s = self._clock_s() + max_s
        while turns := tuple(guest for guest in self if guest.has_work):
            if self._clock_s() > end_s:
                names = ", ".join(guest.name for guest in turns)
                _log.warning("not all is served after %g s, and is left in the rings of %s", max_s, names)
                return
            for guest in turns:
                self.attempt(guest, guest.turn)

    def talk(self, guest: AttachedGuest) -> None:
        """Take a guest's messages, and note whether it keeps its connection from going on."""
        self.attempt(guest, guest.talk)
        self._patience.note(guest, guest.waits_since_s if guest in self._origins else None)

    def want_look(self, guest: AttachedGuest) -> None:
        """Have what has come back of what was discarded counted, by and by."""
        self._looks.want(guest)

    def look(self, guest: AttachedGuest) -> None:
        """Look at a piece of a guest's memory."""
        start_s = self._clock_s()
        self.attempt(guest, guest.look_for_refaults)
        self._looks.looked(guest, start_s, self._clock_s(), more=guest.looking)

    def look_if_due(self) -> None:
        """Look at a piece of the memory whose turn it is."""
        due = self._looks.take_due(self._clock_s())
        if due is not None:
            self.look(due)

    def until_look_s(self, timeout_s: float) -> float:
        """For how long to sleep: this long (for ever if negative), but not longer than until a look is due."""
        return self._looks.until_next_s(self._clock_s(), timeout_s)

    def attempt(self, guest: AttachedGuest, action: Callable[[], Use]) -> None:
        """Do something for a guest, if it is attached still, at its cost as far as that was in vain."""
        if guest not in self._origins:
            return
        self._on_busy()
        self._hold_ups.begin(guest)
        use = self.fenced(guest, action)
        if use is None:
            return
        used_s = self._costs.lap_s()
        held_s = self._hold_ups.end(guest, used_s)
        self._hold_ups.note(guest, use.blocked_s)
        guest.serve_apart(self._hold_ups.watches(guest))
        if held_s and guest.memory_is_ram and self._costs.hold_up(guest, held_s):
            _log.warning(_HELD_UP, held_s, extra={"guest": guest.name})
            self._rest(guest)
        if guest in self._origins and self._costs.account(guest, use, used_s + use.served_s):
            self._rest(guest)

    def fenced(self, guest: AttachedGuest, action: Callable[[], _T]) -> _T | None:
        """Do something for a guest: what the action says, or None if it raised something and the guest is given up."""
        origin = self._origins.get(guest)
        try:
            with self._closer if origin is None else origin.closer:
                return action()
        except GuestGoneError as error:
            reason, held_up_s, left = str(error), error.held_up_s, error.left
        except Exception as error:
            _log.exception(OUR_ERROR, extra={"guest": guest.name})
            reason, held_up_s, left = f"an error in pagetide: {error!r}", 0.0, False
        self._costs.charge(guest, self._costs.lap_s() + held_up_s)
        self.end(guest, reason, left=left)
        return None

    def charge(self, guest: AttachedGuest, used_s: float) -> None:
        """Charge a guest with what it used in vain; if its allowance is used up, it rests."""
        if self._costs.charge(guest, used_s):
            self._rest(guest)

    def go_on(self, guest: AttachedGuest) -> None:
        """Hear somebody again whose rest is over."""
        self.fenced(guest, functools.partial(guest.go_on, functools.partial(self.talk, guest)))
        self.talk(guest)

    def end(self, guest: AttachedGuest, reason: str, *, left: bool) -> None:
        """Let a guest go that has left, or that is given up."""
        origin = self._origins.get(guest)
        if origin is not None:
            origin.given_up += not left
        _log.log(logging.INFO if left else logging.ERROR, "%s", reason, extra={"guest": guest.name})
        self.release(guest)
        if self._on_gone is not None:
            self._on_gone(guest, reason)

    def release(self, guest: AttachedGuest) -> None:
        """Let a guest go, and give back all that is held for it."""
        left = self.forget(guest)
        try:
            guest.log_account()
            self._events.unwatch(guest.fileno())
            with self._closer if left.origin is None else left.origin.closer, contextlib.ExitStack() as parts:
                if guest.keep is not None:
                    parts.callback(guest.keep.close_account)  # last: until then its queues count there
                parts.callback(guest.close)
                if guest.keep is not None and self._keeper is not None:
                    parts.callback(self._keeper.end, guest.keep)  # first: what it keeps holds the memory, too
        except Exception:  # it has gone all the same
            _log.exception(OUR_ERROR, extra={"guest": guest.name})
        self._on_left(left)

    def let_go(self, guest: AttachedGuest) -> None:
        """Leave a guest as it is for a successor."""
        self._events.unwatch(guest.fileno())
        guest.let_go()
        self.forget(guest)

    def forget(self, guest: AttachedGuest) -> Left:
        """It is attached no more."""
        held_until_s = self._costs.rests_until_s(guest) if self._hold_ups.is_suspect(guest) else 0.0
        self._working.pop(guest, None)
        self._looks.forget(guest)
        self._patience.note(guest, None)
        self._hold_ups.forget(guest)
        origin = self._origins.pop(guest)
        self._by_name = None
        if origin is not None:
            origin.attached.remove(guest.name)
        self._costs.leave(guest)
        return Left(origin, held_until_s)

    def _rest(self, guest: AttachedGuest) -> None:
        self.fenced(guest, guest.rest)
        self._working.pop(guest, None)
