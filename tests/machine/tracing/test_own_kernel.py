"""The running kernel records itself, and is left as it was."""

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pagetide.machine.tracing.instance import TraceInstance
from pagetide.machine.tracing.kernel_files import NoTracingError, OwnKernelFiles
from pagetide.machine.tracing.own_kernel import Task, record_own_kernel
from pagetide.machine.tracing.recording import read_recording

pytestmark = [pytest.mark.jit, pytest.mark.usefixtures("tracefs"), pytest.mark.xdist_group("tracefs")]

MIB = 1 << 20
OWN = f"pagetide-{os.getpid()}-"
EATS = [sys.executable, "-I", "-S", "-c", "x = bytearray(40 << 20)"]
SIGNALS_AND_EATS = """
import mmap, os, select, signal, sys
os.kill(os.getppid(), signal.SIGINT)
with open(sys.argv[1]) as ended:
    select.select([ended], [], [], 10)
pages = mmap.mmap(-1, 200 << 20)
pages.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, len(pages), 4096):
    pages[at] = 1
"""
"""Has its recorder end, and when that is done, or after 10 s, touches more single pages than buffers of 1 MiB tell."""


def instances() -> set[str]:
    """Instances of tracefs that are there."""
    with contextlib.closing(OwnKernelFiles()) as files:
        return {path.name for path in (files.root / "instances").iterdir()}


def own_instances() -> list[str]:
    """Those of this process's id, whoever had it."""
    return [name for name in instances() if name.startswith(OWN)]


@pytest.mark.alone  # whether events are lost is a matter of time
def test_a_commands_memory_is_in_its_stream() -> None:
    """What a command allocates is seen, page by page or in huge pages, and freed by its end; no instance is left."""
    recorded = record_own_kernel(Task(EATS, 0.0, 64 * MIB))
    assert own_instances() == []
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


@pytest.mark.alone  # whether events are lost is a matter of time
def test_a_recording_without_room_is_ended_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for a few pages of events it ends early and says so; it has its last mark, and nothing was lost."""
    monkeypatch.setattr("pagetide.machine.tracing.own_kernel._FETCH_INTERVAL_S", 0.001)
    recorded = record_own_kernel(Task(EATS, 0.2, 64 << 10))
    assert recorded.ended_early.startswith("ended when 64 KiB were full")
    assert recorded.status == 0
    stream, account = read_recording(recorded.recording, "others")
    stream.check()
    assert account.lost == 0


def test_what_the_last_fetch_leaves_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that nobody read are counted, though the kernel had room for them."""
    monkeypatch.setattr("pagetide.machine.tracing.own_kernel._last_pages", lambda *_: 0)
    recording = record_own_kernel(Task(EATS, 0.2, 4096)).recording
    assert len(recording.pages) == 1
    assert recording.lost > 0


@pytest.mark.alone  # whether events are lost is a matter of time
def test_a_signal_while_a_command_runs_ends_the_recording_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the command allocates after it is not recorded, and finds no buffer to fill; the command is waited for."""
    monkeypatch.setattr("pagetide.machine.tracing.own_kernel._BUFFER_BYTES_MAX", MIB)
    ended = tmp_path / "ended"
    os.mkfifo(ended)
    fd = os.open(ended, os.O_RDWR)
    end = TraceInstance.end

    def told_end(trace: TraceInstance) -> dict[str, str]:
        after = end(trace)
        os.write(fd, b"x")
        return after

    monkeypatch.setattr(TraceInstance, "end", told_end)
    try:
        recorded = record_own_kernel(Task([*EATS[:-1], SIGNALS_AND_EATS, str(ended)], 0.0, 64 * MIB))
    finally:
        os.close(fd)
    assert (recorded.status, recorded.ended_early) == (0, "ended by a signal")
    stream, account = read_recording(recorded.recording, "family")
    assert account.lost == 0
    assert stream.peak_bytes < 100 * MIB


def test_a_signal_while_a_command_is_waited_for_leaves_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who presses Ctrl-C again waits no more, and has what was recorded."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("pagetide.machine.tracing.own_kernel.subprocess.Popen.wait", interrupted)
    recorded = record_own_kernel(Task(["true"], 0.0, 64 * MIB))
    assert read_recording(recorded.recording, "others")[1].events > 0


@pytest.mark.alone  # whether events are lost is a matter of time
def test_a_processor_that_never_was_on_line_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has a file for it, and says ENODEV to who reads that."""
    absent = f"cpu{(os.cpu_count() or 1) - 1}/trace_pipe_raw"
    readv = os.readv

    def read_of_present(fd: int, buffers: list[object]) -> int:
        if str(Path(f"/proc/self/fd/{fd}").readlink()).endswith(absent):
            raise OSError(errno.ENODEV, "No such device")
        return readv(fd, buffers)  # type: ignore[arg-type]

    monkeypatch.setattr("pagetide.machine.tracing.own_kernel.os.readv", read_of_present)
    recorded = record_own_kernel(Task(["true"], 0.0, 64 * MIB))
    assert (recorded.status, recorded.ended_early) == (0, "")
    assert set(recorded.recording.cpus.tolist()) <= set(range((os.cpu_count() or 1) - 1))


