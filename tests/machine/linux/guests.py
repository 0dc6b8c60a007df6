"""What tests of real Linux guests share. Needs the fixture `folder_for_guests`."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from pagetide.machine.linux.boot_config import BootConfig
from tests.machine.watcher import MIB, Watcher

SMALL = BootConfig(ram_bytes=256 * MIB, fill_bytes=150 * MIB, bursts=1, hold_s=0.2, order=3)


def processes_of_guests() -> list[psutil.Process]:
    """Every process of this test's guests that still has memory."""
    every = psutil.process_iter(["cmdline"])
    return [process for process in every if tempfile.gettempdir() in " ".join(process.info["cmdline"] or [])]


def folders_of_guests() -> list[str]:
    """Folders of guests that are left."""
    return [path.name for path in Path(tempfile.gettempdir()).glob("pagetide-guest-*")]


def gone(what: Callable[[], list[Any]]) -> bool:
    """Whether this is empty, at once or within ten seconds."""
    deadline_s = time.monotonic() + 10
    while what() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return not what()


def when_full(act: Callable[[], None]) -> Watcher:
    """A watcher that does this once the guest has filled most of its memory."""
    return Watcher(act, at_bytes=140 * MIB)


def kill_guest(name: str) -> None:
    """Kill the guest's process, whose name has this in it, and none of its helpers."""
    next(process for process in psutil.Process().children() if name in process.name()).kill()
