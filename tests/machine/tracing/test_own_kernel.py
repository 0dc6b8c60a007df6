"""The running kernel records itself, and is left as it was."""

import contextlib
import os
import subprocess
import sys

import pytest

from pagetide.machine.tracing.kernel_files import NoTracingError, OwnKernelFiles
from pagetide.machine.tracing.own_kernel import Task, record_own_kernel
from pagetide.machine.tracing.recording import read_recording

pytestmark = [pytest.mark.jit, pytest.mark.usefixtures("tracefs")]

MIB = 1 << 20
OWN = f"pagetide-{os.getpid()}"
EATS = [sys.executable, "-I", "-S", "-c", "x = bytearray(40 << 20)"]


def instances() -> set[str]:
    """Instances of tracefs that are there."""
    with contextlib.closing(OwnKernelFiles()) as files:
        return {path.name for path in (files.root / "instances").iterdir()}


def test_a_commands_memory_is_in_its_stream() -> None:
    """What a command allocates is seen, page by page or in huge pages, and freed by its end; no instance is left."""
    recorded = record_own_kernel(Task(EATS, 0.0, 64 * MIB))
    assert OWN not in instances()
    assert recorded.status == 0
    assert recorded.ended_early == ""
    stream, account = read_recording(recorded.recording, "family")
    stream.check()
    assert account.lost == 0
    assert 40 * MIB < stream.peak_bytes < 80 * MIB
    left = stream.allocated_bytes(0, stream.nr_operations) - stream._replace(kind=1 - stream.kind).allocated_bytes(
        0, stream.nr_operations
    )
    assert left < 0.1 * stream.peak_bytes  # page cache, and what the kernel keeps


def test_a_recording_without_room_is_ended_and_kept() -> None:
    """With room for a few pages of events it ends early and says so; the command is waited for."""
    recorded = record_own_kernel(Task(EATS, 0.0, 64 << 10))
    assert recorded.ended_early.startswith("ended when 64 KiB were full")
    assert len(recorded.recording.pages) <= 16


def test_ctrl_c_ends_a_recording_and_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded until then has its last mark."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pagetide.machine.tracing.own_kernel.time.sleep", interrupted)
    recorded = record_own_kernel(Task((), 60.0, 64 * MIB))
    monkeypatch.undo()
    assert recorded.ended_early == "ended by a signal"
    stream, _ = read_recording(recorded.recording, "others")
    assert stream.end_s < 30


def test_a_killed_recorders_instance_is_removed_by_the_next() -> None:
    """Nobody else's is."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with contextlib.closing(OwnKernelFiles()) as files:
        for name in (f"pagetide-{gone.pid}", "pagetide-of-somebody"):
            files.make_folder(f"instances/{name}")
        try:
            record_own_kernel(Task((), 0.0, MIB))
            assert "pagetide-of-somebody" in instances()
            assert f"pagetide-{gone.pid}" not in instances()
        finally:
            files.remove_folder("instances/pagetide-of-somebody")


def test_a_command_that_cannot_be_started_leaves_nothing() -> None:
    """The error is the command's, and the instance is gone."""
    with pytest.raises(FileNotFoundError):
        record_own_kernel(Task(["/no/such/command"], 0.0, MIB))
    assert OWN not in instances()


def test_only_root_records(unprivileged: None) -> None:
    """Without the privilege nothing is tried, in a sentence."""
    with pytest.raises(NoTracingError, match=r"^only root may trace the kernel \(fsopen: Operation not permitted\)$"):
        record_own_kernel(Task((), 0.0, MIB))


def test_a_kernel_without_tracefs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sentence."""

    def no_such_device(*_: object) -> int:
        raise OSError(19, "fsopen: No such device")

    monkeypatch.setattr("pagetide.machine.tracing.kernel_files.mount_nowhere", no_such_device)
    with pytest.raises(NoTracingError, match=r"^this kernel has no tracefs"):
        record_own_kernel(Task((), 0.0, MIB))


def test_events_that_the_kernel_lacks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the instance that was made is gone."""
    monkeypatch.setattr("pagetide.machine.tracing.instance.RECORDED", ("kmem/no_such_event",))
    with pytest.raises(NoTracingError, match=r"^the kernel's tracing has no event kmem/no_such_event"):
        record_own_kernel(Task((), 0.0, MIB))
    assert OWN not in instances()
