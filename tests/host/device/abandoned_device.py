"""A device that can be abandoned between any two steps of a turn, as a killed process abandons its work.

A step is a store to guest memory or in-flight memory, or a hole that is punched. Only with NUMBA_DISABLE_JIT=1, where
kernels are Python and their stores can be replaced.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

from pagetide.host.device import inflight_memory
from pagetide.host.device.balloon import BalloonDevice
from pagetide.host.device.inflight_memory import InflightMemory
from pagetide.host.device.queues import element
from pagetide.host.memory import pieces
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import Ledger
from pagetide.virtio.split_ring import device as ring_device
from pagetide.virtio.split_ring import inflight
from pagetide.virtio.split_ring.ring import used_idx
from tests.host.guest_ring import GuestRing

_STEPS = {
    inflight: ("store_u16", "store_i64", "store_u16_release"),
    ring_device: ("store_u16", "store_u32", "store_u16_release"),
    pieces: ("punch_hole",),
}


def store(name: str, address: int, value: int) -> None:
    """A store that is a step."""
    module = ring_device if name == "store_u32" else inflight
    vars(module)[name](address, value)


class AbandonedError(BaseException):
    """The device's process is no more."""


class Steps:
    """Counts steps, and abandons the device before one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        """Put a counter before each store."""
        self.taken = 0
        self.abandon_before = -1
        for module, names in _STEPS.items():
            for name in names:
                patch.setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            if self.taken == self.abandon_before:
                raise AbandonedError
            self.taken += 1
            return step(*arguments)

        return counted


class Takeovers:
    """One guest's queue and the devices that serve it one after the other.

    Attributes:
        guest: the memory and the driver's half.
        deaths: devices that were abandoned.
    """

    def __init__(
        self, steps: Steps, index: int, features: int, *, turn_punches_max: int = element.TURN_PUNCHES_MAX
    ) -> None:
        """Start the first device, whose turns end with so many discarding calls."""
        self.guest = GuestRing(64, features)
        self.deaths = 0
        self._steps, self._index, self._features = steps, index, features
        self._punches_max = turn_punches_max
        self._description, self._fd = inflight_memory.create_inflight(index + 1, 64, index + 1)
        self._mapped: list[GuestMemory | InflightMemory] = []
        self.device: BalloonDevice | None = None

    def close(self) -> None:
        """Give everything back."""
        self._unmap()
        os.close(self._fd)
        self.guest.ram.close()

    def turn(self, budget: int, abandon_after: int | None = None, *, turns: int = 1) -> None:
        """Have the queue served so often, by a successor if need be; abandon the device after so many steps."""
        self._steps.abandon_before = -1 if abandon_after is None else self._steps.taken + abandon_after
        try:
            if self.device is None:
                self.device = self._start()
            for _ in range(turns):
                self.device.process(self._index, budget)
        except AbandonedError:
            self.deaths += 1
            self.device = None
            self._unmap()
        self._steps.abandon_before = -1

    def stop(self) -> None:
        """Stop the queue in order; the next turn starts it anew."""
        if self.device is not None:
            self.device.queues.stop(self._index)
            self.device = None
            self._unmap()

    def _start(self) -> BalloonDevice:
        """What a new process does when the front-end reconnects."""
        memory = GuestMemory()
        memory.add(self.guest.region, os.dup(self.guest.ram.fd))
        given = InflightMemory(self._description, os.dup(self._fd), self._index + 1)
        self._mapped += [memory, given]
        base = int(used_idx(self.guest.ram.address + self.guest.place.used_gpa - self.guest.region.gpa))
        device = BalloonDevice(memory, Ledger(), turn_punches_max=self._punches_max)
        left = given.state
        if left is not None:
            device.take_over(left)
        place = self.guest.queue_place
        device.start_queue(self._index, place, base, self._features, given.region(self._index))
        given.keep_state(device.state)
        return device

    def _unmap(self) -> None:
        while self._mapped:
            self._mapped.pop().close()
