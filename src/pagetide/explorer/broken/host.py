"""What is broken on purpose between guest and host: the ring and its device."""

from pagetide.explorer.broken.variant import Variant
from pagetide.explorer.scenarios import SCENARIOS
from pagetide.explorer.source import Edit

_START = SCENARIOS["start"]
_RING = SCENARIOS["ring"]

HOST = {
    "acknowledged before it is discarded": Variant(
        "the device gives an element back before it punches the hole",
        "cursor",
        _START._replace(ring_finely=True),
        (
            Edit(
                "host.device.queues.turn",
                "def _begin_next(",
                "        finish_joined(",
                "        push_used(ring, ring[POPPED_HEAD], 0)\n        publish_used(ring)\n        finish_joined(",
            ),
            Edit(
                "host.device.queues.joined", "def finish_joined(", "push_used(ring, progress[HEADS + place], 0)", "pass"
            ),
            Edit("host.device.queues.turn", "def take_turn(", "call = publish_used(ring)", "call = 1"),
        ),
        "is discarded while",
    ),
    "acknowledged before all pieces are done": Variant(
        "the device gives an element back when its turn ends within it",
        "cursor",
        SCENARIOS["pieces"],
        (
            Edit(
                "host.device.queues.turn",
                "def take_turn(",
                "if progress[NEXT_RANGE] < progress[RANGE_COUNT]:",
                "if False:",
            ),
        ),
        "is marked Reported and was not discarded",
    ),
    "call missed": Variant(
        "the driver asks for a call and sleeps without another look",
        "scan",
        _RING,
        (
            Edit(
                "virtio.split_ring.driver",
                "def arm_call(",
                "return 1 if load_u16_acquire(state[USED_ADDRESS] + RING_IDX) != state[USED_SEEN] else 0",
                "return 0",
            ),
        ),
        "a deadlock",
    ),
    "kick missed": Variant(
        "the device asks for a kick and sleeps without another look",
        "scan",
        _RING,
        (
            Edit(
                "virtio.split_ring.device",
                "def arm_kick(",
                "return 1 if load_u16_acquire(state[AVAIL_ADDRESS] + RING_IDX) != state[LAST_AVAIL] else 0",
                "return 0",
            ),
        ),
        "a deadlock",
    ),
    "kick under the lock": Variant(
        "a batch is reported with the zone lock held",
        "cursor",
        _START,
        (
            Edit(
                "guest.driver.reporting",
                "def submit(",
                "            self._transport",
                "            lock(self._transport.words, 8)\n            self._transport",
            ),
            Edit(
                "guest.driver.reporting",
                "from typing",
                "import Protocol",
                "import Protocol\nfrom pagetide.guest.allocator.zone_lock import lock",
            ),
        ),
        "a lock is held across a kick",
    ),
}
"""By name."""
