"""A block queue as the loop's compiled step finds it: its arrays by address, and how it is to be served.

Whoever owns the queue offers it while nothing but a kick is needed to serve it, and withdraws it before anything that
is written here may change. What the step does not finish by itself it leaves here, for its owner to take.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.host.device.allowance import Use
from pagetide.host.device.queues.block_queue import BlockQueue
from pagetide.host.device.queues.element import CONTROL_WORDS, FAILURE, PROGRESS_WORDS
from pagetide.host.device.queues.turn import Turn, take_turn
from pagetide.host.memory.ledger import ACCOUNT_WORDS
from pagetide.host.memory.ranges import RANGE_COLUMNS
from pagetide.jit import kernel
from pagetide.memory.region_map import REGION_COLUMNS
from pagetide.views import rows_at, words_at

OFFERED = 0  # not 0 while the step may serve it
CALL_FD = 1  # -1 for none
FAULTS = 2  # the count of bad accesses (bus_error.py) that its owner has looked into
LAG_AT = 3  # the words of a Lag
LEFT = 4  # not 0 if a turn is left to the owner, which is the next five
ANSWER = 5
USED_NS = 6  # its CPU time
BLOCKED_NS = 7  # time besides that, also in the call
CALL_ERROR = 8  # errno, if the driver could not be called
FAILED = 9  # errno of the discarding call that failed last in it
EARNED_PAGES = 10  # pages named in turns since it was taken last (allowance.py)
_KIND = 11
_RING_AT = 12
_RING_WORDS = 13
_REGIONS_AT = 14
_REGIONS = 15
_GPAS_AT = 16
_LENGTHS_AT = 17
_FLAGS_AT = 18
_ROOM = 19
_RANGES_AT = 20
_RANGES = 21
_PROGRESS_AT = 22
_CONTROL_AT = 23
_ACCOUNT_AT = 24
_SPARE_AT = 25
_SKIP = 26
CONNECTION_FD = 27  # where its guest's messages come, which go before its kicks
OFFERED_WORDS = 28

_Words = npt.NDArray[np.int64]


@kernel
def failure_of(queue: _Words) -> int:
    """The errno of the discarding call that failed last in the turn that was just taken, of any queue of the device."""
    return int(words_at(queue[_CONTROL_AT], CONTROL_WORDS)[FAILURE])


@kernel
def take_turn_of(queue: _Words, budget: int) -> int:
    """A turn on an offered queue of up to so many elements; what `take_turn` answers."""
    room = queue[_ROOM]
    return take_turn(
        queue[_KIND],
        words_at(queue[_RING_AT], queue[_RING_WORDS]),
        rows_at(queue[_REGIONS_AT], queue[_REGIONS], REGION_COLUMNS),
        words_at(queue[_GPAS_AT], room),
        words_at(queue[_LENGTHS_AT], room),
        words_at(queue[_FLAGS_AT], room),
        rows_at(queue[_RANGES_AT], queue[_RANGES], RANGE_COLUMNS),
        words_at(queue[_PROGRESS_AT], PROGRESS_WORDS),
        words_at(queue[_CONTROL_AT], CONTROL_WORDS),
        words_at(queue[_ACCOUNT_AT], ACCOUNT_WORDS),
        words_at(queue[_SPARE_AT], ACCOUNT_WORDS),
        budget,
        queue[_SKIP],
    )


class LeftTurn(NamedTuple):
    """A turn that the step has left to the queue's owner.

    Attributes:
        queue: the queue.
        answer: what `take_turn` answered.
        used_s: its CPU time.
        blocked_s: time besides that.
        call_error: errno, if the driver could not be called.
        failure: errno of the discarding call that failed last, or 0.
    """

    queue: BlockQueue
    answer: int
    used_s: float
    blocked_s: float
    call_error: int
    failure: int

    def turn(self) -> Turn:
        """What is to be done.

        Raises:
            RingError: the driver broke a rule of the ring.
        """
        return self.queue.turn_of(self.answer)._replace(failure=self.failure)

    def use(self, use: Use) -> Use:
        """What it was good for, with what it took."""
        return use._replace(served_s=self.used_s, blocked_s=self.blocked_s)


class OfferedQueue:
    """A started queue's words for the step.

    Attributes:
        words: what the step reads and writes; it stays where it is as long as this object.
    """

    words: _Words

    def __init__(self, queue: BlockQueue) -> None:
        """Offer nothing yet."""
        self._queue = queue
        self.words = np.zeros(OFFERED_WORDS, np.int64)
        ring, words = queue.ring, self.words
        words[_KIND] = queue.kind
        words[_RING_AT], words[_RING_WORDS] = ring.state.ctypes.data, len(ring.state)
        words[_GPAS_AT], words[_LENGTHS_AT] = ring.gpas.ctypes.data, ring.lengths.ctypes.data
        words[_FLAGS_AT], words[_ROOM] = ring.flags.ctypes.data, len(ring.gpas)
        words[_RANGES_AT], words[_RANGES] = queue.ranges.ctypes.data, len(queue.ranges)
        words[_PROGRESS_AT], words[_CONTROL_AT] = queue.progress.ctypes.data, queue.control.ctypes.data
        words[_ACCOUNT_AT], words[_SPARE_AT] = queue.account.ctypes.data, queue.spare.ctypes.data

    def offer(self, regions: _Words, skip: int, *, connection_fd: int, call_fd: int, faults: int, lag: _Words) -> None:
        """Have it served by the step from the next kick on.

        Args:
            regions: as for `BlockQueue.process`.
            skip: likewise.
            connection_fd: where messages come; a kick that is found with one is its owner's to deal with, after it.
            call_fd: how the driver is called; -1 if it is not.
            faults: how many bad accesses the owner knows of.
            lag: words of the `Lag` in which to note how long reports waited.
        """
        words = self.words
        self._regions, self._lag = regions, lag  # they stay as long as their addresses are here
        words[_REGIONS_AT], words[_REGIONS], words[_SKIP] = regions.ctypes.data, len(regions), skip
        words[CALL_FD], words[FAULTS], words[LAG_AT] = call_fd, faults, lag.ctypes.data
        words[CONNECTION_FD] = connection_fd
        words[OFFERED] = 1

    def withdraw(self) -> None:
        """Have it served by its owner from now on."""
        self.words[OFFERED] = 0

    def take_earned_pages(self) -> int:
        """The guest's own pages that the step's turns have dealt with since this was last asked."""
        pages = self.words.item(EARNED_PAGES)
        self.words[EARNED_PAGES] = 0
        return pages

    def take_left(self) -> LeftTurn | None:
        """The turn that the step has left, if any."""
        words = self.words
        if not words[LEFT]:
            return None
        words[LEFT] = 0
        answer, used_ns, blocked_ns, call_error, failure = words[ANSWER : FAILED + 1].tolist()
        return LeftTurn(self._queue, answer, used_ns / 1e9, blocked_ns / 1e9, call_error, failure)
