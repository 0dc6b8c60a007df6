"""One guest of the server: its balloon device, its memory and its connection, joined and served."""

import contextlib
import functools
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable

from pagetide.host.device.allowance import IN_VAIN, PAID_MESSAGES, STEP, WANTED, Use
from pagetide.host.device.balloon import FEATURES, BalloonDevice
from pagetide.host.device.kept_state import GuestKept, SessionKept
from pagetide.host.device.lag import Lag
from pagetide.host.device.queues.element import ELEMENTS_PER_TURN
from pagetide.host.device.queues.offered import LeftTurn
from pagetide.host.guest.cut_files import CutFiles
from pagetide.host.guest.fd_events import READABLE, FdEvents
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.guest.keep import Keep
from pagetide.host.guest.kicks import Kicks
from pagetide.host.guest.observed import Parts
from pagetide.host.guest.session import VhostUserSession
from pagetide.host.guest.signals import not_signalled
from pagetide.host.guest.steered import SteeredGuest
from pagetide.host.guest.wishes import Wishes
from pagetide.host.memory.guest_memory import GuestMemory, SharedMemoryLimit
from pagetide.host.memory.ledger import REFAULTED_BYTES, Ledger
from pagetide.virtio.split_ring.ring import RingError

_accounts = itertools.count()
_log = logging.getLogger(__name__)


