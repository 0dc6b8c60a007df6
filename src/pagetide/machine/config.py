"""What one run is made of: every setting, its default, and the checks that make a bad one a clear sentence."""

from typing import Literal

import msgspec

from pagetide.units import ORDER_MAX, PAGE_SIZE_BYTES, format_size

RAM_BYTES_MIN = 16 << 20
"""The smallest guest: below it the burst is too small to see."""

VCPUS_MAX = 64
CAPACITY_MAX = 1024


class ConfigError(ValueError):
    """A setting that cannot be had; the message is one sentence that says so and what would do."""


class RunConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The settings of `pagetide run`.

    Attributes:
        workload: what the guest does with its memory.
        design: how it reports what is free; `off` reports nothing.
        ram_bytes: guest RAM, a multiple of 4 MiB.
        bursts: how many times the application eats and frees.
        eat_share: share of RAM that it eats each time.
        hold_s: how long it keeps what it ate.
        order: the smallest block that is reported, 2^order pages.
        delay_s: how long after a free the worker starts.
        capacity: blocks in a report, and so isolated at once.
        pace: `drain` reports until nothing is left, `linux` about a sixteenth of each list every delay.
        vcpus: guest threads that allocate and free.
        backing: `memfd` (small pages) or `hugetmpfs` (2 MiB pages).
        verify_share: share of reports whose discarding is read back from the kernel; 1 is all of them.
        seed: drives every random choice.
    """

    workload: Literal["burst"] = "burst"
    design: Literal["scan", "off"] = "scan"
    ram_bytes: int = 2 << 30
    bursts: int = 3
    eat_share: float = 0.75
    hold_s: float = 1.0
    order: int = 9
    delay_s: float = 2.0
    capacity: int = 32
    pace: Literal["drain", "linux"] = "drain"
    vcpus: int = 2
    backing: Literal["memfd", "hugetmpfs"] = "memfd"
    verify_share: float = 1.0
    seed: int = 1

    def check(self) -> None:
        """Raise ConfigError for the first setting that is out of its range, whatever the machine."""
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
                0 < self.eat_share <= 0.95,
                f"the share eaten must be above 0 and at most 0.95, not {self.eat_share}",
            ),
            (0 <= self.hold_s <= 86400, f"the hold must be from 0 s to a day, not {self.hold_s} s"),
            (0 <= self.order <= ORDER_MAX, f"the order must be from 0 to {ORDER_MAX}, not {self.order}"),
            (0 <= self.delay_s <= 86400, f"the delay must be from 0 s to a day, not {self.delay_s} s"),
            (
                1 <= self.capacity <= CAPACITY_MAX,
                f"the capacity must be from 1 to {CAPACITY_MAX} blocks, not {self.capacity}",
            ),
            (1 <= self.vcpus <= VCPUS_MAX, f"there must be from 1 to {VCPUS_MAX} vCPUs, not {self.vcpus}"),
            (
                int(self.ram_bytes * self.eat_share) >= self.vcpus * PAGE_SIZE_BYTES,
                f"a share of {self.eat_share} of {format_size(self.ram_bytes)} is not a page for each vCPU to eat",
            ),
            (0 <= self.verify_share <= 1, f"the share verified must be from 0 to 1, not {self.verify_share}"),
            (0 <= self.seed < 1 << 63, f"the seed must be from 0 to 2^63 - 1, not {self.seed}"),
        )
        for holds, sentence in checks:
            if not holds:
                raise ConfigError(sentence)
