"""A live guest at work: its vCPU threads run a stream of operations over one zone."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np

from pagetide.guest.allocator.zone import TICKS_PER_S, Zone
from pagetide.guest.in_flight import InFlight, Isolated
from pagetide.guest.vcpu_loop import Relief, Surroundings
from pagetide.machine.live.beside import beside
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.machine.live.vcpu_thread import LiveOperations, VcpuThread
from pagetide.machine.messages import ClockStarted, Message, PhaseBegan, PhaseEnded
from pagetide.workload.stream import Stream, Stretch

SETTLE_MAX_S = 600.0
"""The longest wait for a design to come to rest."""


class GuestRun:
    """Runs a workload on a zone, with a thread for each vCPU."""

    def __init__(
        self,
        zone: Zone,
        ram_address: int,
        stream: Stream,
        vcpus: int,
        worker: GuestWorker,
        tell: Callable[[Message], None],
        *,
        waits_before_oom: bool = True,
        cools: bool = False,
        in_flight: InFlight | None = None,
        relief: Relief | None = None,
    ) -> None:
        """Take everything that the run needs.

        Args:
            zone: the guest's memory.
            ram_address: where its frame 0 is mapped.
            stream: what the vCPUs do; it needs no more vCPUs than there are.
            vcpus: how many there are.
            worker: who reports.
            tell: gets what happens.
            waits_before_oom: as Surroundings has it.
            cools: whether the zone's clock is to be kept, since blocks must cool.
            in_flight: what of the free memory the host has at the moment; otherwise the worker's batches.
            relief: what gives pages back to an allocation that fails; None if nothing does.
        """
        assert stream.vcpus <= vcpus
        self._zone, self._stream, self._worker = zone, stream, worker
        self._tell, self._cools = tell, cools
        self._in_flight = Isolated(zone, worker) if in_flight is None else in_flight
        self._stopping = threading.Event()
        guest = Surroundings(zone, worker, self._in_flight, waits_before_oom, relief)
        slots = np.full(stream.slot_firsts[-1], -1, np.int64)
        self._vcpus = [
            VcpuThread(
                vcpu,
                guest,
                worker,
                LiveOperations(zone, ram_address, vcpu, stream.operations_of(vcpu), slots),
                self._stopping,
            )
            for vcpu in range(vcpus)
        ]
        self._zero_s = 0.0  # when the stream's clock showed 0, if it had not stood still
        worker.on_failure = self.stop

    def stop(self) -> None:
        """End the run soon; from any thread."""
        self._stopping.set()
        for vcpu in self._vcpus:
            vcpu.stop()
        with self._worker.came_back:
            self._worker.came_back.notify_all()

    def run(self) -> None:
        """Run every operation, unless stopped.

        Raises:
            OutOfMemoryError: the guest is too small for its workload.
            Exception: whatever ended the reporting worker.
        """
        until_s = 0.0
        with ThreadPoolExecutor(len(self._vcpus), "vcpu") as threads, self._ticking():
            for number, stretch in enumerate(self._stream.stretches):
                until_s = stretch.until_s
                self._start_clock(stretch.from_s, until_s)
                self._begin(stretch)
                behind_s = max(threads.map(self._run_vcpu, self._vcpus, repeat(number), repeat(stretch.from_s)))
                if self._stopping.is_set():
                    break
                self._end(stretch, behind_s)
            self._start_clock(until_s, self._stream.end_s)
            self._wait_until(self._stream.end_s)
        if self._worker.failure is not None:
            raise self._worker.failure

    def _start_clock(self, from_s: float, until_s: float) -> None:
        now_s = time.monotonic()
        self._zero_s = now_s - from_s
        self._tell(ClockStarted(from_s, until_s, now_s))

    def _begin(self, stretch: Stretch) -> None:
        mark = stretch.mark
        if mark.first < stretch.end:
            self._wait_until(float(self._stream.at_s[mark.first]))
        self._tell(PhaseBegan(mark.name, mark.burst, mark.eats, time.monotonic()))

    def _end(self, stretch: Stretch, behind_s: float) -> None:
        mark = stretch.mark
        allocated = self._stream.allocated_bytes(mark.first, stretch.end)
        self._tell(PhaseEnded(mark.burst, mark.eats, allocated, time.monotonic(), behind_s))
        if mark.settle:
            self._worker.wait_until(
                lambda: (self._worker.at_rest and self._in_flight.at_rest) or self._stopping.is_set(),
                SETTLE_MAX_S,
                self._in_flight.look_again_s,
            )

    def _wait_until(self, stream_s: float) -> None:
        """Until the stream's clock shows this, or the run is stopped."""
        left_s = self._zero_s + stream_s - time.monotonic()
        if left_s > 0:
            with self._worker.came_back:
                self._worker.came_back.wait_for(self._stopping.is_set, left_s)

    @contextlib.contextmanager
    def _ticking(self) -> Iterator[None]:
        """Keep the zone's clock, in a thread of its own, if anything looks at it."""
        if not self._cools:
            yield
            return

        def tick(over: threading.Event) -> None:
            while not over.wait(1 / TICKS_PER_S):
                self._zone.tick(time.monotonic())

        self._zone.tick(time.monotonic())
        with beside("tick", tick):
            yield

    def _run_vcpu(self, vcpu: VcpuThread, number: int, from_s: float) -> float:
        try:
            return vcpu.run_stretch(number, from_s, self._stream_s)
        except BaseException:
            self.stop()
            raise

    def _stream_s(self) -> float:
        """What the stream's clock shows."""
        return time.monotonic() - self._zero_s
