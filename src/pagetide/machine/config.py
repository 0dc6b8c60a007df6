"""What one run is made of: every setting, its default, and the checks that make a bad one a clear sentence."""

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pagetide.guest.allocator.zone_layout import HINT_BLOCKS_MAX
from pagetide.guest.reporting.fits import POOL_DELAY_S_MIN, misfit
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.guest.reporting.settings import Oom, Pace, ReportingSettings, Wake
from pagetide.machine.config_error import ConfigError
from pagetide.machine.faults import Fault, FaultError, of_kind, parse_faults, ring_entries
from pagetide.units import HUGE_PAGE_BYTES, ORDER_MAX, PAGE_SIZE_BYTES, PAGEBLOCK_ORDER, format_size
from pagetide.workload.mix import MixError, parse_mix
from pagetide.workload.small import WAVE_SHARE
from pagetide.workload.stream import VCPUS_MAX

RAM_BYTES_MIN = 16 << 20
"""The smallest guest: below it the burst is too small to see."""

CAPACITY_MAX = 1024
PCP_BYTES_MIN = 1 << 20
QEMU_RAM_BYTES_MAX = 3 << 30
QEMU_CAPACITY_MAX = 32
EAT_SHARE_MAX = 0.98
SMALL_RATE_MAX = 100
OPERATIONS_MAX = 1 << 28
_IN_FLIGHT_SHARE = 32

Workload = Literal["burst", "web", "database", "churn", "small", "day"]

_WORKLOAD_DEFAULTS: dict[str, dict[str, Any]] = {
    "web": {"eat_share": 0.3, "rate_per_s": 1000.0, "mix": "9=0.25,4=0.25,2=0.25,0=0.25"},
    "database": {"eat_share": 0.8, "mix": "9=0.25,4=0.5,0=0.25"},
    "churn": {"eat_share": 0.5, "rate_per_s": 20000.0},
    "small": {
        "ram_bytes": 512 << 20,
        "eat_share": 0.975,
        "rate_per_s": 4.0,
        "delay_s": 0.0,
        "in_flight_max_bytes": 4 << 20,
    },
    "day": {"eat_share": 0.5, "rate_per_s": 200.0, "bursts": 4},
}


def workload_defaults(workload: str, design: str | None = None) -> dict[str, Any]:
    """What differs for a workload from the defaults of RunConfig, by field; a delay is one that the design can have."""
    defaults = {"workload": workload, "split": False, **_WORKLOAD_DEFAULTS.get(workload, {})}
    if design == "pool" and "delay_s" in defaults:
        defaults["delay_s"] = max(defaults["delay_s"], POOL_DELAY_S_MIN)
    return defaults


if TYPE_CHECKING:
    DesignName = str
else:
    DesignName = Literal[*DESIGNS]


class RunConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The settings of `pagetide run`.

    Attributes:
        workload: what the guest does with its memory.
        design: how it reports what is free; `off` reports nothing.
        ram_bytes: guest RAM, a multiple of 4 MiB.
        bursts: how many times the application eats and frees, with `burst` and `day`.
        eat_share: share of RAM that it eats each time; for the other workloads, what they hold at most, or on average
            with `churn`.
        hold_s: how long it keeps what it ate, with `burst` and `day`.
        rest_s: how long it rests after each, with `burst`; None is until the design is done, and 0.5 s more.
        duration_s: how long the workload lasts; `burst` lasts for as long as it takes.
        rate_per_s: how often in a second: requests of `web` and `day`, allocations of `churn`, waves of `small`.
        mix: shares of the memory in blocks of which order, as `9=0.5,0=0.5`.
        stream: a Parquet file whose operations are run in place of the workload's.
        migratetypes: whether the zone has free lists by migratetype; None is if the stream has migratetypes.
        faults: what goes wrong on purpose, as faults.py reads it.
        order: the smallest block that is reported, 2^order pages.
        delay_s: how long after a free the worker starts, with `shared` from one pass of the host to the next; None is
            the design's own (2 s for those that scan, for `shared` and with the timer, 1 s for `pool`, else 0). With
            `balloon` how often the host moves the target (0.5 s) and the guest looks at it (1 s).
        capacity: blocks in a report, and so isolated at once.
        pace: `drain` reports until nothing is left, `linux` about a sixteenth of each list every delay.
        cool_s: how long a block must have been free before it is reported.
        wake: what makes the worker run: a free block of the order (`merge`), `wake_blocks` of them (`threshold`), or
            the clock alone (`timer`); None is the design's own.
        wake_blocks: how many unreported blocks `threshold` waits for.
        oom: what keeps blocks that are out for reporting from making an allocation fail: nothing (`none`), the
            allocation waits for them (`wait`), few are out at once (`cap`), spare blocks take their place (`swap`).
        in_flight_max_bytes: for `cap` the most that is out at once, for `swap` the most that is kept as spares; None is
            a 32nd of RAM, from 4 MiB to 64 MiB.
        hints_max: length of a vCPU's array of hints in the designs that have one.
        drop_share: share of its hints that `hybrid` may drop before it scans.
        keep_s: for how long what `pool` keeps would last at the rate of allocations of late.
        vcpus: guest threads that allocate and free.
        pcp_max_bytes: the most that a vCPU's per-CPU lists grow to, where that is less than in Linux since 6.7: its
            share of an eighth of RAM.
        backing: `memfd` (small pages) or `hugetmpfs` (2 MiB pages).
        split: whether `pool` gives back parts of the host's 2 MiB pages, too, each of which splits one. It did before
            there was a choice, so this is what a result without it means; a run is made without (`workload_defaults`).
        verify_share: share of reports whose discarding is read back from the kernel; 1 is all of them.
        device: who serves the guest's balloon: our host, or a stock QEMU, which does not tell what it did.
        seed: drives every random choice.
    """

    workload: Workload = "burst"
    design: DesignName = "scan"
    ram_bytes: int = 2 << 30
    bursts: int = 3
    eat_share: float = 0.75
    hold_s: float = 1.0
    rest_s: float | None = None
    duration_s: float = 30.0
    rate_per_s: float = 1000.0
    mix: str = "9=0.5,4=0.125,2=0.125,0=0.25"
    stream: str | None = None
    migratetypes: bool | None = None
    faults: tuple[str, ...] = ()
    order: int = 9
    delay_s: float | None = None
    capacity: int = 32
    pace: Pace = "drain"
    cool_s: float = 0.0
    wake: Wake | None = None
    wake_blocks: int = 16
    oom: Oom = "wait"
    in_flight_max_bytes: int | None = None
    hints_max: int = 256
    drop_share: float = 0.01
    keep_s: float = 5.0
    vcpus: int = 2
    pcp_max_bytes: int = 16 << 20
    backing: Literal["memfd", "hugetmpfs"] = "memfd"
    split: bool = True
    verify_share: float = 1.0
    device: Literal["pagetide", "qemu"] = "pagetide"
    seed: int = 1

    @property
    def keeps_clock(self) -> bool:
        """Whether it matters for how long blocks have been free, so that the zone's clock is to be kept."""
        return self.cool_s > 0 or self.design == "pool"

    @property
    def in_flight_bytes(self) -> int:
        """`in_flight_max_bytes`, or its default for this guest."""
        if self.in_flight_max_bytes is not None:
            return self.in_flight_max_bytes
        return min(max(self.ram_bytes // _IN_FLIGHT_SHARE, PAGE_SIZE_BYTES << ORDER_MAX), 64 << 20)

    @property
    def pcp_max_pages(self) -> int:
        """`pcp_max_bytes` in pages."""
        return self.pcp_max_bytes // PAGE_SIZE_BYTES

    @property
    def parsed_faults(self) -> tuple[Fault, ...]:
        """The faults, read."""
        return parse_faults(self.faults)

    @property
    def report_blocks_max(self) -> int:
        """Blocks in a report at most: the capacity, or what a ring without indirect tables takes."""
        return min(self.capacity, ring_entries(self.parsed_faults) or self.capacity)

    @property
    def tuning(self) -> ReportingSettings:
        """How these settings tune a design."""
        return ReportingSettings(
            order=self.order,
            delay_s=self.delay_s,
            capacity=self.report_blocks_max,
            pace=self.pace,
            cool_s=self.cool_s,
            wake=self.wake,
            wake_blocks=self.wake_blocks,
            oom=self.oom,
            in_flight_max_bytes=self.in_flight_bytes,
            hints_max=self.hints_max,
            drop_share=self.drop_share,
            keep_s=self.keep_s,
            unit_order=PAGEBLOCK_ORDER if self.backing == "hugetmpfs" and not self.split else 0,
        )

    def check(self) -> None:
        """Raise ConfigError for the first setting that is out of its range, whatever the machine."""
        try:
            parse_mix(self.mix)
            parse_faults(self.faults)
        except (MixError, FaultError) as error:
            raise ConfigError(str(error)) from error
        block_bytes = PAGE_SIZE_BYTES << ORDER_MAX
        checks = (
            (
                self.ram_bytes >= RAM_BYTES_MIN,
                f"a guest needs at least {format_size(RAM_BYTES_MIN)} of RAM, not {format_size(self.ram_bytes)}",
            ),
            (
                self.ram_bytes % block_bytes == 0,
                f"RAM must be a multiple of {format_size(block_bytes)}, the largest block",
            ),
            (self.bursts >= 1, f"there must be at least 1 burst, not {self.bursts}"),
            (
                0 < self.eat_share <= EAT_SHARE_MAX,
                f"the share eaten must be above 0 and at most {EAT_SHARE_MAX}, not {self.eat_share}",
            ),
            (0 <= self.hold_s <= 86400, f"the hold must be from 0 s to a day, not {self.hold_s} s"),
            (
                self.rest_s is None or 0 < self.rest_s <= 86400,
                f"the rest must be above 0 s, at most a day, not {self.rest_s} s",
            ),
            (
                0 < self.duration_s <= 86400,
                f"the duration must be above 0 s, at most a day, not {self.duration_s} s",
            ),
            (
                self.rate_per_s > 0 and self.rate_per_s * self.duration_s <= OPERATIONS_MAX,
                f"the rate must be above 0 and make at most {OPERATIONS_MAX} operations, not {self.rate_per_s} /s",
            ),
            (
                self.workload != "day" or self.hold_s * self.bursts < self.duration_s,
                f"{self.bursts} bursts of {self.hold_s} s do not fit into a day of {self.duration_s} s",
            ),
            (
                self.workload != "small" or self.rate_per_s <= SMALL_RATE_MAX,
                f"the small guest has at most {SMALL_RATE_MAX} waves a second, not {self.rate_per_s}",
            ),
            (
                self.workload != "small" or self._small_fits(),
                f"the small guest must hold more than a wave, {WAVE_SHARE:g} of RAM, not {self.eat_share} of it",
            ),
            (0 <= self.order <= ORDER_MAX, f"the order must be from 0 to {ORDER_MAX}, not {self.order}"),
            (0 <= (self.delay_s or 0) <= 86400, f"the delay must be from 0 s to a day, not {self.delay_s} s"),
            (0 <= self.cool_s <= 86400, f"the time to cool must be from 0 s to a day, not {self.cool_s} s"),
            (
                self.wake != "timer" or self.delay_s != 0,
                f"with the timer {self.design} needs a delay above 0 s, or it would run all the time",
            ),
            (self.wake_blocks >= 1, f"the threshold must be at least 1 block, not {self.wake_blocks}"),
            (
                self.in_flight_max_bytes is None or self.in_flight_max_bytes >= block_bytes,
                f"at least {format_size(block_bytes)}, the largest block, must be allowed in flight",
            ),
            (
                1 <= self.hints_max <= HINT_BLOCKS_MAX,
                f"an array of hints has from 1 to {HINT_BLOCKS_MAX} entries, not {self.hints_max}",
            ),
            (0 <= self.drop_share < 1, f"the share dropped must be at least 0 and below 1, not {self.drop_share}"),
            (0 <= self.keep_s <= 3600, f"what is kept must last from 0 s to an hour, not {self.keep_s} s"),
            (
                1 <= self.capacity <= CAPACITY_MAX,
                f"the capacity must be from 1 to {CAPACITY_MAX} blocks, not {self.capacity}",
            ),
            (1 <= self.vcpus <= VCPUS_MAX, f"there must be from 1 to {VCPUS_MAX} vCPUs, not {self.vcpus}"),
            (
                self.pcp_max_bytes >= PCP_BYTES_MIN,
                f"per-CPU lists need {format_size(PCP_BYTES_MIN)} at least, not {format_size(self.pcp_max_bytes)}",
            ),
            (
                self.ram_bytes * self.eat_share >= self.vcpus * PAGE_SIZE_BYTES,
                f"a share of {self.eat_share} of {format_size(self.ram_bytes)} is not a page for each vCPU to eat",
            ),
            (
                self.device != "qemu" or self.ram_bytes <= QEMU_RAM_BYTES_MAX,
                f"with QEMU's device a guest has at most {format_size(QEMU_RAM_BYTES_MAX)} of RAM",
            ),
            (
                self.device != "qemu" or self.capacity <= QEMU_CAPACITY_MAX,
                f"QEMU's device takes at most {QEMU_CAPACITY_MAX} blocks in a report, not {self.capacity}",
            ),
            (
                self.device != "qemu" or (ring_entries(self.parsed_faults) or 1) <= QEMU_CAPACITY_MAX,
                f"QEMU's queue for reports has at most {QEMU_CAPACITY_MAX} entries",
            ),
            (
                self.device != "qemu" or not of_kind(self.parsed_faults, "mmlock", "mmlock-split"),
                "a thread of our host's process holds the mm lock; with QEMU's device there is no such process",
            ),
            (
                self.device != "qemu" or self.design not in ("shared", "balloon"),
                f"QEMU's device neither takes frames from a table nor sets a target; {self.design} needs our host",
            ),
            (
                self.device != "qemu" or self.backing == "memfd",
                f"with QEMU's device the backing is memfd, not {self.backing}",
            ),
            (0 <= self.verify_share <= 1, f"the share verified must be from 0 to 1, not {self.verify_share}"),
            (0 <= self.seed < 1 << 63, f"the seed must be from 0 to 2^63 - 1, not {self.seed}"),
        )
        for holds, sentence in checks:
            if not holds:
                raise ConfigError(sentence)
        why = misfit(self.design, self.tuning)
        if why is not None:
            raise ConfigError(why)

    def _small_fits(self) -> bool:
        """Whether `small` has something that stays, besides its waves."""
        return self.ram_bytes * self.eat_share >= WAVE_SHARE * self.ram_bytes + HUGE_PAGE_BYTES
