"""`pagetide serve`, killed while real guests report: a new daemon on the same socket goes on, and nothing is lost."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import (
    BUDDY,
    ISOLATED_PAGES,
    NR_PAGES,
    REPORTED_PAGES,
    STAMP_ERRORS,
    arena_bytes,
    vcpu_base,
)
from pagetide.guest.driver.link import VhostUserLink, connect
from pagetide.guest.driver.reporting import BalloonDriver
from pagetide.guest.reporting.designs.scan import Scan
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.machine.config import RunConfig
from pagetide.machine.live.guest_run import GuestRun
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.machine.live.processes import Child, shared_memory
from pagetide.machine.messages import Command, Ended, GuestSetup, PhaseBegan, Ready
from pagetide.memory.guest_ram import GuestRam
from pagetide.memory.residency import resident_blocks, resident_bytes
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.split_ring.inflight import REGION_HEAD_BYTES, STATE_BYTES
from tests.machine.linux.eat_and_free import eat_and_free

pytestmark = [pytest.mark.jit, pytest.mark.slow]

RAM_BYTES = 96 << 20
BLOCKS = 160
"""Blocks of 256 KiB that a burst allocates and frees."""
ORDER = 6
KILLS = int(os.environ.get("PAGETIDE_KILLS", "4"))
"""How many times the daemon is killed; more take three seconds each."""
KILLS_ENOUGH = 20
"""With so many at least one must have come amid an element."""
TIMEOUT_S = 60.0


class Daemons:
    """One `pagetide serve` after the other at the same sockets."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._sockets = [word for name in names for word in ("--socket", self.path(name))]
        self._process: subprocess.Popen[str] | None = None

    def path(self, name: str) -> str:
        """A guest's socket."""
        return str(self._folder / f"{name}.sock")

    def start(self) -> None:
        """Start one, and wait until it listens."""
        command = [sys.executable, "-m", "pagetide.cli", "serve", *self._sockets]
        command += ["--control", str(self._folder / "control")]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        while "listening at" not in (line := self._process.stderr.readline()):
            assert line, "it ended"

    def end(self, number: int) -> str:
        """Send it a signal; its log."""
        assert self._process is not None
        self._process.send_signal(number)
        log = self._process.communicate(timeout=TIMEOUT_S)[1]
        assert self._process.returncode in (0, -number)
        self._process = None
        return log

    def close(self) -> None:
        """Leave none behind."""
        if self._process is not None:
            self.end(signal.SIGKILL)


