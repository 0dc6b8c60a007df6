"""A live guest at work: its vCPU threads run a stream of operations over one zone."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.pcp import pcp_drain
from pagetide.guest.allocator.request import take_wake
from pagetide.guest.allocator.zone import TICKS_PER_S, Zone
from pagetide.guest.allocator.zone_layout import (
    FALSE_OOMS,
    STOP,
    WAIT_HOST_NS,
    WAIT_HOST_NS_MAX,
    WAITS_HOST,
    vcpu_base,
)
from pagetide.guest.vcpu import (
    BAD_FREE,
    HOST_WANTED,
    NO_MEMORY,
    NOT_HAD,
    SLOT_WANTED,
    STOPPED,
    WORKER_WANTED,
    host_wanted,
    run_operations,
)
from pagetide.machine.in_flight import InFlight, Isolated
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.machine.messages import ClockStarted, Message, PhaseBegan, PhaseEnded
from pagetide.workload.stream import Stream, Stretch

SETTLE_MAX_S = 600.0
"""The longest wait for a design to come to rest."""

SLEEP_MIN_S = 0.001
"""The shortest sleep of a vCPU: operations that are due within it run together."""

IDLE_S = 0.1
"""A vCPU with nothing to do for this long drains its per-CPU list."""


class OutOfMemoryError(Exception):
    """An allocation failed although nothing was isolated: the guest is too small for its workload."""


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
        relieve: Callable[[int], int] | None = None,
    ) -> None:
        """Take everything that the run needs.

        Args:
            zone: the guest's memory.
            ram_address: where its frame 0 is mapped.
            stream: what the vCPUs do; it needs no more vCPUs than there are.
            vcpus: how many there are.
            worker: who reports.
            tell: gets what happens.
            waits_before_oom: whether an allocation that fails waits for blocks that are out for reporting; otherwise
                it counts as a false OOM, and the guest goes on without the block.
            cools: whether the zone's clock is to be kept, since blocks must cool.
            in_flight: what of the free memory the host has at the moment; otherwise the worker's batches.
            relieve: gets the order of an allocation that failed, and gives pages for it back to the zone at once, if
                there are any; how many.
        """
        assert stream.vcpus <= vcpus
        self._zone, self._ram_address, self._stream, self._worker = zone, ram_address, stream, worker
        self._tell, self._waits_before_oom, self._cools = tell, waits_before_oom, cools
        self._in_flight = Isolated(zone, worker) if in_flight is None else in_flight
        self._relieve = relieve
        self._stopping = threading.Event()
        self._vcpus = range(vcpus)
        self._stretches = stream.stretches
        self._work = [stream.operations_of(vcpu) for vcpu in self._vcpus]
        self._slots = np.full(stream.slot_firsts[-1], -1, np.int64)
        self._cursors = [np.zeros(1, np.int64) for _ in self._vcpus]
        self._zero_s = 0.0  # when the stream's clock showed 0, if it had not stood still
        worker.on_failure = self.stop

    def stop(self) -> None:
        """End the run soon; from any thread."""
        self._stopping.set()
        for vcpu in self._vcpus:
            self._zone.words[vcpu_base(vcpu) + STOP] = 1
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
            for number, stretch in enumerate(self._stretches):
                until_s = stretch.until_s
                self._start_clock(stretch.from_s, until_s)
                self._begin(stretch)
                behind_s = max(threads.map(self._run_vcpu, self._vcpus, [number] * len(self._vcpus)))
                if self._stopping.is_set():
                    break
                self._end(stretch, behind_s)
            self._start_clock(until_s, self._stream.end_s)
            self._wait_until(self._stream.end_s)
        self._raise_failure()

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
            self._wait(lambda: self._worker.at_rest and self._in_flight.at_rest, SETTLE_MAX_S)

    def _wait_until(self, stream_s: float) -> None:
        """Until the stream's clock shows this, or the run is stopped."""
        left_s = self._zero_s + stream_s - time.monotonic()
        if left_s > 0:
            with self._worker.came_back:
                self._worker.came_back.wait_for(self._stopping.is_set, left_s)

    def _raise_failure(self) -> None:
        if self._worker.failure is not None:
            raise self._worker.failure

    @contextlib.contextmanager
    def _ticking(self) -> Iterator[None]:
        """Keep the zone's clock, in a thread of its own, if anything looks at it."""
        over = threading.Event()

        def tick() -> None:
            while not over.wait(1 / TICKS_PER_S):
                self._zone.tick(time.monotonic())

        if not self._cools:
            yield
            return
        self._zone.tick(time.monotonic())
        thread = threading.Thread(target=tick, name="tick")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _run_vcpu(self, vcpu: int, stretch: int) -> float:
        try:
            return self._run_stretch(vcpu, stretch)
        except BaseException:
            self.stop()
            raise

    def _run_stretch(self, vcpu: int, stretch: int) -> float:
        """Run a vCPU's operations of one stretch, each when it is due; how far it fell behind.

        What is due as the stretch begins is to run as fast as it can, and is never behind.
        """
        cursor, work = self._cursors[vcpu], self._work[vcpu]
        from_s, end, behind_s = self._stretches[stretch].from_s, int(work.ends[stretch]), 0.0
        while cursor[0] < end and not self._stopping.is_set():
            now_s = time.monotonic() - self._zero_s
            due_s = float(work.due_s[cursor[0]])
            if due_s > now_s:
                self._idle(vcpu, due_s - now_s)
                continue
            if due_s > from_s:
                behind_s = max(behind_s, now_s - due_s)
            self._run_until(vcpu, min(end, int(np.searchsorted(work.due_s, now_s, "right"))))
        self._drain(vcpu)
        return behind_s

    def _run_until(self, vcpu: int, end: int) -> None:
        """Run operations up to this one, in as many calls as it takes."""
        words, pages, slots = self._zone.words, self._zone.pages, self._slots
        operations, cursor = self._work[vcpu].operations, self._cursors[vcpu]
        while not self._stopping.is_set():
            seen = self._in_flight.ended
            outcome = run_operations(words, pages, self._ram_address, vcpu, operations, slots, cursor, end)
            self._pass_on_wake()
            if outcome == HOST_WANTED:
                self._report(vcpu)
            if outcome == NO_MEMORY:
                self._out_of_memory(vcpu, seen, operations, cursor)
            assert outcome != BAD_FREE, f"vCPU {vcpu} freed what it did not hold"
            if outcome == SLOT_WANTED:
                self._stopping.wait(SLEEP_MIN_S)
            if outcome not in (NO_MEMORY, WORKER_WANTED, STOPPED, HOST_WANTED, SLOT_WANTED):
                break

    def _idle(self, vcpu: int, for_s: float) -> None:
        if for_s >= IDLE_S:
            self._drain(vcpu)
        self._stopping.wait(max(for_s, SLEEP_MIN_S))

    def _drain(self, vcpu: int) -> None:
        """An idle vCPU keeps no pages to itself: they would hold whole blocks apart (Linux's vmstat work does this)."""
        pcp_drain(self._zone.words, self._zone.pages, vcpu)
        self._pass_on_wake()
        if host_wanted(self._zone.words, vcpu):  # nobody else would report what the drained pages merged into
            self._report(vcpu)

    def _report(self, vcpu: int) -> None:
        with self._stalled(vcpu):
            self._worker.report_from_vcpu()

    def _pass_on_wake(self) -> None:
        if take_wake(self._zone.words):
            self._worker.wake()

    @contextlib.contextmanager
    def _stalled(self, vcpu: int) -> Iterator[None]:
        """Account for the time that a vCPU waits for the host."""
        words, base = self._zone.words, vcpu_base(vcpu)
        start_ns = time.monotonic_ns()
        yield
        waited_ns = time.monotonic_ns() - start_ns
        words[base + WAITS_HOST] += 1
        words[base + WAIT_HOST_NS] += waited_ns
        words[base + WAIT_HOST_NS_MAX] = max(int(words[base + WAIT_HOST_NS_MAX]), waited_ns)

    def _out_of_memory(
        self, vcpu: int, seen: int, operations: npt.NDArray[np.void], cursor: npt.NDArray[np.int64]
    ) -> None:
        """An allocation failed: truly, or because blocks are out for reporting (S15)."""
        worker, in_flight = self._worker, self._in_flight
        order = int(operations[cursor[0]]["order"])
        if self._relieve is not None and self._relieve(order) > 0:
            return
        with worker.came_back:
            if in_flight.begun == in_flight.ended == seen:
                raise OutOfMemoryError("it ran out of memory: its workload needs more than it has")
        if self._waits_before_oom:
            with self._stalled(vcpu):
                self._wait_for_isolated(seen)
        elif in_flight.pages >= 1 << order:
            with worker.came_back:
                self._zone.words[FALSE_OOMS] += 1
            self._slots[operations[cursor[0]]["slot"]] = NOT_HAD
            cursor[0] += 1
        else:  # what is out would not be enough, so whether memory ran out shows when it is back
            self._wait_for_isolated(seen)

    def _wait_for_isolated(self, seen: int) -> None:
        """Before an allocation fails, wait for blocks that are out for reporting (invariant 5)."""
        self._wait(lambda: self._in_flight.ended != seen)

    def _wait(self, condition: Callable[[], bool], most_s: float = float("inf")) -> None:
        """Until the condition holds, the run is stopped, or the time is over.

        Raises:
            Exception: whatever ended the reporting worker.
        """
        worker, end_s = self._worker, time.monotonic() + most_s

        def over() -> bool:
            return condition() or worker.failure is not None or self._stopping.is_set()

        with worker.came_back:
            while not over() and (left_s := end_s - time.monotonic()) > 0:
                look_again_s = min(left_s, self._in_flight.look_again_s)
                worker.came_back.wait_for(over, None if look_again_s == float("inf") else look_again_s)
        self._raise_failure()