def test_buffers_are_shared_out_among_processors_that_are_on_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel may count with hundreds that are not there."""
    given: list[int] = []

    def made(_: OwnKernelFiles, __: str, buffer_bytes: int) -> TraceInstance:
        given.append(buffer_bytes)
        raise NoTracingError("enough")

    monkeypatch.setattr("pagetide.machine.tracing.own_kernel.TraceInstance", made)
    monkeypatch.setattr("pagetide.machine.tracing.own_kernel.os.cpu_count", lambda: 4)
    monkeypatch.setattr("pagetide.machine.tracing.own_kernel.available_bytes", lambda: 4 << 30)
    with pytest.raises(NoTracingError, match="enough"):
        record_own_kernel(Task((), 0.0))
    assert given == [32 * MIB]


def test_ctrl_c_ends_a_recording_and_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded until then has its last mark."""

    def interrupted(*_: object) -> None:
        subprocess.run(["true"], check=True)  # so that something is recorded
        raise KeyboardInterrupt

    monkeypatch.setattr("pagetide.machine.tracing.own_kernel.time.sleep", interrupted)
    recorded = record_own_kernel(Task((), 60.0, 64 * MIB))
    monkeypatch.undo()
    assert recorded.ended_early == "ended by a signal"
    stream, _ = read_recording(recorded.recording, "others")
    assert stream.end_s < 30


def test_a_killed_recorders_instance_is_removed_by_the_next() -> None:
    """Also if that one had the process id that we have; nobody else's is."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    left, others = {f"pagetide-{gone.pid}-1", f"{OWN}1"}, {"pagetide-of-somebody", "pagetide-1"}
    with contextlib.closing(OwnKernelFiles()) as files:
        for name in left | others:
            files.make_folder(f"instances/{name}")
        try:
            record_own_kernel(Task((), 0.0, MIB))
            assert instances() & (left | others) == others
        finally:
            for name in others:
                files.remove_folder(f"instances/{name}")


def test_a_second_recording_of_this_process_leaves_the_first_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has an instance of that name, and keeps it."""
    begin = TraceInstance.begin

    def twice(trace: TraceInstance, name: str) -> dict[str, str]:
        with pytest.raises(NoTracingError, match=r"^the kernel gives no instance of tracefs \(File exists\)$"):
            record_own_kernel(Task((), 0.0, MIB))
        return begin(trace, name)

    monkeypatch.setattr(TraceInstance, "begin", twice)
    assert record_own_kernel(Task((), 0.0, MIB)).recording.marks == ("recording", "end")


def test_a_command_that_cannot_be_started_leaves_nothing() -> None:
    """The error is the command's, and the instance is gone."""
    with pytest.raises(FileNotFoundError):
        record_own_kernel(Task(["/no/such/command"], 0.0, MIB))
    assert own_instances() == []


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
    assert own_instances() == []
