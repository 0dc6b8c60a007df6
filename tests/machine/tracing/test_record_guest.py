"""A real kernel under QEMU records itself."""

import os
from pathlib import Path

import msgspec
import pytest

from pagetide.machine.linux.balloon_host import HypervisorHost
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.linux.packages import find_linux, find_qemu
from pagetide.machine.linux.qemu import Qemu
from pagetide.machine.tracing.in_guest import GuestRecorder
from pagetide.machine.tracing.kernel_files import NoTracingError
from pagetide.machine.tracing.recording import read_recording
from tests.machine.tracing.recorded import Recorded, save
from tests.machine.watcher import MIB, Watcher

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder_for_guests")]

TINY = BootConfig(ram_bytes=128 * MIB, fill_bytes=4 * MIB, bursts=1, hold_s=0.0, sends=True)


def run(recorder: GuestRecorder, config: BootConfig = TINY) -> str:
    """Run a guest with it; how the run ended."""
    qemu = Qemu(find_linux(), find_qemu(generic=False), is_balloon=True)
    return LinuxMachine(config, qemu, HypervisorHost(), recorder).run(Watcher()).outcome


def test_a_guests_kernel_is_recorded() -> None:
    """Each page of the guest's file is seen to be allocated and freed, no event is lost, and the kernel agrees."""
    recorder = GuestRecorder(8 << 20)
    assert run(recorder) == "complete"
    recording = recorder.recording
    assert recording is not None
    if "KEEP" in os.environ:
        save(Recorded(*recording, ""), Path(os.environ["KEEP"]))
    stream, account = read_recording(recording, "all")
    stream.check()
    assert account.lost == account.gaps == 0
    pages = TINY.fill_bytes >> 12
    assert account.fit.allocated_pages > pages
    assert account.fit.exact > pages
    assert account.troubles(0.2) == []  # what the reading of its files takes is a part of so little
    assert [mark.name for mark in stream.marks][-2:] == ["burst 1 of 1: eating", "burst 1 of 1: freed, reporting"]


def test_a_buffer_that_is_too_small_is_no_recording() -> None:
    """Where the marks themselves found no room there is no stream; it is not made of what is left."""
    recorder = GuestRecorder(8 << 10)
    assert run(recorder, msgspec.structs.replace(TINY, fill_bytes=20 * MIB)) == "complete"
    assert recorder.recording is not None
    assert recorder.recording.lost > 1000
    with pytest.raises(ValueError, match=r"marks .* were found: the kernel's buffers were too small$"):
        read_recording(recorder.recording, "all")


class NoEvents(GuestRecorder):
    """A recorder that asks for an event that no kernel has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(1 << 20)
        monkeypatch.setattr("pagetide.machine.tracing.instance.RECORDED", ("kmem/no_such_event",))


def test_a_guest_without_the_events_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest is not run for nothing, and the sentence says which event."""
    with pytest.raises(NoTracingError, match=r"tracing has no event kmem/no_such_event"):
        run(NoEvents(monkeypatch))
