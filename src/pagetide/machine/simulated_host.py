"""The host of a simulated machine: the very same device, served in virtual time, over memory that is metadata."""

from collections.abc import Generator, Sequence

import numpy as np

from pagetide import linux
from pagetide.host.attached_guest import ELEMENTS_PER_TURN
from pagetide.host.device import FEATURES, BalloonDevice, QueuePlace
from pagetide.host.discard import piece_bytes
from pagetide.host.guest_memory import GuestMemoryError
from pagetide.host.ledger import BLOCKS, REPORTS, Ledger
from pagetide.machine.costs import PS_PER_S, BackingCosts, Costs
from pagetide.machine.simulated_faults import Fault, finish_s
from pagetide.machine.simulated_loop import Doorbell, Loop, Signal, Task, Wait
from pagetide.memory.metadata import PIECE_KINDS, PUNCHED_PAGES, PUNCHES, MetadataFile, stamp_metadata
from pagetide.memory.region_map import REGION_FD, Region, RegionMap
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES
from pagetide.virtio.ring import used_ring_bytes

_PUNCHES = slice(PUNCHES, PUNCHES + PIECE_KINDS)
_PUNCHED_PAGES = slice(PUNCHED_PAGES, PUNCHED_PAGES + PIECE_KINDS)


class SimulatedRam:
    """Guest memory of which only the rings are real: one region at 0, whose discarding is metadata.

    Attributes:
        file: what is resident.
        address: where guest-physical address 0 is mapped; only what the rings touch takes memory.
        region_map: for the device.
    """

    def __init__(self, size_bytes: int, *, huge: bool) -> None:
        """Map it; nothing is resident.

        Raises:
            OSError: the kernel refused so large a mapping.
        """
        self.file = MetadataFile(size_bytes, huge=huge)
        self._size_bytes = size_bytes
        self.address = linux.mmap(
            0,
            size_bytes,
            linux.PROT_READ | linux.PROT_WRITE,
            linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_NORESERVE,
        )
        piece = piece_bytes((2 << 20) if huge else PAGE_SIZE_BYTES)
        self.region_map = RegionMap([Region(0, size_bytes, 0, 0, self.address, piece_bytes=piece)])
        self.region_map.table[0, REGION_FD] = self.file.fd

    def close(self) -> None:
        """Unmap it."""
        linux.munmap(self.address, self._size_bytes)

    def address_of(self, user_address: int, length_bytes: int) -> int:
        """Where something is; user addresses are guest-physical ones."""
        if not 0 <= user_address <= self._size_bytes - length_bytes:
            raise GuestMemoryError(f"no memory region holds {length_bytes} bytes at user address {user_address:#x}")
        return self.address + user_address


class SimulatedHost:
    """The host, and the driver's way to it (a BalloonTransport).

    Attributes:
        called: rings when the device calls the driver.
        busy_ps: how long it has worked.
    """

    def __init__(
        self,
        loop: Loop,
        ram: SimulatedRam,
        ledger: Ledger,
        costs: Costs,
        backing: BackingCosts,
        faults: Sequence[Fault],
        worked: Signal,
        *,
        verify_share: float,
    ) -> None:
        """Make the device; `run` is its task, and `worked` is notified after each turn."""
        self.called = Doorbell(loop)
        self.busy_ps = 0
        self._loop, self._ram, self._ledger, self._faults, self._worked = loop, ram, ledger, faults, worked
        self._costs, self._punch_ps, self._page_ps = costs, backing.punch.ps, backing.page_ps()
        self._device = BalloonDevice(ram, ledger, verify_share=verify_share)
        self._kicked = Doorbell(loop)
        self._index = self._features = 0
        self._discarding = (0, 1, 0)

    @property
    def resident_bytes(self) -> int:
        """What the host holds for the guest; what is being discarded goes steadily until that is done."""
        start_ps, end_ps, pages = self._discarding
        left = min(1.0, max(0.0, (end_ps - self._loop.now_ps) / (end_ps - start_ps)))
        return self._ram.file.resident_bytes + int(pages * left) * PAGE_SIZE_BYTES

    def negotiate(self, wanted: int) -> int:
        """Agree on features."""
        self._features = wanted & int(FEATURES)
        return self._features

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        """Start a queue; its pages are resident from now on."""
        self._index = index
        first, last = (gpa >> PAGE_SHIFT for gpa in (desc_gpa, used_gpa + used_ring_bytes(size) - 1))
        stamp_metadata(self._ram.file.address, first, last + 1 - first)
        self._device.start_queue(index, QueuePlace(size, desc_gpa, avail_gpa, used_gpa), 0, self._features)

    def driver_ok(self) -> None:
        """Nothing is to be done."""

    def kick(self, index: int) -> None:
        """Notify the device."""
        assert index == self._index
        self._loop.at(self._loop.now_ps + self._costs.wake.ps, self._kicked.ring)

    def write_config(self, offset: int, value: int) -> None:
        """Write 32 bits of the device's configuration."""
        self._device.config[offset : offset + 4] = value.to_bytes(4, "little")

    def run(self) -> Task:
        """Serve each kick, for as long as that takes."""
        while True:
            yield from self._kicked.wait()
            more = True
            while more:
                more = yield from self._turn()

    def _turn(self) -> Generator[Wait, None, bool]:
        """One turn on the queue; whether another is wanted."""
        loop, words, account = self._loop, self._ram.file.words, self._ledger.words
        yield None, self._finish_ps(0)  # a stopped host takes up nothing
        punches, pages = words[_PUNCHES].copy(), words[_PUNCHED_PAGES].copy()
        reports, blocks = int(account[REPORTS]), int(account[BLOCKS])
        turn = self._device.process(self._index, ELEMENTS_PER_TURN)
        gone = words[_PUNCHED_PAGES] - pages
        work_ps = (
            (int(account[REPORTS]) - reports) * self._costs.element.ps
            + (int(account[BLOCKS]) - blocks) * self._costs.element_block.ps
            + int((words[_PUNCHES] - punches).sum()) * self._punch_ps
            + int(np.dot(gone, self._page_ps))
        )
        self.busy_ps += work_ps
        end_ps = self._finish_ps(work_ps)
        self._discarding = (loop.now_ps, max(end_ps, loop.now_ps + 1), int(gone.sum()))
        yield None, end_ps
        self._worked.notify()
        if turn.call:
            loop.at(loop.now_ps + self._costs.wake.ps, self.called.ring)
        return turn.more

    def _finish_ps(self, work_ps: int) -> int:
        """When work begun now is done."""
        if not self._faults:
            return self._loop.now_ps + work_ps
        done_s = finish_s(self._loop.now_s, work_ps / PS_PER_S, self._faults)
        return max(self._loop.now_ps, round(done_s * PS_PER_S))
