"""A real Linux under QEMU's generic device lives through restarts and kills of its daemon, and notices nothing.

PAGETIDE_RESTARTS says how many of each; ten were run by hand.
"""

import os
import random
import select
import signal
import time
from pathlib import Path

import msgspec
import pytest

from pagetide.machine.linux import initrd
from pagetide.machine.linux.guest import LinuxGuest
from pagetide.machine.linux.packages import QemuProgram, find_linux
from pagetide.machine.linux.qemu import Qemu
from pagetide.operate.host.control import ask
from tests.host.little_service_manager import LittleServiceManager
from tests.machine.linux.guests import SMALL
from tests.real_guests import real_guests

pytestmark = [pytest.mark.usefixtures("folder_for_guests"), real_guests(2)]

RESTARTS = int(os.environ.get("PAGETIDE_RESTARTS", "1"))
ROUND_MAX_S = 120.0

_INIT = """\
#!/bin/busybox sh
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs -o size=100% none /mnt
for module in /modules/*; do insmod "$module"; done
echo 3 >/sys/module/page_reporting/parameters/page_reporting_order
sum() { md5sum <"$1"; }
dd if=/dev/urandom of=/mnt/keep bs=1M count=8 2>/dev/null
keep=$(sum /mnt/keep)
[ -s /mnt/keep ] || echo "@nothing to keep"
round=0
while :; do
    dd if=/dev/urandom of=/mnt/stamp bs=1M count=2 2>/dev/null
    stamp=$(sum /mnt/stamp)
    dd if=/dev/zero of=/mnt/fill bs=1M count=100 2>/dev/null
    rm /mnt/fill
    [ "$(sum /mnt/stamp)" = "$stamp" ] && [ "$(sum /mnt/keep)" = "$keep" ] || echo "@wrong"
    rm /mnt/stamp
    round=$((round + 1))
    echo "@round $round"
done
"""


class LoadedGuest:
    """A Linux that fills and frees memory without end, and checks what it keeps."""

    def __init__(self, program: QemuProgram, folder: Path, balloon: Path) -> None:
        """Start it, attached to this socket."""
        config = msgspec.structs.replace(SMALL)
        self._guest = LinuxGuest(Qemu(find_linux(), program, is_balloon=False), config, folder, balloon)
        self._balloon = balloon
        self.rounds = 0

    def play(self, seconds: float) -> None:
        """Hear it for a while."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            ready, _, _ = select.select([self._guest.fileno(), self._guest.pidfd], [], [], left_s)
            assert self._guest.pidfd not in ready, self._guest.cause_of_death()
            for marker in self._guest.markers() if ready else ():
                assert marker.startswith("round "), marker
                self.rounds = int(marker.split()[1])

    def await_rounds(self, count: int) -> None:
        """Hear it until it has played so many more rounds."""
        wanted, deadline_s = self.rounds + count, time.monotonic() + ROUND_MAX_S
        while self.rounds < wanted:
            assert time.monotonic() < deadline_s, "the guest does not go on"
            self.play(0.1)

    def stop(self) -> None:
        """End it."""
        self._guest.stop()


def test_qemu_lives_through_restarts_and_kills(
    attachable: QemuProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection is closed, the account goes on, no page in use is lost, and reports come back after each."""
    monkeypatch.setattr(initrd, "INIT", _INIT)
    monkeypatch.setattr(initrd, "_APPLETS", (*initrd._APPLETS, "md5sum"))
    rng = random.Random(1)
    sock, folder = tmp_path / "vm.sock", tmp_path / "guest"
    folder.mkdir()
    with LittleServiceManager(tmp_path, "--socket", str(sock)) as manager:
        guest = LoadedGuest(attachable, folder, sock)
        try:
            guest.await_rounds(1)
            reported_bytes = 0
            for number in [signal.SIGTERM, signal.SIGKILL] * RESTARTS:
                guest.play(rng.uniform(0.0, 3.0))
                manager.restart(number)
                guest.await_rounds(2)
                (state,) = ask(tmp_path / "control", {"command": "list"})["guests"]
                assert state["name"] == "vm"
                assert state["ledger"]["reported_bytes"] > reported_bytes
                reported_bytes = state["ledger"]["reported_bytes"]
                assert "guest-3" in manager.store
            told = "".join(manager.log)
            assert "level=error" not in told, told
            assert "disconnected" not in told
            assert told.count("attached") == 1
            ledger = state["ledger"]
            (tmp_path / "ledger").write_text(f"{guest.rounds} rounds, {ledger}")
            assert ledger["reported_bytes"] == ledger["discarded_bytes"] == ledger["verified_bytes"]
        finally:
            guest.stop()
