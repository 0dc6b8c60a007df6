"""What is broken on purpose where the host takes frames by itself (`shared`)."""

from pagetide.explorer.broken.variant import Variant
from pagetide.explorer.scenarios import SCENARIOS_SHARED
from pagetide.explorer.source import Edit

FRAMES = {
    "a frame that is being taken is allocated": Variant(
        "the guest allocates a frame while the host discards it",
        "shared",
        SCENARIOS_SHARED["take"],
        (
            Edit(
                "memory.frame_states",
                "def claimed(",
                "return REFUSED if old & STATE_MASK == TAKING else IN_USE",
                "return IN_USE",
            ),
        ),
        "is discarded while it is allocated",
    ),
    "taken without a comparison": Variant(
        "the host looks whether a frame is free, and then stores that it takes it",
        "shared",
        SCENARIOS_SHARED["take"],
        (
            Edit(
                "host.device.taking",
                "def begin_batch(",
                "atomic_compare_exchange(table, FRAMES + frame, old, new) == old",
                "atomic_store(table, FRAMES + frame, new) is None",
            ),
        ),
        "the frame table offers what is not free",
    ),
    "a killed host's frames are forgotten": Variant(
        "a host that takes over leaves alone what the one before was discarding",
        "shared",
        SCENARIOS_SHARED["killed"],
        (Edit("host.device.taking", "def recover(", "new = take_abandoned(old)", "new = REFUSED"),),
        "a false OOM",
    ),
    "a killed host's frames count as discarded": Variant(
        "a host that takes over believes that the one before had discarded what it was about to",
        "shared",
        SCENARIOS_SHARED["killed"],
        (Edit("memory.frame_states", "def take_abandoned(", "old ^ (FREE ^ TAKING)", "old | TAKEN"),),
        "is TAKEN and was not discarded",
    ),
    "the table is left too early": Variant(
        "a guest that withdraws its frames no longer looks at the table, though the host still discards one",
        "shared",
        SCENARIOS_SHARED["switch"],
        (Edit("guest.reporting.designs.shared", "def stop(", "if not taking:", "if True:"),),
        "",
    ),
}
"""By name."""
