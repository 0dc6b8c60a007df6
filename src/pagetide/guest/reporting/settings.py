"""How a design is tuned: the choices and their defaults. Imports nothing, since `--help` does not need arrays."""

from typing import Literal, NamedTuple

Oom = Literal["none", "wait", "cap", "swap"]
"""What keeps blocks that are out for reporting from making an allocation fail (S15 of the thread).

`none`: nothing does. `wait`: an allocation waits for them before it fails. `cap`: no more than `in_flight_max_bytes`
are out. `swap`: spare blocks take their place (Tsirkin's hinting buffer).
"""

Pace = Literal["drain", "linux"]
"""How much of the free lists a pass goes through: until nothing is left, or about a sixteenth of each list."""

Wake = Literal["merge", "threshold", "timer"]
"""What makes the worker run (S17): a free block of the reporting order, that many of them, or the clock alone."""


class ReportingSettings(NamedTuple):
    """How a design is tuned; each takes what fits it.

    Attributes:
        order: the smallest block that is reported.
        delay_s: how long after a request a pass begins; None is the design's own.
        capacity: blocks in a batch at most.
        pace: `drain` until nothing is left, or `linux`, about a sixteenth of each list a pass.
        cool_s: how long a block must have been free before it is reported.
        wake: what makes the worker run; None is the design's own.
        wake_blocks: how many unreported blocks `threshold` waits for.
        oom: what is done against false OOMs.
        in_flight_max_bytes: for `cap`, the most that is out at once; for `swap`, the most that is kept as spares.
        hints_max: length of a vCPU's array of hints, for designs that have one.
        drop_share: share of its hints that `hybrid` may drop before it scans.
        keep_s: for how long what `pool` keeps would last at the rate of allocations of late.
        idle_s: the least time for which `pool` keeps what was freed.
        unit_order: 2^N pages that the host gives back at a time: `pool` reports no smaller blocks.
    """

    order: int = 9
    delay_s: float | None = None
    capacity: int = 32
    pace: Pace = "drain"
    cool_s: float = 0.0
    wake: Wake | None = None
    wake_blocks: int = 16
    oom: Oom = "wait"
    in_flight_max_bytes: int = 64 << 20
    hints_max: int = 256
    drop_share: float = 0.01
    keep_s: float = 5.0
    idle_s: float = 3.0
    unit_order: int = 0
