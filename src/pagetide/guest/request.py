"""The reporting request: one word through which the free path and the reporting worker agree on when to run.

Follows Linux's mm/page_reporting.c (6.1): `__page_reporting_request`, and the states of `page_reporting_process`. A
request made
while a pass runs is seen at its end. What Linux does by queueing delayed work from inside the free path is split in two
here, since no lock may be held across a system call: the free path sets WAKE, and the vCPU wakes the worker once it
is out of the lock.
"""

from typing import Any

from pagetide.atomics import atomic_compare_exchange, atomic_exchange, atomic_load, atomic_store
from pagetide.guest.zone_layout import (
    REPORTING_ORDER,
    REQUEST,
    REQUEST_ACTIVE,
    REQUEST_IDLE,
    REQUEST_REQUESTED,
    WAKE,
)
from pagetide.jit import kernel


@kernel
def notify_free(words: Any, order: int) -> None:
    """Tell the worker of an unreported free block (`page_reporting_notify_free`); the caller holds the zone lock."""
    if order < words[REPORTING_ORDER] or atomic_load(words, REQUEST) == REQUEST_REQUESTED:
        return
    if atomic_exchange(words, REQUEST, REQUEST_REQUESTED) == REQUEST_IDLE:
        atomic_store(words, WAKE, 1)


@kernel
def take_wake(words: Any) -> bool:
    """Whether the caller is the one to wake the worker."""
    return atomic_exchange(words, WAKE, 0) != 0


@kernel
def request(words: Any) -> None:
    """Ask for a pass from the worker's own side."""
    atomic_store(words, REQUEST, REQUEST_REQUESTED)


@kernel
def begin_pass(words: Any) -> None:
    """A pass begins: requests from now on ask for another."""
    atomic_store(words, REQUEST, REQUEST_ACTIVE)


@kernel
def end_pass(words: Any) -> bool:
    """A pass ended; whether another was requested meanwhile."""
    return atomic_compare_exchange(words, REQUEST, REQUEST_ACTIVE, REQUEST_IDLE) == REQUEST_REQUESTED
