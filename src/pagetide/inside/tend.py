#!/usr/bin/env python3
"""pagetide tend: has stock free page reporting give back what it leaves, whenever this guest is idle.

The same as tend.sh beside it, which says why, step by step and word by word; and it gives back page cache, if asked to.
It needs Python 3.8 and nothing else.
"""

import argparse
import os
import signal
import sys
import time
from typing import NoReturn

from pagetide.inside.cache import Cache
from pagetide.inside.guest import BusyError, Guest, log

PRESSURE_BUSY = 5.0  # percent of the last ten seconds in which some task waited for memory
COMPACTIONS_MAX = 3
LONG_LOOK_S = 4
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Tender:
    """Watches, tends and puts back."""

    def __init__(self, guest: Guest, options: argparse.Namespace) -> None:
        """Take the guest and what was asked for."""
        self.guest, self.options = guest, options
        self.limit = max(options.busy, 5 * guest.cpus)
        self.worth_kib = options.worth * 1024
        self.compactions, self.told, self.spent = COMPACTIONS_MAX, False, 0
        self.cache = None if options.cache is None else Cache(guest, options.cache)

    def stay_idle(self, seconds: int = 1) -> bool:
        """So long later: whether the guest was idle in each second of it (if it used no more than it may in one)."""
        before = self.guest.used()
        time.sleep(seconds)
        self.spent = self.guest.used() - before
        return self.spent <= self.limit and self.guest.pressure() < PRESSURE_BUSY

    def wait_dry(self, most_s: int) -> None:
        """Wait until at most two reports came in five seconds: so many bring this program's own allocations."""
        seen, few = self.guest.reports(), 0
        for _ in range(most_s):
            if few == 5:
                return
            if not self.stay_idle():
                raise BusyError
            now = self.guest.reports()
            seen, few = (now, 0) if now - seen > 2 else (seen, few + 1)

    def wake(self) -> None:
        """Free more than per-CPU lists hold: a pass begins when a block of the order is freed beyond them."""
        size = (self.guest.lists_kib("high:") // self.guest.cpus // 1024 + 4) << 20
        _ = b"\1" * size

    def trim_lists(self, listed_kib: int) -> None:
        """Have per-CPU lists give back what they hold, if that is much."""
        if self.guest.lists_file is None or listed_kib < self.worth_kib // 4:
            return
        self.guest.keep_state()
        if self.guest.write(1000000, self.guest.lists_file) and not self.guest.dry_run:
            time.sleep(2)
            log(f"per-CPU lists trimmed, which held {listed_kib // 1024} MiB")

    def compact(self) -> int:
        """Compact for as long as it brings something; what the order leaves then."""
        order, tries = self.guest.order, 0
        left = gain = self.guest.left_kib(order)
        while tries < self.compactions and left >= self.worth_kib and gain * 5 >= left:
            if not self.guest.write(1, self.guest.root / "proc/sys/vm/compact_memory"):
                self.compactions = 0
                break
            if self.guest.dry_run:
                worth = f"over {self.options.worth} MiB"
                log(f"if that left {worth}, the order would be lowered to 4, then 0, then put back")
                break
            before, left = left, self.guest.left_kib(order)
            tries, gain = tries + 1, before - left
            log(f"compacted: order {order} takes {gain // 1024} of those {before // 1024} MiB now")
        return left

    def lower(self, step: int, before_kib: int) -> int:
        """Report from this order for a while, if it takes enough of what there was; what it leaves."""
        left = self.guest.left_kib(step)
        if before_kib - left >= self.worth_kib // 2:
            log(f"order {self.guest.order} lowered to {step}, which takes {(before_kib - left) // 1024} MiB more")
            self.guest.keep_state()
            if not self.guest.write(step, self.guest.order_file):
                return before_kib
            self.wake()
            self.wait_dry(120)
        return left

    def tend(self) -> None:
        """One time of tending, from the first step to putting back."""
        guest, order = self.guest, self.guest.order
        if self.cache:
            self.cache.trim(self.worth_kib, self.stay_idle)
        left, listed = guest.left_kib(order), guest.lists_kib("count:")
        held = left + listed
        if held < self.worth_kib:
            if not self.told:
                log(f"nothing to do: order {order} leaves {held // 1024} MiB, those on per-CPU lists counted")
            self.told = True
            return
        log(f"order {order} leaves {left // 1024} MiB of what is free, and {listed // 1024} MiB are on per-CPU lists")
        first = guest.reports()
        self.trim_lists(listed)
        left = self.compact()
        if guest.dry_run:
            return
        if held - left >= held // 10:
            self.compactions = COMPACTIONS_MAX
            self.wake()
            self.wait_dry(60)
            left = guest.left_kib(order)
        elif self.compactions > 1:
            self.compactions = 1  # it brings nothing here: once is enough to see whether it does one day
        for step in (4, 0):
            if self.options.least_order <= step < order and left >= max(held // 8, self.worth_kib):
                left = self.lower(step, left)
        reports = guest.reports() - first
        log(f"done after {reports} interrupts of the balloon; {left // 1024} MiB are left")

    def watch(self) -> None:
        """Tend whenever the guest has been idle for long enough; until a signal, or once."""
        while True:
            idle, look_s = 0, 1
            while idle < self.options.idle:
                if self.stay_idle(look_s):
                    idle, look_s = idle + look_s, 1
                else:
                    idle, self.told = 0, False
                    # The shell's version starts a process for each look, so a busy guest is looked at seldom.
                    look_s = LONG_LOOK_S if self.spent > self.limit * look_s else 1
            try:
                self.tend()
                if self.options.once:
                    return
            except BusyError:
                log("the guest got busy")
            self.guest.put_back()
            # Again once it was busy; and what was freed since without that is worth a look once a minute.
            rested, look_s = 0, LONG_LOOK_S
            while rested < 60:
                is_idle = self.stay_idle(look_s)
                if not is_idle and (rested or self.spent > self.limit * look_s):
                    self.told = False
                    break
                rested += look_s
                look_s = look_s if is_idle else 1  # it always does a little: a long look tells nothing


class _Parser(argparse.ArgumentParser):
    """One sentence and status 1, as the shell's version has it."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"tend: {message}\n")


def read_options(arguments: "list[str]") -> argparse.Namespace:
    """The command line."""
    parser = _Parser(prog="tend.py", description="Ctrl-C or SIGTERM puts everything back.")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done now, and change nothing")
    parser.add_argument("--once", action="store_true", help="end after the first time that the guest was tended")
    for name, default, unit, meaning in (
        ("--idle", 5, "S", "idle for so long before anything is done"),
        ("--busy", 30, "PERCENT", "busy above this use of one processor, or 5 %% of all if that is more"),
        ("--worth", 16, "MIB", "leave less than this alone"),
        ("--least-order", 0, "N", "do not lower the order below this"),
    ):
        parser.add_argument(name, type=_whole, default=default, metavar=unit, help=f"{meaning} ({default})")
    meaning = "give back page cache beyond this share of memory, little by little, until tasks wait for it (no)"
    parser.add_argument("--cache", type=_percent, metavar="PERCENT", help=meaning)
    return parser.parse_args(arguments)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}")
    return int(text)


def _percent(text: str) -> int:
    if _whole(text) > 100:
        raise argparse.ArgumentTypeError(f"more than 100 percent: {text!r}")
    return int(text)


def main(arguments: "list[str]") -> int:
    """Tend this guest; an exit status."""
    options = read_options(arguments)
    try:
        guest = Guest(os.environ.get("TEND_ROOT") or "/", dry_run=options.dry_run)
        check(guest)
        tender = Tender(guest, options)
    except OSError as error:
        print(f"tend: {error}", file=sys.stderr)  # noqa: T201 - for people
        return 1
    if options.dry_run:
        tender.tend()
        return 0
    for number in SIGNALS:
        signal.signal(number, end)
    idle = f"idle is at most {tender.limit} % of a processor for {options.idle} s"
    log(f"tending a guest that reports from order {guest.order}; {idle}")
    try:
        try:
            tender.watch()
        finally:
            ignore_signals()
    finally:  # a signal may have come before they were ignored
        if not guest.put_back():
            sys.exit(1)
    return 0


def end(*_: object) -> NoReturn:
    """A signal ends the program, once: whatever is changed is put back."""
    ignore_signals()
    sys.exit(0)


def ignore_signals() -> None:
    """From now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def check(guest: Guest) -> None:
    """Put back what a killed run left, and read the order; OSError if there is nothing to tend here, or not by us."""
    path = guest.order_file
    if not path.exists():
        raise OSError(f"this kernel has no free page reporting ({path} is not there)")
    if not guest.dry_run:
        if not os.access(path, os.W_OK):
            raise OSError(f"{path} cannot be written: run it as root, or with --dry-run")
        if not guest.put_back():
            why = f"it stays written down in {guest.state_file}"
            raise OSError(f"what an earlier run changed cannot be put back; {why}")
    order = path.read_text().strip()
    if not order.isdigit():
        why = f"its balloon has no free page reporting (page_reporting_order is '{order}')"
        raise OSError(f"nothing reports in this guest: {why}")
    guest.order = int(order)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
