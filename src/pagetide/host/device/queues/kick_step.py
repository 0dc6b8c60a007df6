"""From "descriptors are ready" to "drivers are called" in one kernel, for any number of guests.

It waits (epoll_wait(2)), gives each offered queue that was kicked one turn (queues/offered.py), and calls its driver.
What else is ready it names, and so it does the queues whose turn left more to be done than a call: more elements, an
error, something in vain, a memory file that was cut, a wait. For these Python goes on as if it had served the turn.
"""

import errno as errors
import os

import numpy as np
import numpy.typing as npt

from pagetide.atomics import errno, load_i64, load_u32, monotonic_ns, thread_ns
from pagetide.host.device.lag import LAG_WORDS, note_lag
from pagetide.host.device.queues.element import ELEMENTS_PER_TURN
from pagetide.host.device.queues.offered import (
    ANSWER,
    BLOCKED_NS,
    CALL_ERROR,
    CALL_FD,
    CONNECTION_FD,
    EARNED_PAGES,
    FAILED,
    FAULTS,
    LAG_AT,
    LEFT,
    OFFERED,
    OFFERED_WORDS,
    USED_NS,
    failure_of,
    take_turn_of,
)
from pagetide.host.device.queues.turn import CALL, PAGES_MASK, PAGES_SHIFT, REPORTS_SHIFT, UNUSUAL
from pagetide.jit import external, int32, int64, kernel
from pagetide.views import words_at

EVENTS_MAX = 256
"""Most descriptors that one look tells of; the kernel goes round, so that none is passed over."""

EVENT_BYTES = 12 if os.uname().machine == "x86_64" else 16
"""Size of a struct epoll_event, packed on one kind of machine only (include/uapi/linux/eventpoll.h)."""

# The loop's words.
EPOLL_FD = 0
EVENTS_AT = 1  # room for EVENTS_MAX events
QUEUES_AT = 2  # by kick descriptor, where the queue's words are; 0 for a descriptor that is something else
QUEUES = 3  # how many of these there are
OTHERS_AT = 4  # room for EVENTS_MAX descriptors, which receives those that are the caller's to deal with, in order
FAULTS_AT = 5  # where bad accesses are counted (bus_error.py)
TICKS_AT = 6  # the words of an Interruption; 0 for none
ONE_AT = 7  # where there is a word of value 1
LOOKED_NS = 8  # when the last look had found what there was
SINCE_NS = 9  # nothing that it found was ready before this time
SLEPT_NS = 10  # for how long it slept before that
CPU_NS = 11  # the thread's CPU time before the next turn
PASSED_NS = 12  # for how long looks slept, and turns took, since somebody set this to 0
TIMEOUT_MS = 13  # for how long to wait at most; for ever if it is negative
UNTIL_NS = 14  # until when to look again as long as queues are all there is; 0 to look once
LOOP_WORDS = 15

# An Interruption's words; from the third on they are the struct itimerval with which it ticks.
BUSY = 0
TICKING = 1
_TICKS_AT = 16
TICK_US = 3
FIRST_TICK_US = 5
TICKS_WORDS = 6

_DATA_AT = EVENT_BYTES - 8
_WORD_BYTES = 8
_ITIMER_REAL = 0
_LONG_NS = 2_000_000
_MS = 1_000_000
_EAGAIN, _EPIPE, _ECONNRESET = errors.EAGAIN, errors.EPIPE, errors.ECONNRESET

_epoll_wait = external("epoll_wait", int32, int32, int64, int32, int32)
_setitimer = external("setitimer", int32, int32, int64, int64)
_write = external("write", int64, int32, int64, int64)

_Words = npt.NDArray[np.int64]


@kernel
def _tick(ticks: int) -> None:
    """From now on something is done for guests (sharing/interruption.py)."""
    words = words_at(ticks, TICKS_WORDS)
    words[BUSY] = 1
    if words[TICKING] == 0:
        words[TICKING] = 1
        _setitimer(_ITIMER_REAL, int(ticks + _TICKS_AT), 0)


@kernel
def _call(loop: _Words, fd: int) -> int:
    """Signal an eventfd, if there is one; 0, or an errno.

    One that is full is signalled already; a socket whose other end is closed is as good as none.
    """
    if fd < 0 or _write(int(fd), int(loop[ONE_AT]), _WORD_BYTES) >= 0:
        return 0
    failure = errno()
    return 0 if failure in (_EAGAIN, _EPIPE, _ECONNRESET) else failure


