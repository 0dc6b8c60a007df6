"""The host's loop where the design is `balloon`: it serves the guest, and every so often moves its target."""

import mmap
import os
import select
import time
from collections.abc import Callable

import numpy as np

from pagetide.guest.allocator.zone_layout import NR_VCPUS
from pagetide.host.daemon.server import Server
from pagetide.machine.balloon_policy import BalloonPolicy
from pagetide.machine.config import RunConfig
from pagetide.machine.messages import HostSetup

DELAY_S = 0.5
"""From one move of the target to the next, if nothing else is asked for."""

_DELAY_S_MIN = 0.001


def delay_s(config: RunConfig) -> float:
    """From one move of the target to the next."""
    return max(DELAY_S if config.delay_s is None else config.delay_s, _DELAY_S_MIN)


def serve_and_balloon(server: Server, setup: HostSetup, stop_fd: int, over: Callable[[], bool]) -> None:
    """Serve until this descriptor is readable, or it is over; the setup's arena is used up."""
    words = np.frombuffer(mmap.mmap(setup.arena_fd, mmap.PAGESIZE), np.int64)
    os.close(setup.arena_fd)
    assert words.size > NR_VCPUS
    policy = BalloonPolicy(words)
    next_s = time.monotonic()
    server.wake_by(stop_fd)
    while not over() and not select.select([stop_fd], [], [], 0)[0]:
        now_s = time.monotonic()
        if now_s >= next_s:
            next_s = now_s + delay_s(setup.config)
            for guest in server.guests:
                policy.act(guest)
        server.run_once(max(0.0, next_s - now_s))
    server.no_wake_by(stop_fd)
