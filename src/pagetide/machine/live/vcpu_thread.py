"""A vCPU of a live guest: the thread in which its steps run and its waits are executed, and what it runs."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import ORDER_MASK, STOP, vcpu_base
from pagetide.guest.vcpu import NOT_HAD, note_wait, run_operations
from pagetide.guest.vcpu_loop import Surroundings, VcpuLoop
from pagetide.guest.worker import Wait
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.workload.stream import VcpuOperations

SLEEP_MIN_S = 0.001
"""The shortest sleep of a vCPU: operations that are due within it run together."""


class LiveOperations:
    """A vCPU's share of a stream, stretch by stretch, on real memory; what vcpu_loop.py calls Operations.

    Attributes:
        behind_s: how long after it was due an operation of the stretch was begun, at most.
    """

    def __init__(
        self, zone: Zone, ram_address: int, vcpu: int, work: VcpuOperations, slots: npt.NDArray[np.int64]
    ) -> None:
        """Begin with nothing to run; the slots are all vCPUs'."""
        self.behind_s = 0.0
        self._zone, self._ram_address, self._vcpu, self._work = zone, ram_address, vcpu, work
        self._slots = slots
        self._cursor = np.zeros(1, np.int64)
        self._from_s = 0.0
        self._end = self._due_end = 0

    def begin_stretch(self, number: int, from_s: float) -> None:
        """Have the operations of a stretch to run; what is due as it begins runs as fast as it can, never behind."""
        self._end, self._from_s, self.behind_s = int(self._work.ends[number]), from_s, 0.0

    @property
    def left(self) -> int:
        """How many are left of the stretch."""
        return self._end - int(self._cursor[0])

    @property
    def due_s(self) -> float:
        """When the next one is due, by the stream's clock."""
        return float(self._work.due_s[self._cursor[0]])

    @property
    def order(self) -> int:
        """Of the next one's block."""
        return int(self._work.operations[self._cursor[0]]["order"]) & ORDER_MASK

    def run_due(self, now_s: float) -> int:
        """Run those that are due; why it stopped. What was due before is run first, and is not looked at again."""
        zone, work, cursor = self._zone, self._work, self._cursor
        if cursor[0] >= self._due_end:
            if self.due_s > self._from_s:
                self.behind_s = max(self.behind_s, now_s - self.due_s)
            self._due_end = min(self._end, int(np.searchsorted(work.due_s, now_s, "right")))
        return int(
            run_operations(
                zone.words, zone.pages, self._ram_address, self._vcpu, work.operations, self._slots, cursor,
                self._due_end,
            )
        )  # fmt: skip

    def give_up(self) -> None:
        """Go on without the next one's block."""
        self._slots[self._work.operations[self._cursor[0]]["slot"]] = NOT_HAD
        self._cursor[0] += 1


class VcpuThread:
    """What the thread of one vCPU does."""

    def __init__(
        self,
        vcpu: int,
        guest: Surroundings,
        worker: GuestWorker,
        operations: LiveOperations,
        stopping: threading.Event,
    ) -> None:
        """Take what the vCPU works with; a step that has begun is its last one once `stopping` is set."""
        self._vcpu, self._guest, self._worker = vcpu, guest, worker
        self._operations, self._stopping = operations, stopping
        self._steps = VcpuLoop(vcpu, guest, operations)

    def stop(self) -> None:
        """Have it run no further operation; from any thread, once `stopping` is set."""
        self._guest.zone.words[vcpu_base(self._vcpu) + STOP] = 1

    def run_stretch(self, number: int, from_s: float, stream_s: Callable[[], float]) -> float:
        """Run the operations of a stretch, each when it is due; how far it fell behind.

        Args:
            number: the stretch.
            from_s: when it begins.
            stream_s: the stream's clock, which all times are of.

        Raises:
            OutOfMemoryError: the guest is too small for its workload.
            Exception: whatever ended the reporting worker.
        """
        self._operations.begin_stretch(number, from_s)
        while not self._stopping.is_set():
            wait = self._steps.proceed(stream_s())
            if wait is Wait.OVER:
                break
            if wait is Wait.DUE:
                self._stopping.wait(max(self._steps.until_s - stream_s(), SLEEP_MIN_S))
            elif wait is Wait.REPORT:
                with self._noted():
                    self._worker.report_from_vcpu()
            elif wait is Wait.MEMORY:
                with self._noted() if self._steps.waits_before_oom else contextlib.nullcontext():
                    self._wait_for_memory()
        return self._operations.behind_s

    def _wait_for_memory(self) -> None:
        """Before an allocation fails, wait for blocks that are out for reporting (invariant 5)."""
        self._worker.wait_until(
            lambda: self._steps.is_back or self._stopping.is_set(),
            look_again_s=self._guest.in_flight.look_again_s,
        )

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Account for the time that it waits for the host."""
        start_ns = time.monotonic_ns()
        yield
        note_wait(self._guest.zone.words, self._vcpu, time.monotonic_ns() - start_ns)
