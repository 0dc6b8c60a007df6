"""One guest of the server: its balloon device, its memory and its connection, joined, and what the host wants of it."""

import contextlib
import functools
import logging
import os
import socket
import time
from collections.abc import Callable

from pagetide import bus_error
from pagetide.host.device.allowance import IN_VAIN, PAID_MESSAGES, STEP, WANTED, Use
from pagetide.host.device.balloon import FEATURES, BalloonDevice
from pagetide.host.device.kept_state import GuestKept, SessionKept
from pagetide.host.device.lag import Lag
from pagetide.host.device.queues.element import ELEMENTS_PER_TURN
from pagetide.host.guest.fd_events import READABLE, FdEvents
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.guest.keep import Keep
from pagetide.host.guest.kicks import Kicks
from pagetide.host.guest.session import VhostUserSession
from pagetide.host.guest.signals import not_signalled
from pagetide.host.guest.wishes import Wishes
from pagetide.host.memory.guest_memory import GuestMemory, SharedMemoryLimit
from pagetide.host.memory.held import Held, HeldLook
from pagetide.host.memory.ledger import REFAULTED_BYTES, Ledger
from pagetide.virtio.balloon import Config, Feature, Queue
from pagetide.virtio.split_ring.ring import RingError

_log = logging.getLogger(__name__)


