#!/usr/bin/env python3
"""pagetide tend: has stock free page reporting give back what it leaves in pieces, whenever this guest is idle.

The same as tend.sh beside it, which says why, step by step and word by word. It needs Python 3.8 and nothing else.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

PRESSURE_BUSY = 5.0  # percent of the last ten seconds in which some task waited for memory
COMPACTIONS_MAX = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class BusyError(Exception):
    """The guest got busy."""


def log(text: str) -> None:
    """One line of the log."""
    print(f"tend: {text}", flush=True)  # noqa: T201 - it is the log


class Guest:
    """The kernel's files, read and written. `root` is where they begin, which is / but in tests."""

    def __init__(self, root: str, *, dry_run: bool) -> None:
        """Find out what there is."""
        self.root, self.dry_run = Path(root), dry_run
        self.order_file = self.root / "sys/module/page_reporting/parameters/page_reporting_order"
        folders = [self.root / name for name in ("run", "tmp")]
        self.state_file = next(folder for folder in folders if folder.is_dir()) / "pagetide-tend"
        names = ("percpu_pagelist_high_fraction", "percpu_pagelist_fraction")
        self.lists_file = next((path for name in names if (path := self.root / "proc/sys/vm" / name).exists()), None)
        self.page_kib = os.sysconf("SC_PAGE_SIZE") // 1024
        self.cpus = sum(line.startswith("cpu") and line[3].isdigit() for line in self.lines("proc/stat")) or 1
        balloons = sorted(self.root.glob("sys/bus/virtio/drivers/virtio_balloon/virtio*"))
        name = balloons[-1].name if balloons else "virtio"
        self.balloon = name if any(name in line for line in self.lines("proc/interrupts")) else "virtio"
        self.order = 0

    def lines(self, path: str) -> "list[str]":
        """The lines of a file."""
        return (self.root / path).read_text().splitlines()

    def write(self, value: object, path: Path) -> bool:
        """Write a value to a file, or say that it would be; whether the kernel takes it, which it may not."""
        name = f"/{path.relative_to(self.root)}"
        if self.dry_run:
            log(f"would write {value} to {name}")
            return True
        try:
            path.write_text(f"{value}\n")
        except OSError:
            log(f"cannot write {value} to {name}")
            return False
        return True

    def put_back(self) -> bool:
        """Undo what was changed, by whichever run. False if that fails: then it stays written down for the next one."""
        if not self.state_file.exists():
            return True
        order, _, fraction = self.state_file.read_text().strip().partition(" ")
        done = self.write(order, self.order_file)
        if fraction != "-" and self.lists_file:
            done = self.write(fraction, self.lists_file) and done
        if done:
            self.state_file.unlink()
        return done

    def keep_state(self) -> None:
        """Write down what is going to change, so that a kill at any point can be mended."""
        if self.dry_run or self.state_file.exists():
            return
        fraction = self.lists_file.read_text().strip() if self.lists_file else "-"
        new = self.state_file.with_suffix(".new")
        new.write_text(f"{self.order} {fraction}\n")
        new.rename(self.state_file)

    def pieces_kib(self, order: int) -> int:
        """What is free in blocks below this order."""
        rows = [line.split()[4:] for line in self.lines("proc/buddyinfo")]
        return self.page_kib * sum(int(count) << at for row in rows for at, count in enumerate(row[:order]))

    def lists_kib(self, word: str) -> int:
        """What per-CPU lists have (`count:`), or may have (`high:`)."""
        found = [line.split() for line in self.lines("proc/zoneinfo")]
        return self.page_kib * sum(int(words[1]) for words in found if words and words[0] == word)

    def reports(self) -> int:
        """How often the balloon's device has interrupted, which it does once a report and seldom otherwise."""
        count = 0
        for line in self.lines("proc/interrupts"):
            if self.balloon in line:
                for word in line.split()[1:]:
                    if not word.isdigit():
                        break
                    count += int(word)
        return count

    def used(self) -> int:
        """Hundredths of a second that processors were in use, all together."""
        user, nice, system, _, _, irq, softirq = map(int, self.lines("proc/stat")[0].split()[1:8])
        return user + nice + system + irq + softirq

    def pressure(self) -> float:
        """Percent of the last ten seconds in which some task waited for memory; 0 where nobody tells."""
        try:
            return float(self.lines("proc/pressure/memory")[0].split()[1][len("avg10=") :])
        except OSError:
            return 0.0