@kernel
def _serve(loop: _Words, queue: _Words) -> int:
    """Give a kicked queue its turn; 1 if that was all, 0 if it is left to its owner."""
    begun_ns = monotonic_ns()
    answer = take_turn_of(queue, ELEMENTS_PER_TURN)
    usual = answer >= 0 and answer & UNUSUAL == 0 and load_i64(loop[FAULTS_AT]) == queue[FAULTS]
    failure: int = 0
    if usual and answer & CALL:
        failure = _call(loop, queue[CALL_FD])
        answer &= ~CALL
    ended_ns = monotonic_ns()
    used_ns = thread_ns() - loop[CPU_NS]
    loop[CPU_NS] += used_ns
    loop[PASSED_NS] += used_ns
    blocked_ns = ended_ns - begun_ns - used_ns
    if usual and failure == 0 and blocked_ns < _LONG_NS:
        reports = answer >> REPORTS_SHIFT
        if reports > 0:
            note_lag(words_at(queue[LAG_AT], LAG_WORDS), ended_ns - loop[SINCE_NS], reports)
        queue[EARNED_PAGES] += answer >> PAGES_SHIFT & PAGES_MASK
        return 1
    queue[OFFERED] = 0
    queue[LEFT], queue[ANSWER], queue[FAILED] = 1, answer, failure_of(queue)
    queue[USED_NS], queue[BLOCKED_NS], queue[CALL_ERROR] = used_ns, max(0, blocked_ns), failure
    return 0


@kernel
def _look(loop: _Words, timeout_ms: int) -> int:
    """Wait until a descriptor is ready, asleep only if none is so at once; how many events there are, or a -errno."""
    loop[SINCE_NS] = loop[LOOKED_NS]
    loop[SLEPT_NS] = 0
    found = _epoll_wait(int(loop[EPOLL_FD]), int(loop[EVENTS_AT]), EVENTS_MAX, 0)
    if found == 0 and timeout_ms != 0:
        if loop[TICKS_AT] != 0:
            words_at(loop[TICKS_AT], TICKS_WORDS)[BUSY] = 0
        slept_ns = monotonic_ns()
        found = _epoll_wait(int(loop[EPOLL_FD]), int(loop[EVENTS_AT]), EVENTS_MAX, int(timeout_ms))
        loop[SINCE_NS] = monotonic_ns()  # what comes from now on ends the wait as it comes
        loop[SLEPT_NS] = loop[SINCE_NS] - slept_ns
        loop[PASSED_NS] += loop[SLEPT_NS]
    if found < 0:
        found = -errno()
    loop[LOOKED_NS] = monotonic_ns()
    return int(found)


@kernel
def _queue_of(loop: _Words, fd: int) -> int:
    """Where the words of the offered queue are that a descriptor kicks; 0 if there is none."""
    address = words_at(loop[QUEUES_AT], loop[QUEUES])[fd] if fd < loop[QUEUES] else 0
    return address if address != 0 and words_at(address, OFFERED_WORDS)[OFFERED] != 0 else 0


@kernel
def _has_messages(queue: _Words, others: _Words, count: int) -> bool:
    """Whether its guest's connection is among these: what it sent before it kicked is to be dealt with before."""
    found = False
    for place in range(count):
        found |= others[place] == queue[CONNECTION_FD]
    return found


@kernel
def _serve_found(loop: _Words, found: int) -> int:
    """Serve the queues among what a look has found; how many descriptors are left to the caller."""
    others = words_at(loop[OTHERS_AT], EVENTS_MAX)
    count = 0
    for place in range(found):
        fd = load_u32(loop[EVENTS_AT] + place * EVENT_BYTES + _DATA_AT)
        if _queue_of(loop, fd) == 0:
            others[count] = fd
            count += 1
    messages = count
    loop[CPU_NS] = thread_ns()  # what the thread did between two looks, or another thread, is not the guests'
    for place in range(found):
        fd = load_u32(loop[EVENTS_AT] + place * EVENT_BYTES + _DATA_AT)
        address = _queue_of(loop, fd)
        if address == 0:
            continue
        queue = words_at(address, OFFERED_WORDS)
        done = 0
        if not _has_messages(queue, others, messages):
            if loop[TICKS_AT] != 0:
                _tick(loop[TICKS_AT])
            done = _serve(loop, queue)
        if done == 0:
            others[count] = fd
            count += 1
    return count


@kernel
def look_and_serve(address: int) -> int:
    """Wait until a descriptor is ready, and serve the offered queues that were kicked.

    Args:
        address: the loop's words. (One argument, and an integer: each costs time, and an array most.)

    Returns:
        How many descriptors are left to the caller; a negative errno if it could not wait, for a signal, say.
    """
    loop = words_at(address, LOOP_WORDS)
    timeout_ms = loop[TIMEOUT_MS]
    while True:
        found = _look(loop, timeout_ms)
        if found <= 0:
            return found
        count = _serve_found(loop, found)
        left_ns = loop[UNTIL_NS] - loop[LOOKED_NS]
        if count > 0 or left_ns <= 0:
            return count
        if timeout_ms > 0:
            timeout_ms = left_ns // _MS + 1
