"""What the host wants of a guest of the server, done to its device and told to its driver."""

from collections.abc import Callable

from pagetide.host.device.allowance import WANTED, Use
from pagetide.host.device.lag import Lag
from pagetide.host.guest.cut_files import CutFiles
from pagetide.host.guest.observed import ObservedGuest, Parts
from pagetide.host.guest.wishes import Wishes
from pagetide.virtio.balloon import Feature, Queue


class SteeredGuest(ObservedGuest):
    """One guest that does as is wanted. Its methods raise GuestGoneError when it has gone.

    Attributes:
        wishes: what the host wants of it, and of all guests at the same socket.
        lag: how long reports waited, from when the queue was found ready to when they were given back. A report that
            comes while earlier ones are being served counts from when those came, so no time is told too short.
    """

    wishes: Wishes
    lag: Lag

    def __init__(
        self, name: str, parts: Parts, clock_ns: Callable[[], int], *, wishes: Wishes, cut_files: CutFiles
    ) -> None:
        """Want nothing new yet; whether it is paused or inhibited holds from the start.

        Args:
            name: what the log calls the guest.
            parts: what it is made of.
            clock_ns: as for `ObservedGuest`.
            wishes: what the host wants of it, and where to note what it comes to want.
            cut_files: looked at after each step in its rings.
        """
        super().__init__(name, parts, clock_ns)
        self.wishes = wishes
        self._cut_files = cut_files
        self._device.paused, self._device.inhibited = wishes.paused, wishes.inhibited
        self.lag = Lag()
        self._apart = False

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
        self._offer_queues()
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
        self._session.effects.keep_state()
        return self._session.notices.config_changed()

    def request_statistics(self) -> Use:
        """Ask for new memory statistics, if the guest has any to tell.

        Returns:
            What that was good for: the host wanted it.

        Raises:
            GuestGoneError: it could not be asked because it has gone.
        """
        asked = self._device.request_statistics()
        self._cut_files.check()
        if asked is not None and asked[1].call:
            self._session.notices.call(asked[0])
        return WANTED

    def serve_apart(self, apart: bool) -> None:
        """Whether from now on each turn is an action by itself, so that it can be timed: none is the loop's step's."""
        if apart and not self._apart:
            self._kicks.withdraw_all()
        self._apart = apart

    def _offer_queues(self) -> None:
        """Have the loop's step serve what only a kick makes ready, as things are now (queues/offered.py)."""
        for index, offered in self._kicks.quiet:
            skip = self._device.skip_if_served(index)
            if skip is None or self._apart or self._session.may_be_behind:
                offered.withdraw()
                continue
            offered.offer(
                self._memory.region_map.table,
                skip,
                connection_fd=self.fileno(),
                call_fd=self._session.notices.call_fd(index),
                faults=self._cut_files.faults,
                lag=self.lag.words,
            )

    def _renew_target(self) -> bool:
        """Ask for the target of what memory there is now; False if there is a change that it cannot be told of."""
        if not self.shared_bytes:
            return True
        before = self.config.num_pages
        self._device.set_target_bytes(self.wishes.target_bytes)
        return self.config.num_pages == before or self._session.notices.config_changed()