class AttachedGuest:
    """One guest. Its methods raise GuestGoneError when it has gone, or broken a rule beyond repair.

    Attributes:
        name: what the log calls it.
        wishes: what the host wants of it, and of all guests at the same socket.
        ledger: what was done for it.
        lag: how long reports waited, from when the queue was found ready to when they were given back. A report that
            comes while earlier ones are being served counts from when those came, so no time is told too short.
        keep: where it is kept for a successor of this process, if it is.
        waits_since_s: since when nothing goes on because the peer does not read or leaves a message half sent.
    """

    name: str
    wishes: Wishes
    ledger: Ledger
    lag: Lag
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
        self.name = name
        self.keep = keep
        self.ledger = ledger
        self._log = logging.LoggerAdapter(_log, {"guest": name})
        self._events = events
        self._on_work = on_work
        self._memory = GuestMemory(memory_limit)
        self._device = BalloonDevice(self._memory, ledger, verify_share=verify_share)
        self.wishes = Wishes() if wishes is None else wishes
        self._device.paused, self._device.inhibited = self.wishes.paused, self.wishes.inhibited
        self.lag = Lag()
        self.waits_since_s = None
        self._apart = False
        self._clock_ns = clock_ns
        self._held = HeldLook(clock_ns)
        self._fault_count = bus_error.fault_count()
        self._faults = self._fault_count.value
        self._failure_logged = 0
        self._kicks = Kicks(events, functools.partial(on_work, self))
        self._session = VhostUserSession(
            sock,
            events,
            self._memory,
            self._device,
            self._kicks,
            features=features,
            on_memory_changed=self._renew_target,
            keep=keep,
            describe=self._describe,
            on_session=self._account_anew,
            log=self._log,
        )

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._session.fileno()

    @property
    def has_work(self) -> bool:
        """Whether a turn would do something."""
        return self._kicks.any_ready

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
        self._session.keep_state()

    def let_go(self) -> None:
        """Leave everything as it is for a successor, and close it here."""
        self._session.let_go()
        self._memory.close()

    @property
    def may_come_back(self) -> bool:
        """Whether its front-end keeps what a daemon needs that it finds after this one, so that it will reconnect."""
        return self._session.inflight.is_used

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
        messages = self._session.talk()
        self._check_files()
        if self._session.end:
            raise GuestGoneError(self._session.end)
        if messages or not self._session.waits_for_peer:
            self.waits_since_s = None
        if self.waits_since_s is None and self._session.waits_for_peer:
            self.waits_since_s = self._clock_ns() / 1e9
        self._offer()
        return (STEP if messages <= PAID_MESSAGES else IN_VAIN)._replace(earned_s=self._kicks.take_earned_s())

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
            turn = self._device.process(index, ELEMENTS_PER_TURN) if left is None else left.turn()
            self._check_files()
        except RingError as error:
            self._check_files()
            self._session.fail_queue(index, str(error))
            return IN_VAIN if left is None else left.use(IN_VAIN)
        call, more, config_changed, in_vain, payable, pages, reports, failure = turn
        if left is not None and left.call_error:
            raise not_signalled(OSError(left.call_error, os.strerror(left.call_error)), left.call_s)
        if call:
            self._session.call(index)
        if reports:
            self.lag.note(self._clock_ns() - self._kicks.since_ns(index), reports)
        if more:
            self._kicks.make_ready(index)
        elif not self.paused:
            self._kicks.emptied(index)
        if config_changed:
            self._session.keep_state()
            self._session.tell_config_changed()
        if failure and failure != self._failure_logged:
            self._failure_logged = failure
            self._log.error("memory that was given back could not be discarded: fallocate: %s", os.strerror(failure))
        if not more:
            self._offer()
        use = Use(in_vain, payable, pages)
        return use if left is None else left.use(use)

    def serve_apart(self) -> None:
        """From now on each turn is an action by itself, so that it can be timed: none is the loop's step's."""
        self._apart = True
        self._kicks.withdraw_all()

    def _offer(self) -> None:
        """Have the loop's step serve what only a kick makes ready, as things are now."""
        for index, offered in self._kicks.quiet:
            skip = self._device.skip_if_served(index)
            if skip is None or self._apart:
                offered.withdraw()
                continue
            offered.offer(
                self._memory.region_map.table,
                skip,
                call_fd=self._session.call_fd(index),
                faults=self._faults,
                lag=self.lag.words,
            )

    @property
    def features(self) -> int:
        """What the driver accepted."""
        return self._session.features

    @property
    def config(self) -> Config:
        """The configuration space as it is now."""
        return self._device.config.fields

    @property
    def ram_bytes(self) -> int:
        """Memory that the guest has, as well as it can be told; 0 before it has shared any."""
        return self._device.ram_bytes

    @property
    def memory_is_ram(self) -> bool:
        """Whether all that it shares is in memory files, where we wait for nothing but what their owner does."""
        return self._memory.is_ram

    @property
    def shared_bytes(self) -> int:
        """Memory that the guest has shared, which may be more than it has (virtio-mem)."""
        return self._device.target.shared_bytes

    @property
    def held_bytes(self) -> int:
        """What the host holds of it, in RAM and in swap (`GuestMemory.held_bytes`)."""
        return self._memory.held_bytes

    @property
    def statistics(self) -> dict[str, int]:
        """The guest's memory statistics as told last, by name."""
        return self._device.statistics

    @property
    def paused(self) -> bool:
        """Whether reports stay in the ring for now, so that none is lost."""
        return self._device.paused

    @property
    def inhibited(self) -> bool:
        """Whether nothing of this guest's is discarded."""
        return self._device.inhibited

    @property
    def hinting(self) -> bool:
        """Whether a round of free page hints is asked for or under way."""
        return self._device.hinting

    @property
    def state(self) -> str:
        """What is done for it, in one word or two: `serving`, or the first of these that holds.

        `needs reset` after a broken ring; `no shared memory` if its queues are in RAM that is private to its front-end
        (with QEMU memory-backend-ram, or share=off), of which nothing can be given back; `no driver` before one has
        started a queue; `stopped` while the VM stands still, or after its driver has gone without a reset; `paused`;
        `inhibited`.
        """
        wanted = "paused" if self.paused else "inhibited" if self.inhibited else "serving"
        return self._session.state or wanted

    def look_at_held(self) -> Held:
        """What the host holds of its memory in RAM and in swap; ask again while that is being counted."""
        return self._held.step(self._memory.regions)

    @property
    def looking(self) -> bool:
        """Whether a look is under way."""
        return self._memory.looking

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
        self._offer()

    def set_target_bytes(self, target_bytes: int) -> bool:
        """Want the guest to make do with this much memory; False and errors as `follow_wishes`.

        Raises:
            ValueError: it cannot be kept for a daemon after this one.
            GuestGoneError: it could not be told because it has gone.
        """
        self.wishes.want(target_bytes=target_bytes)
        return self.follow_wishes()

    def follow_wishes(self) -> bool:
        """Do as is wanted of it now; False if it cannot be told of a new target, and only sees it by polling.

        Raises:
            GuestGoneError: it could not be told because it has gone.
        """
        self._device.inhibited = self.wishes.inhibited
        index = self._device.queues.index_of(Queue.REPORTING)
        if self.paused and not self.wishes.paused and index is not None:
            self._kicks.make_ready(index)
        self._device.paused = self.wishes.paused
        self._offer()
        if self.wishes.target_bytes is not None:
            self.request_statistics()  # the target holds for the memory that it has now
        return self._renew_target()

    def begin_hinting(self) -> bool:
        """Ask for a round of free page hints; False as for `follow_wishes`.

        Raises:
            ValueError: the guest has not accepted free page hinting, or its driver is not there to hint.
            GuestGoneError: it could not be told because it has gone.
        """
        if not self.features & Feature.FREE_PAGE_HINT:
            raise ValueError(f"{self.name} has not accepted free page hinting (VIRTIO_BALLOON_F_FREE_PAGE_HINT)")
        if self._session.state:
            raise ValueError(f"{self.name} cannot be asked for hints now: {self._session.state}")
        self._device.begin_hinting()
        self._session.keep_state()
        return self._session.tell_config_changed()

    def request_statistics(self) -> Use:
        """Ask for new memory statistics, if the guest has any to tell.

        Returns:
            What that was good for: the host wanted it.

        Raises:
            GuestGoneError: it could not be asked because it has gone.
        """
        asked = self._device.request_statistics()
        self._check_files()
        if asked is not None and asked[1].call:
            self._session.call(asked[0])
        return WANTED

    def _describe(self, session: SessionKept) -> GuestKept:
        path = self.wishes.socket_path
        return GuestKept(self.name, None if path is None else str(path), session)

    def _check_files(self) -> None:
        """Give the guest up if one of its files was cut short: what was read since then is not what it wrote."""
        faults = self._fault_count.value
        if faults == self._faults:
            return
        self._faults = faults
        if self._memory.was_cut or self._session.inflight.was_cut:
            raise GuestGoneError("its memory file was cut short while it was in use, or has no huge page left")

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
        self.lag = Lag()
        self._failure_logged = 0

    def _renew_target(self) -> bool:
        """Ask for the target of what memory there is now; False if there is a change that it cannot be told of."""
        if not self.shared_bytes:
            return True
        before = self.config.num_pages
        self._device.set_target_bytes(self.wishes.target_bytes)
        return self.config.num_pages == before or self._session.tell_config_changed()
