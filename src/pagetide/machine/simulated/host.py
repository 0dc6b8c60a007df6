"""The host of a simulated machine: the very same device, served in virtual time, over memory that is metadata."""

from collections.abc import Callable

from pagetide.host.device.balloon import FEATURES, BalloonDevice
from pagetide.host.device.queues.element import ELEMENTS_PER_TURN
from pagetide.host.device.queues.place import QueuePlace
from pagetide.host.device.queues.turn import Turn
from pagetide.host.memory.ledger import BLOCKS, DEFLATE_ACCOUNT, INFLATE_ACCOUNT, REPORT_ACCOUNT, REPORTS, Ledger
from pagetide.machine.balloon_policy import BalloonPolicy
from pagetide.machine.costs import PS_PER_S, Costs
from pagetide.machine.simulated.loop import NEVER_PS, Doorbell, Loop, Signal, Task
from pagetide.machine.simulated.process import SimulatedProcess
from pagetide.machine.simulated.ram import SimulatedRam
from pagetide.memory.metadata import stamp_metadata
from pagetide.units import PAGE_SHIFT
from pagetide.virtio.split_ring.ring import used_ring_bytes

_REPORT, _INFLATE, _DEFLATE = (account.start for account in (REPORT_ACCOUNT, INFLATE_ACCOUNT, DEFLATE_ACCOUNT))
_FIELD_BYTES = 4


class SimulatedHost:
    """The host's server of one guest, and the driver's way to it (a ConfigTransport).

    Attributes:
        called: rings when the device calls the driver.
    """

    def __init__(
        self,
        loop: Loop,
        ram: SimulatedRam,
        ledger: Ledger,
        costs: Costs,
        process: SimulatedProcess,
        worked: Signal,
        *,
        verify_share: float,
    ) -> None:
        """Make the device; `run` is its task, and `worked` is notified after each turn."""
        self.called = Doorbell(loop)
        self._loop, self._ram, self._ledger, self._worked = loop, ram, ledger, worked
        self._process = process
        self._wake_ps, self._element_ps, self._block_ps = costs.wake.ps, costs.element.ps, costs.element_block.ps
        self._device = BalloonDevice(ram, ledger, verify_share=verify_share)
        self._rung = Doorbell(loop)
        self._kicked: list[int] = []
        self._asked: list[Doorbell] = []
        self._features = 0
        self._policy: BalloonPolicy | None = None
        self._policy_ps, self._policy_due_ps = 0, NEVER_PS

    def set_policy(self, policy: BalloonPolicy, delay_s: float) -> None:
        """Have this policy move the target, now and every so often."""
        self._policy, self._policy_ps, self._policy_due_ps = policy, round(delay_s * PS_PER_S), self._loop.now_ps
        self._loop.at(self._policy_due_ps, self._rung.ring)

    def negotiate(self, wanted: int) -> int:
        """Agree on features."""
        self._features = wanted & int(FEATURES)
        return self._features

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        """Start a queue; its pages are resident from now on."""
        first, last = (gpa >> PAGE_SHIFT for gpa in (desc_gpa, used_gpa + used_ring_bytes(size) - 1))
        stamp_metadata(self._ram.file.address, first, last + 1 - first)
        self._device.start_queue(index, QueuePlace(size, desc_gpa, avail_gpa, used_gpa), 0, self._features)

    def driver_ok(self) -> None:
        """Nothing is to be done."""

    def kick(self, index: int) -> None:
        """Notify the device."""

        def kicked() -> None:
            self._kicked.append(index)
            self._rung.ring()

        self._loop.at(self._loop.now_ps + self._wake_ps, kicked)

    def write_config(self, offset: int, value: int) -> None:
        """Write 32 bits of the device's configuration."""
        self._device.config.write(offset, value.to_bytes(_FIELD_BYTES, "little"))

    def read_config(self, offset: int) -> int:
        """Read 32 bits of the device's configuration; `answers` takes the time that it takes."""
        return int.from_bytes(self._device.config.data[offset : offset + _FIELD_BYTES], "little")

    def answers(self) -> Task:
        """Wait as long as the host takes to answer a message; that costs it what a report without blocks does."""
        asked = Doorbell(self._loop)

        def arrived() -> None:
            self._asked.append(asked)
            self._rung.ring()

        self._loop.at(self._loop.now_ps + self._wake_ps, arrived)
        yield from asked.wait()

    def run(self) -> Task:
        """Serve each kick and each message, and move the target, for as long as that takes; one after the other."""
        loop = self._loop
        while True:
            yield from self._rung.wait()
            yield from self._process.goes_on()  # a stopped host takes up nothing
            if self._policy is not None and loop.now_ps >= self._policy_due_ps:
                self._policy.act(self._device)
                self._policy_due_ps = loop.now_ps + self._policy_ps
                loop.at(self._policy_due_ps, self._rung.ring)
            while self._asked:
                asked = self._asked.pop(0)
                yield from self._process.work(lambda: self._element_ps)
                loop.at(loop.now_ps + self._wake_ps, asked.ring)
            while self._kicked:
                yield from self._serve(self._kicked.pop(0))

    def _serve(self, index: int) -> Task:
        """Turns on a queue until it is empty."""
        more = True
        while more:
            turns: list[Turn] = []
            yield from self._process.work(self._turn(index, turns))
            self._worked.notify()
            (turn,) = turns
            if turn.call:
                self._loop.at(self._loop.now_ps + self._wake_ps, self.called.ring)
            more = turn.more

    def _turn(self, index: int, turns: list[Turn]) -> Callable[[], int]:
        """One turn on a queue, as what `SimulatedProcess.work` does; the turn is put into the list."""

        def does() -> int:
            reports, blocks = self._counts()
            turns.append(self._device.process(index, ELEMENTS_PER_TURN))
            reports_now, blocks_now = self._counts()
            return (reports_now - reports) * self._element_ps + (blocks_now - blocks) * self._block_ps

        return does

    def _counts(self) -> tuple[int, int]:
        """Elements and blocks so far, on all queues."""
        word = self._ledger.words.item
        return (
            word(_REPORT + REPORTS) + word(_INFLATE + REPORTS) + word(_DEFLATE + REPORTS),
            word(_REPORT + BLOCKS) + word(_INFLATE + BLOCKS) + word(_DEFLATE + BLOCKS),
        )