class AttachedGuest(SteeredGuest):
    """One guest. Its methods raise GuestGoneError when it has gone, or broken a rule beyond repair.

    Attributes:
        ledger: what was done for it.
        account: tells this account from any other that this process has had: a number, and a new one whenever the
            account and `lag` begin anew.
        keep: where it is kept for a successor of this process, if it is.
        waits_since_s: since when nothing goes on because the peer does not read or leaves a message half sent.
    """

    ledger: Ledger
    account: int
    keep: Keep | None
    waits_since_s: float | None

    def __init__(
        self,
        name: str,
        sock: socket.socket,
        ledger: Ledger,
        events: FdEvents,
        on_work: Callable[["AttachedGuest"], None],
        *,
        verify_share: float,
        features: int = int(FEATURES),
        wishes: Wishes | None = None,
        memory_limit: SharedMemoryLimit | None = None,
        keep: Keep | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take over a connected socket.

        Args:
            name: what the log calls the guest.
            sock: the connection.
            ledger: where to account for what is done.
            events: where to watch kick descriptors.
            on_work: called whenever `has_work` becomes true.
            verify_share: share of the elements whose discarding is read back.
            features: what to offer the driver.
            wishes: what the host wants of it, and where to note what it comes to want.
            memory_limit: how much memory it may share, maybe together with others.
            keep: where to keep it; one with a state is a predecessor's, and `restore` is to follow.
            clock_ns: the time, the same as that of `events`.
        """
        self.keep = keep
        self.ledger = ledger
        self.account = next(_accounts)
        self.waits_since_s = None
        self._log = logging.LoggerAdapter(_log, {"guest": name})
        self._events = events
        self._on_work = on_work
        self._clock_ns = clock_ns
        self._failure_logged = self._failures = 0
        memory = GuestMemory(memory_limit)
        device = BalloonDevice(memory, ledger, verify_share=verify_share)
        kicks = Kicks(events, functools.partial(on_work, self))
        session = VhostUserSession(
            sock,
            events,
            memory,
            device,
            kicks,
            features=features,
            on_memory_changed=self._renew_target,
            keep=keep,
            describe=self._describe,
            on_session=self._account_anew,
            log=self._log,
        )
        super().__init__(
            name,
            Parts(device, memory, kicks, session),
            clock_ns,
            wishes=Wishes() if wishes is None else wishes,
            cut_files=CutFiles(memory, session),
        )

    @property
    def has_work(self) -> bool:
        """Whether a turn would do something now: kicks wait for messages that came before them."""
        return self._kicks.any_ready and not self._session.is_behind

    def rest(self) -> None:
        """Hear nothing more from the guest, and serve nothing, until `go_on`: messages and elements wait."""
        self._events.unwatch(self.fileno())
        self._kicks.rest()

    def go_on(self, talk: Callable[[], None]) -> None:
        """Hear the guest again: call `talk` when messages come, and look into every queue for what came meanwhile."""
        self._events.watch(self.fileno(), READABLE, talk)
        self._kicks.go_on()

    def restore(self) -> None:
        """Go on where a predecessor was.

        Raises:
            GuestGoneError: it cannot be gone on with.
        """
        assert self.keep is not None
        assert self.keep.kept is not None
        self._session.restore(self.keep.kept.session, self.keep.fds)
        self.follow_wishes()

    def keep_state(self) -> None:
        """Keep what there is for a successor, as is done by itself after each change."""
        self._session.effects.keep_state()

    def let_go(self) -> None:
        """Leave everything as it is for a successor, and close it here."""
        self._session.let_go()
        self._memory.close()

    @property
    def may_come_back(self) -> bool:
        """Whether its front-end keeps what a daemon needs that it finds after this one, so that it will reconnect."""
        return self._session.effects.inflight.is_used

    def close(self) -> None:
        """Give back all that is held for the guest; each part also if another cannot be."""
        with contextlib.ExitStack() as parts:
            parts.callback(self._memory.close)
            parts.callback(self._session.close)

    def talk(self) -> Use:
        """Take what messages have come, and answer them; not more than some at a time.

        Returns:
            What that was good for: messages return no memory.

        Raises:
            GuestGoneError: it hung up, or cannot be served any more.
        """
        self._kicks.withdraw_all()  # what messages change
        earned_pages = self._kicks.take_earned_pages()
        messages = self._session.talk()
        self._cut_files.check()
        if self._session.end:
            raise GuestGoneError(self._session.end, left=True)
        if messages or not self._session.waits_for_peer:
            self.waits_since_s = None
        if self.waits_since_s is None and self._session.waits_for_peer:
            self.waits_since_s = self._clock_ns() / 1e9
        if self.has_work:
            self._on_work(self)
        self._offer_queues()
        use = STEP if messages <= PAID_MESSAGES else IN_VAIN
        return use._replace(earned_pages=earned_pages) if earned_pages else use

    def end_wait(self) -> Use:
        """The peer was waited for long enough.

        Returns:
            What that was good for.

        Raises:
            GuestGoneError: it does not go on now.
        """
        use = self.talk()
        if self._session.waits_for_peer:
            raise GuestGoneError("does not read its replies, or leaves a message half sent")
        return use

    def turn(self) -> Use:
        """Serve one of the queues that have elements waiting, within a turn's limits.

        Returns:
            What that was good for.
        """
        index = self._kicks.take_ready()
        left = self._kicks.take_left(index)
        try:
            use = self._served(index, left)
        except GuestGoneError as error:
            error.held_up_s += 0.0 if left is None else left.used_s
            raise
        return use if left is None else left.use(use)

    def _served(self, index: int, left: LeftTurn | None) -> Use:
        """Take a turn on a queue, or one that the loop's step has left, and do what is to be done after it."""
        try:
            turn = self._device.process(index, ELEMENTS_PER_TURN) if left is None else left.turn()
            self._cut_files.check()
        except RingError as error:
            self._cut_files.check()
            self._session.effects.fail_queue(index, str(error))
            return IN_VAIN
        call, more, config_changed, in_vain, payable, pages, reports, failure = turn
        if left is not None and left.call_error:
            raise not_signalled(OSError(left.call_error, os.strerror(left.call_error)), left.blocked_s)
        if call:
            self._session.notices.call(index)
        if reports:
            self.lag.note(self._clock_ns() - self._kicks.since_ns(index), reports)
        if more or (left is not None and self._kicks.again):
            self._kicks.make_ready(index)
        elif not self.paused:
            self._kicks.emptied(index)
        if config_changed:
            self._session.effects.keep_state()
            self._session.notices.config_changed()
        self._failures += bool(failure)
        if failure and failure != self._failure_logged:
            self._failure_logged = failure
            self._log.error("memory that was given back could not be discarded: fallocate: %s", os.strerror(failure))
        if not more:
            self._offer_queues()
        return Use(in_vain, payable, pages, earned_pages=self._kicks.take_earned_pages())

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong since the account began, by kind.

        `ring`: a queue was broken beyond repair but by a reset; `discard`: turns in which a discarding call failed.
        """
        return {"ring": self._session.effects.failed_queues, "discard": self._failures}

    def look_for_refaults(self) -> Use:
        """Look at a piece of its memory for what was discarded and is resident again, and count it in the ledger.

        Returns:
            What that was good for: the host wanted it.

        Raises:
            GuestGoneError: its memory cannot be looked at.
        """
        try:
            self.ledger.words[REFAULTED_BYTES] += self._memory.take_refaulted_bytes()
        except OSError as error:
            raise GuestGoneError(f"its memory cannot be looked at: {error}") from error
        return WANTED

    def finish(self) -> None:
        """Serve what is in its rings now, and nothing that comes later."""
        self._device.queues.finish()
        self._offer_queues()

    def _describe(self, session: SessionKept) -> GuestKept:
        path = self.wishes.socket_path
        return GuestKept(self.name, None if path is None else str(path), session)

    def log_account(self) -> None:
        """Log what was done for it, when nobody can ask for that any more."""
        figures = {name: value for name, value in self.ledger.snapshot().items() if value}
        if figures:
            _log.info("account", extra={"guest": self.name, "figures": figures})

    def _account_anew(self) -> None:
        """A front-end owns the device anew: what was done for the one before is in the log."""
        self._log.info("attached anew on the same connection")
        self.log_account()
        self.ledger.words[:] = 0
        self.lag, self.account = Lag(), next(_accounts)
        self._failure_logged = self._failures = self._session.effects.failed_queues = 0
