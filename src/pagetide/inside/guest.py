"""The kernel's files, read and written: a part of `pagetide tend` in Python, which is one file (__init__.py)."""

import os
from pathlib import Path

CAPACITY = 32  # blocks in a report (include/linux/page_reporting.h)


class BusyError(Exception):
    """The guest got busy."""


def log(text: str) -> None:
    """One line of the log."""
    print(f"tend: {text}", flush=True)  # noqa: T201 - it is the log


class Guest:
    """The kernel of this guest. `root` is where its files begin, which is / but in tests."""

    def __init__(self, root: str, *, dry_run: bool) -> None:
        """Find out what there is."""
        self.root, self.dry_run = Path(root), dry_run
        self.order_file = self.root / "sys/module/page_reporting/parameters/page_reporting_order"
        folders = [self.root / name for name in ("run", "tmp")]
        self.state_file = next(folder for folder in folders if folder.is_dir()) / "pagetide-tend"
        self.new_file = self.state_file.with_suffix(".new")
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
        self.new_file.unlink(missing_ok=True)  # a signal came before anything was changed
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
        self.new_file.write_text(f"{self.order} {fraction}\n")
        self.new_file.rename(self.state_file)

    def left_kib(self, order: int) -> int:
        """What is free and not reported from this order: see tend.sh."""
        left, lows = 0, self.lows()
        for line in self.lines("proc/buddyinfo"):
            _, node, _, zone, *counts = line.split()
            sizes = [int(count) << at for at, count in enumerate(counts)]
            is_enough = sum(sizes) > lows.get((node, zone), 0) + (CAPACITY << order)
            left += sum(sizes[:order] if is_enough else sizes)
        return self.page_kib * left

    def lows(self) -> "dict[tuple[str, str], int]":
        """Each zone's low watermark, in pages."""
        found, zone = {}, ("", "")
        for words in map(str.split, self.lines("proc/zoneinfo")):
            if words[:1] == ["Node"]:
                zone = words[1], words[3]
            elif words[:1] == ["low"]:
                found[zone] = int(words[1])
        return found

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
