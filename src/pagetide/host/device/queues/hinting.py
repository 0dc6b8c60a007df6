"""The free page hinting queue (virtio 1.2, 5.5.6.5): rounds of hints, each under a command id of the device's.

Hints are made for migration: a hinted page may be in use again by the time the hint is read, and only a device that
logs writes can tell. This one does not, so it discards nothing: hints are checked, counted and acknowledged.
Reporting is what gives memory back.

A round begins with a new id in the configuration space. The driver announces the id in a device-readable buffer, sends
the pages that it has taken from its allocator, and ends with CMD_ID_STOP. The device then sets CMD_ID_DONE, at which
the driver puts the pages back.
"""

import numpy as np
import numpy.typing as npt

from pagetide.host.device.allowance import PAID_PAGES
from pagetide.host.device.queues.statistics import read_bytes
from pagetide.host.device.queues.turn import Turn
from pagetide.host.memory.ledger import HINTED_BYTES, HINTS, HINTS_STALE
from pagetide.memory.region_map import find_cover
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import CMD_ID_DONE, CMD_ID_STOP
from pagetide.virtio.split_ring.device_ring import DeviceRing, Element

CMD_ID_FIRST = 0x8000_0000
"""The first round's id, as QEMU has it; all ids from 2 to 2^32 - 1 are legal."""

_CMD_ID_BYTES = 4

_Words = npt.NDArray[np.int64]


class HintingRound:
    """Which round the device wants, apart from the queue so that it lives through the queue's restarts.

    Attributes:
        cmd_id: what the configuration space is to say.
        next_cmd_id: of the next round.
    """

    cmd_id: int
    next_cmd_id: int

    def __init__(self) -> None:
        """Begin without a round."""
        self.cmd_id = CMD_ID_STOP
        self.next_cmd_id = CMD_ID_FIRST

    def begin(self) -> None:
        """Ask for a new round."""
        self.cmd_id = self.next_cmd_id
        self.next_cmd_id = self.next_cmd_id + 1 if self.next_cmd_id < 0xFFFF_FFFF else CMD_ID_FIRST

    def end(self) -> None:
        """Want no round: the driver begins anew. Its next one has an id that it has not seen."""
        self.cmd_id = CMD_ID_STOP

    def take_over(self, cmd_id: int, next_cmd_id: int) -> None:
        """Go on after these of another device; a round that was under way there is done."""
        self.next_cmd_id = max(next_cmd_id, CMD_ID_FIRST)
        self.cmd_id = CMD_ID_STOP if cmd_id == CMD_ID_STOP else CMD_ID_DONE

    @property
    def wanted(self) -> bool:
        """Whether a round is asked for or under way."""
        return self.cmd_id not in {CMD_ID_STOP, CMD_ID_DONE}


class HintingQueue:
    """A started free page hinting queue."""

    def __init__(self, ring: DeviceRing, hinting: HintingRound, ledger: _Words) -> None:
        """Serve a ring for these rounds, and count in this ledger's words."""
        self.ring = ring
        self._round = hinting
        self._ledger = ledger
        self._announced = CMD_ID_STOP

    @property
    def next_avail(self) -> int:
        """The available ring entry at which another device would go on."""
        return self.ring.next_avail

    def process(self, regions: _Words, budget: int, skip: int) -> Turn:
        """Count and acknowledge up to `budget` elements.

        Raises:
            RingError: the driver broke a rule of the ring.
        """
        assert skip == 0, "hints are never discarded"
        before = self._round.cmd_id
        hinted_bytes = self._ledger.item(HINTED_BYTES)
        more = True
        self.ring.disarm_kick()
        try:
            for _ in range(budget):
                element = self.ring.pop(regions)
                if element is None:
                    if not self.ring.arm_kick():
                        more = False
                        break
                    self.ring.disarm_kick()
                    continue
                self._take(regions, element)
                self.ring.push(element.head, 0)
        finally:
            call = self.ring.publish()  # before an error too, what was dealt with is given back
        pages = min((self._ledger.item(HINTED_BYTES) - hinted_bytes) // PAGE_SIZE_BYTES, PAID_PAGES)
        in_vain = 0.0 if pages else 1.0
        changed = self._round.cmd_id != before
        return Turn(call, more, config_changed=changed, in_vain=in_vain, payable=not pages, pages=pages)

    def _take(self, regions: _Words, element: Element) -> None:
        command = read_bytes(regions, element, _CMD_ID_BYTES)
        if len(command) == _CMD_ID_BYTES:
            under_way = self._round.wanted and self._announced == self._round.cmd_id
            self._announced = int.from_bytes(command, "little")
            if under_way and self._announced == CMD_ID_STOP:
                self._round.cmd_id = CMD_ID_DONE
        counts = self._round.wanted and self._announced == self._round.cmd_id
        for gpa, length_bytes, writable in element.buffers:
            if writable:
                self._ledger[HINTS if counts else HINTS_STALE] += 1
                if counts and find_cover(regions, gpa, length_bytes) >= 0:
                    self._ledger[HINTED_BYTES] += length_bytes
