"""What booting a real guest is made of: the settings of `pagetide boot`, and which settings of `run` they amount to."""

import msgspec

from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.units import ORDER_MAX, format_size

RAM_BYTES_MIN = 64 << 20
"""The smallest guest in which Linux boots and has room for something."""

FILL_SHARE_MAX = 0.85
"""Most of its RAM that a guest is asked to fill; the kernel and its page structures need the rest."""

LINUX_DELAY_S = 2.0
"""From a free to the pass that reports it (PAGE_REPORTING_DELAY, mm/page_reporting.c, Linux 6.1)."""

LINUX_CAPACITY = 32
"""Blocks in one report (PAGE_REPORTING_CAPACITY, include/linux/page_reporting.h, Linux 6.1)."""


class BootConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `pagetide boot`.

    Attributes:
        ram_bytes: guest RAM, a multiple of 4 MiB.
        fill_bytes: size of the file that it writes to a tmpfs, whole MiB.
        bursts: how many times it does so.
        hold_s: how long it keeps the file.
        order: the smallest block that is reported, 2^order pages; None leaves it to the kernel.
        sieve: every other page of the file goes to a second file that stays, so that what is removed is free in single
            pages.
        build: instead of the file there is a tree of small ones, each made by short-lived processes, as a build does; a
            fifth of it stays.
        tend: `pagetide tend` runs in the guest, and the end of each burst waits until it is done with what is left.
        sends: the guest has a second serial port, by which bytes come out of it (QEMU only).
        verify_share: share of reports whose discarding is read back from the kernel; 1 is all of them.
    """

    ram_bytes: int = 1 << 30
    fill_bytes: int = 700 << 20
    bursts: int = 3
    hold_s: float = 1.0
    order: int | None = None
    sieve: bool = False
    build: bool = False
    tend: bool = False
    sends: bool = False
    verify_share: float = 1.0

    def check(self) -> None:
        """Raise ConfigError for the first setting that is out of its range, whatever the machine."""
        fill_max_bytes = int(FILL_SHARE_MAX * self.ram_bytes)
        fill_max, fill = format_size(fill_max_bytes), format_size(self.fill_bytes)
        checks = (
            (
                self.ram_bytes >= RAM_BYTES_MIN,
                f"a Linux guest needs at least {format_size(RAM_BYTES_MIN)} of RAM, not {format_size(self.ram_bytes)}",
            ),
            (
                1 << 20 <= self.fill_bytes <= fill_max_bytes,
                f"a guest of {format_size(self.ram_bytes)} has room for a file of 1 MiB to {fill_max}, not {fill}",
            ),
            (not (self.sieve and self.build), "a file goes through the sieve, or is a build's tree: not both"),
            (self.fill_bytes % (1 << 20) == 0, f"the file must be a whole number of MiB, not {self.fill_bytes} bytes"),
        )
        for holds, sentence in checks:
            if not holds:
                raise ConfigError(sentence)
        self.run_config().check()

    @property
    def words(self) -> list[str]:
        """What init finds as variables: words for the kernel's command line."""
        order = [] if self.order is None else [f"reporting_order={self.order}"]
        return order + [f"{name}=1" for name in ("sieve", "build", "tend") if getattr(self, name)]

    def run_config(self) -> RunConfig:
        """The settings of `pagetide run` that describe this guest: Linux's design at Linux's pace on one vCPU."""
        return RunConfig(
            ram_bytes=self.ram_bytes,
            bursts=self.bursts,
            eat_share=self.fill_bytes / self.ram_bytes,
            hold_s=self.hold_s,
            order=ORDER_MAX if self.order is None else self.order,
            delay_s=LINUX_DELAY_S,
            capacity=LINUX_CAPACITY,
            pace="linux",
            vcpus=1,
            verify_share=self.verify_share,
        )