class Tender:
    """Watches, tends and puts back."""

    def __init__(self, guest: Guest, options: argparse.Namespace) -> None:
        """Take the guest and what was asked for."""
        self.guest, self.options = guest, options
        self.limit = max(options.busy, 5 * guest.cpus)
        self.worth_kib = options.worth * 1024
        self.compactions, self.told = COMPACTIONS_MAX, False

    def stay_idle(self) -> bool:
        """A second later: whether the guest was idle in it."""
        before = self.guest.used()
        time.sleep(1)
        return self.guest.used() - before <= self.limit and self.guest.pressure() < PRESSURE_BUSY

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
        """Compact for as long as it brings something; what is left in pieces."""
        order, tries = self.guest.order, 0
        left = gain = self.guest.pieces_kib(order)
        while tries < self.compactions and left >= self.worth_kib and gain * 5 >= left:
            if not self.guest.write(1, self.guest.root / "proc/sys/vm/compact_memory"):
                self.compactions = 0
                break
            if self.guest.dry_run:
                worth = f"over {self.options.worth} MiB"
                log(f"if that left {worth} in pieces, the order would be lowered to 4, then 0, then put back")
                break
            before, left = left, self.guest.pieces_kib(order)
            tries, gain = tries + 1, before - left
            log(f"compacted: {gain // 1024} of {before // 1024} MiB are in blocks of order {order} and above now")
        return left

    def lower(self, step: int, left_kib: int) -> int:
        """Report from this order for a while, if there is enough between; what is in smaller pieces."""
        pieces = self.guest.pieces_kib(step)
        if left_kib - pieces >= self.worth_kib // 2:
            between = (left_kib - pieces) // 1024
            log(f"order {self.guest.order} lowered to {step}: {between} MiB are in blocks between")
            self.guest.keep_state()
            if not self.guest.write(step, self.guest.order_file):
                return left_kib
            self.wake()
            self.wait_dry(120)
        return pieces

    def tend(self) -> None:
        """One time of tending, from the first step to putting back."""
        guest, order = self.guest, self.guest.order
        pieces, listed = guest.pieces_kib(order), guest.lists_kib("count:")
        held = pieces + listed
        if held < self.worth_kib:
            if not self.told:
                log(f"nothing to do: {held // 1024} MiB are free in pieces below order {order} or on per-CPU lists")
            self.told = True
            return
        log(f"{pieces // 1024} MiB free in pieces below order {order} and {listed // 1024} MiB on per-CPU lists")
        first = guest.reports()
        self.trim_lists(listed)
        pieces = self.compact()
        if guest.dry_run:
            return
        if held - pieces >= held // 10:
            self.compactions = COMPACTIONS_MAX
            self.wake()
            self.wait_dry(60)
            pieces = guest.pieces_kib(order)
        elif self.compactions > 1:
            self.compactions = 1  # it brings nothing here: once is enough to see whether it does one day
        for step in (4, 0):
            if self.options.least_order <= step < order and pieces >= max(held // 8, self.worth_kib):
                pieces = self.lower(step, pieces)
        reports = guest.reports() - first
        log(f"done after {reports} interrupts of the balloon; {pieces // 1024} MiB are in smaller pieces")

    def watch(self) -> None:
        """Tend whenever the guest has been idle for long enough; until a signal, or once."""
        while True:
            idle = 0
            while idle < self.options.idle:
                if self.stay_idle():
                    idle += 1
                else:
                    idle, self.told = 0, False
            try:
                self.tend()
                if self.options.once:
                    return
            except BusyError:
                log("the guest got busy")
            self.guest.put_back()
            # Again once it was busy; and what was freed since without that is worth a look once a minute.
            for _ in range(60):
                if not self.stay_idle():
                    self.told = False
                    break


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
        ("--worth", 16, "MIB", "leave less than this in pieces alone"),
        ("--least-order", 0, "N", "do not lower the order below this"),
    ):
        parser.add_argument(name, type=_whole, default=default, metavar=unit, help=f"{meaning} ({default})")
    return parser.parse_args(arguments)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}")
    return int(text)


def main(arguments: "list[str]") -> int:
    """Tend this guest; an exit status."""
    options = read_options(arguments)
    try:
        guest = Guest(os.environ.get("TEND_ROOT") or "/", dry_run=options.dry_run)
        check(guest)
    except OSError as error:
        print(f"tend: {error}", file=sys.stderr)  # noqa: T201 - for people
        return 1
    tender = Tender(guest, options)
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
