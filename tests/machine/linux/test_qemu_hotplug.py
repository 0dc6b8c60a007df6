"""A real Linux guest whose balloon, or whose memory, is removed or added while it runs (QEMU 11)."""

import functools
import os
import select
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from pagetide.host.daemon.server import Server
from pagetide.host.guest.attached import AttachedGuest
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.guest import LinuxGuest
from pagetide.machine.linux.packages import QemuProgram, find_linux
from pagetide.machine.linux.qemu import Qemu
from pagetide.machine.qemu.qmp import Qmp
from tests.machine.linux.guests import SMALL
from tests.machine.watcher import MIB
from tests.real_guests import real_guests

pytestmark = [pytest.mark.usefixtures("folder_for_guests"), real_guests(2)]

PATIENCE_S = 120.0
_REMOVED_MIN_BYTES = 100 * MIB
_PORT = "port0"
DIMMS = 40  # a back-end without CONFIGURE_MEM_SLOTS has room for eight regions, and most others for 32
DIMM_BYTES = 128 * MIB
RAM_BYTES = 512 * MIB


class HotplugQemu(Qemu):
    """QEMU with its balloon at a port that is hot-pluggable, and a monitor at a socket."""

    def command(self, config: BootConfig, folder: Path, initrd: Path, balloon: Path | None) -> list[str]:
        """As ever, with the port before the balloon."""
        *start, chardev, chardev_value, device, looks = super().command(config, folder, initrd, balloon)
        return [
            *start, "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off",
            "-device", f"pcie-root-port,id={_PORT},chassis=1,slot=1",
            chardev, chardev_value, device, f"{looks},id=balloon0,bus={_PORT}",
        ]  # fmt: skip


class DimmsQemu(HotplugQemu):
    """The same with many DIMMs, each with a memory file of its own, that its guest takes into use."""

    def command(self, config: BootConfig, folder: Path, initrd: Path, balloon: Path | None) -> list[str]:
        """As ever, with room for more of them."""
        command = super().command(config, folder, initrd, balloon)
        command[command.index("-m") + 1] += f",slots={2 * DIMMS},maxmem=32G"
        command[command.index("-append") + 1] += " memhp_default_state=online"
        for number in range(DIMMS):
            command += ["-object", f"memory-backend-memfd,id=memory{number},size={DIMM_BYTES},share=on"]
            command += ["-device", f"pc-dimm,id=dimm{number},memdev=memory{number}"]
        return command


class Rig:
    """A server in a thread, and a guest that is attached to it."""

    def __init__(self, program: QemuProgram, kind: type[Qemu] = HotplugQemu, ram_bytes: int = 256 * MIB) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.server = Server()
        self.server.listen(self.folder / "vm1.sock")
        self._stop_fd = os.eventfd(0)
        self._thread = threading.Thread(target=self.server.run, args=(self._stop_fd,), daemon=True)
        self._thread.start()
        config = msgspec.structs.replace(SMALL, ram_bytes=ram_bytes)
        qemu = kind(find_linux(), program, is_balloon=False)
        self.linux = LinuxGuest(qemu, config, self.folder, self.folder / "vm1.sock")
        self.await_marker("ready")
        self.qmp = Qmp(self.folder / "qmp", timeout_s=PATIENCE_S)

    @property
    def attached(self) -> AttachedGuest:
        """The guest, always on its first connection."""
        (guest,) = self.server.guests
        assert guest.name == "vm1"
        return guest

    def await_marker(self, word: str) -> None:
        """Wait for the guest's init to say this."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            if select.select([self.linux], [], [], 1.0)[0]:
                for marker in self.linux.markers():
                    if marker.startswith(word):
                        return
        pytest.fail(f"the guest did not say {word!r}")

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until this is so; the guest's console is read meanwhile."""
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s
            if select.select([self.linux], [], [], 0.1)[0]:
                self.linux.markers()

    def burst(self) -> None:
        """Fill the guest's memory and free it."""
        self.linux.say("fill 120")
        self.await_marker("filled")
        self.linux.say("remove")
        self.await_marker("removed")

    def discarded_bytes(self) -> int:
        """Of the session that is."""
        return self.attached.ledger.snapshot()["verified_bytes"]

    def close(self) -> None:
        """Leave nothing."""
        self.qmp.close()
        self.linux.stop()
        os.eventfd_write(self._stop_fd, 1)
        self._thread.join()
        self.server.close()
        os.close(self._stop_fd)


@pytest.fixture
def rig(attachable: QemuProgram) -> Iterator[Rig]:
    """A booted guest."""
    with closing(Rig(attachable)) as rig:
        yield rig


def test_a_balloon_that_is_removed_and_added_again_reports_again(rig: Rig) -> None:
    """device_del and device_add: the guest gives back again, with an account from zero; a target set between counts.

    A target set while the machine is stopped, and while the device is removed, reaches the guest when there is one,
    and QEMU, whose generic device does not survive being told otherwise, lives.
    """
    rig.burst()
    rig.wait(lambda: rig.discarded_bytes() > _REMOVED_MIN_BYTES)

    rig.qmp.ask("stop")
    rig.wait(lambda: rig.attached.state == "stopped")
    assert rig.attached.set_target_bytes(224 * MIB)
    rig.qmp.ask("cont")
    rig.wait(lambda: rig.attached.state == "serving" and rig.attached.config.actual == 32 * 256)

    rig.qmp.ask("device_del", id="balloon0")
    rig.wait(lambda: rig.attached.state == "stopped")
    assert rig.attached.set_target_bytes(240 * MIB)
    ended = functools.partial(rig.qmp.ask, "qom-list", path="/machine/peripheral")
    rig.wait(lambda: "balloon0" not in {child["name"] for child in ended()})
    looks = {"virtio-id": 5, "num_vqs": 5, "vq_size": 128, "config_size": 16}
    rig.qmp.ask("device_add", driver="vhost-user-test-device-pci", id="balloon0", bus=_PORT, chardev="balloon", **looks)
    rig.wait(lambda: rig.attached.state == "serving" and rig.attached.config.actual == 16 * 256)
    rig.burst()
    rig.wait(lambda: rig.discarded_bytes() > _REMOVED_MIN_BYTES)
    assert rig.attached.ledger.snapshot()["malformed"] == 0
    assert rig.qmp.ask("query-status")["running"]


def test_a_guest_with_many_dimms_gives_back_of_all_of_them(attachable: QemuProgram) -> None:
    """Forty, and eight more while it runs: each is a region, and what is free in them is reported and discarded."""
    rig = Rig(attachable, DimmsQemu, RAM_BYTES)
    try:
        rig.wait(lambda: rig.discarded_bytes() > DIMMS * DIMM_BYTES - RAM_BYTES)
        for number in range(DIMMS, DIMMS + 8):
            memory = {"qom-type": "memory-backend-memfd", "id": f"memory{number}", "size": DIMM_BYTES, "share": True}
            rig.qmp.ask("object-add", **memory)
            rig.qmp.ask("device_add", driver="pc-dimm", id=f"dimm{number}", memdev=f"memory{number}")
        rig.wait(lambda: rig.discarded_bytes() > RAM_BYTES + DIMMS * DIMM_BYTES)  # more than there was before
        assert rig.attached.shared_bytes == RAM_BYTES + (DIMMS + 8) * DIMM_BYTES
        assert rig.attached.ledger.snapshot()["malformed"] == 0
        assert not any(rig.attached.ledger.skipped_bytes().values())
    finally:
        rig.close()