class Guest:
    """A pagetide guest in a thread: driver, zone, stamps, one block a report."""

    def __init__(self, path: str) -> None:
        self.ram = GuestRam.create(RAM_BYTES, "memfd")
        self.link = VhostUserLink(connect(path), self.ram, path=path)
        self.zone = Zone(RAM_BYTES // PAGE_SIZE_BYTES)
        driver = BalloonDriver(self.zone, self.ram.address, self.link, 4)
        design = Scan(self.zone, ReportingSettings(order=ORDER, delay_s=0.0, capacity=4))
        self.worker = GuestWorker(design, driver, self.link, self.link)
        self._over = threading.Event()
        self._run: GuestRun | None = None
        self.bursts = 0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        try:
            with self.worker:
                while not self._over.is_set():
                    self._run = GuestRun(
                        self.zone, self.ram.address, eat_and_free(BLOCKS, ORDER), 1, self.worker, lambda _: None
                    )
                    self._run.run()
                    self.bursts += 1
        except BaseException as error:
            self._failure = error

    def in_flight(self) -> int:
        """Elements that the dead daemon took and did not settle."""
        assert self.link._inflight is not None
        data = os.pread(self.link._inflight[1], 1 << 16, 0)
        return sum(data[at] for at in range(REGION_HEAD_BYTES, len(data), STATE_BYTES))

    def end(self) -> None:
        """Let it come to rest; it must, and nothing may have gone wrong."""
        self._over.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the guest hangs"
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop it and give everything back."""
        self._over.set()
        if self._run is not None:
            self._run.stop()
        self._thread.join(TIMEOUT_S)
        self.link.close()
        self.ram.close()

    def check(self) -> None:
        """Every block is back in the zone once, no stamp is wrong, and what is marked reported is a hole."""
        words = self.zone.words
        assert words[vcpu_base(0) + STAMP_ERRORS] == 0
        assert words[ISOLATED_PAGES] == 0
        blocks = list(self.zone.blocks())
        assert sum(1 << block.order for block in blocks) == words[NR_PAGES]
        resident = resident_blocks(self.ram.fd, RAM_BYTES, PAGE_SIZE_BYTES)
        free = [block for block in blocks if block.kind == BUDDY and block.order >= ORDER]
        assert all(block.reported for block in free), "the drain leaves nothing unreported"
        assert sum(1 << block.order for block in free) > 0.8 * words[NR_PAGES]
        for block in free:
            assert not resident[block.pfn : block.pfn + (1 << block.order)].any(), f"{block} is not discarded"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_guests_live_through_the_death_of_their_daemon(tmp_path: Path, number: signal.Signals) -> None:
    """Killed or stopped at random moments, the daemon is replaced: every block is back, once, and discarded."""
    rng = random.Random(1)
    names = ("one", "two")
    daemons, guests = Daemons(tmp_path, names), []
    try:
        daemons.start()
        guests = [Guest(daemons.path(name)) for name in names]
        amid = 0
        kills = KILLS if number == signal.SIGKILL else 1
        for kill in range(1, kills + 1):
            threading.Event().wait(rng.uniform(0.01, 0.3))  # the moment is what is random
            log = daemons.end(number)
            assert "level=error" not in log, log
            amid += any(guest.in_flight() for guest in guests)
            daemons.start()
            for guest in guests:
                seen = guest.bursts
                _until(lambda guest=guest, seen=seen: guest.bursts > seen)
                assert guest.link.reconnections == kill
        assert amid or kills < KILLS_ENOUGH, "no kill came amid an element"
        for guest in guests:
            guest.end()
            guest.check()
        log = daemons.end(signal.SIGTERM)
        assert "level=error" not in log, log
    finally:
        for guest in guests:
            guest.close()
        daemons.close()


def _until(holds: object) -> None:
    assert callable(holds)
    for _ in range(int(TIMEOUT_S / 0.01)):
        if holds():
            return
        threading.Event().wait(0.01)
    pytest.fail("the guest does not go on")


def test_a_guest_in_a_process_of_its_own_lives_through_it_too(tmp_path: Path) -> None:
    """The machine's guest at a socket's path: its daemon dies while it frees, and its run ends in order."""
    config = RunConfig(ram_bytes=96 << 20, bursts=2, hold_s=0.0, delay_s=0.0, order=4, capacity=1)
    daemons = Daemons(tmp_path, ("vm",))
    with contextlib.ExitStack() as resources:
        resources.callback(daemons.close)
        daemons.start()
        ram_fd = resources.enter_context(GuestRam.create(config.ram_bytes, "memfd")).fd
        nr_pages = config.ram_bytes // PAGE_SIZE_BYTES
        arena_fd, arena = shared_memory(resources, "arena", arena_bytes(nr_pages, config.vcpus, config.pcp_max_pages))
        path = daemons.path("vm")
        guest = Child("guest", lambda fd: GuestSetup(config, fd, -1, ram_fd, arena_fd, path), [ram_fd, arena_fd])
        resources.callback(guest.close)
        while not guest.channel.closed:
            for message in guest.channel.receive():
                if isinstance(message, Ready):
                    guest.channel.send(Command("start"))
                elif isinstance(message, PhaseBegan) and not message.eats:
                    daemons.end(signal.SIGKILL)
                    daemons.start()
                elif isinstance(message, Ended):
                    guest.ended = message
        assert guest.ended is not None
        assert guest.ended.failure is None
        words = np.frombuffer(arena, np.int64, vcpu_base(config.vcpus))
        assert [words[vcpu_base(vcpu) + STAMP_ERRORS] for vcpu in range(config.vcpus)] == [0, 0]
        assert words[ISOLATED_PAGES] == 0
        assert words[REPORTED_PAGES] > 0.9 * nr_pages
        assert resident_bytes(ram_fd) < config.ram_bytes - words[REPORTED_PAGES] * PAGE_SIZE_BYTES + (1 << 20)
        del words
