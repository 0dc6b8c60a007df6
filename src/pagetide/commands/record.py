"""`pagetide record`: a kernel's page allocations as a stream."""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pagetide.commands.boot import BootChoice, find_hypervisor
from pagetide.commands.run import check_target
from pagetide.commands.status import STATUS_FAILED, STATUS_OK
from pagetide.machine.config_error import ConfigError
from pagetide.machine.linux.balloon_host import HypervisorHost
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.made_file import write_made
from pagetide.machine.tracing.formats import FormatError
from pagetide.machine.tracing.in_guest import GuestRecorder
from pagetide.machine.tracing.kernel_files import NoTracingError
from pagetide.machine.tracing.own_kernel import Task, record_own_kernel
from pagetide.machine.tracing.pages import BrokenPageError
from pagetide.machine.tracing.recording import Account, Recording, RecordingError, Whose, read_recording
from pagetide.memory.guest_ram import GuestRamError
from pagetide.units import PAGE_SIZE_BYTES, PAGEBLOCK_ORDER, format_size
from pagetide.workload.stream import Stream, StreamError
from pagetide.workload.stream_file import save_stream

_GUEST_BUFFER_SHARE = 8


class Output(NamedTuple):
    """What becomes of a recording.

    Attributes:
        path: the file for its stream.
        json: a file for the account of it, or None.
        accept_share: above this share of anything wrong, there is no stream.
    """

    path: Path
    json: Path | None
    accept_share: float

    def check(self) -> None:
        """Raise ConfigError where nothing could be kept."""
        if not 0 <= self.accept_share <= 1:
            raise ConfigError(f"--accept is a share, 0 to 1, not {self.accept_share:g}")
        check_target(self.path, "the stream")
        if self.json is not None:
            check_target(self.json, "the JSON")


def record_here(command: Sequence[str], seconds: float, room_bytes: int | None, whose: Whose, output: Output) -> int:
    """Record this kernel; an exit status.

    Args:
        command: what is run meanwhile, if anything.
        seconds: for how long, or how much longer than the command runs.
        room_bytes: how much memory to take for it; None is a share of what is available.
        whose: whose allocations are wanted.
        output: what becomes of it.

    Raises:
        ConfigError: an argument is wrong; nothing was run.
        OSError: the command cannot be started.
    """
    output.check()
    try:
        with _ended_by_signals():
            recorded = record_own_kernel(Task(command, seconds, room_bytes))
    except NoTracingError as error:
        return _fail(str(error))
    if recorded.ended_early:
        print(f"the recording was {recorded.ended_early}")
    if recorded.status:
        print(f"{command[0]} ended with status {recorded.status}")
    return _keep(recorded.recording, whose, output)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP are as Ctrl-C in it: what was made in the kernel must go. What is ignored (nohup) stays so."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


def record_guest(choice: BootChoice, config: BootConfig, output: Output) -> int:
    """Record the kernel of a real guest while it runs `pagetide boot`'s workload; an exit status.

    Raises:
        ConfigError: this machine cannot do it, or an argument is wrong; nothing was run.
    """
    output.check()
    if choice.kind == "uml":
        raise ConfigError("kernels for User-Mode Linux are built without trace events: --guest qemu has them")
    hypervisor = find_hypervisor(choice)
    recorder = GuestRecorder(config.ram_bytes // _GUEST_BUFFER_SHARE)
    machine = LinuxMachine(msgspec.structs.replace(config, sends=True), hypervisor, HypervisorHost(), recorder)
    try:
        result = machine.run(_Stages())
    except (NoTracingError, GuestRamError) as error:
        return _fail(str(error))
    if recorder.recording is None:
        return _fail(f"the guest's run did not come to its end: {result.outcome}")
    return _keep(recorder.recording, "all", output)


class _Stages:
    """An observer that says where a guest is."""

    def stage(self, text: str) -> None:
        """The guest begins with something."""
        print(text, flush=True)

    def sample(self, sample: object) -> None:
        """Nothing is drawn."""

    def warning(self, text: str) -> None:
        """Something is not as it should be."""
        print(text, file=sys.stderr)


def _keep(recording: Recording, whose: Whose, output: Output) -> int:
    """Make a stream of it and say how far it can be trusted."""
    try:
        stream, account = read_recording(recording, whose)
        stream.check()
    except (FormatError, BrokenPageError, RecordingError) as error:
        return _fail(str(error))
    except StreamError as error:
        return _fail(f"the recording {error}")
    if output.json is not None:
        write_made(_as_json(account), output.json)
    print("\n".join(_told(account)))
    troubles = account.troubles(output.accept_share)
    if troubles:
        limit = f"{output.accept_share:.0%} are accepted, and --accept takes more"
        return _fail(f"the recording is refused: {'; '.join(troubles)}; {limit}")
    save_stream(stream, output.path)
    print(_kept(stream, output.path))
    return STATUS_OK


def _as_json(account: Account) -> dict[str, object]:
    return {
        **account._asdict(),
        "fit": account.fit._asdict(),
        "before": account.before._asdict(),
        "after": account.after._asdict(),
        "shares": account.shares,
    }


def _told(account: Account) -> list[str]:
    """What a person wants to know before trusting it."""
    fit, before, after = account.fit, account.before, account.after
    frees = max(1, fit.frees)

    def in_large(blocks: tuple[int, ...]) -> str:
        pages = sum(count << order for order, count in enumerate(blocks) if order >= PAGEBLOCK_ORDER)
        return size(pages)

    def size(pages: int) -> str:
        return format_size(pages * PAGE_SIZE_BYTES)

    lines = [
        (
            f"{account.events} events, {account.lost} lost, {account.gaps} gaps: {fit.allocations} allocations, ",
            f"{fit.frees} frees",
        ),
        (
            f"frees: {fit.exact / frees:.2%} of a block as it was allocated, {fit.parts / frees:.2%} of parts, ",
            f"{fit.there_before / frees:.2%} of what was there before",
        ),
        *((f"{share:.2%} {what}",) for what, share in account.shares.items()),
        (
            f"free: {size(before.free_pages)} at first, {size(after.free_pages)} in the end; in blocks of order ",
            f"{PAGEBLOCK_ORDER} and above {in_large(before.free_blocks)}, then {in_large(after.free_blocks)}",
        ),
        (
            f"on per-CPU lists besides: {size(before.listed_pages)} at first, {size(after.listed_pages)} in the end ",
            f"({size(account.listed_pages)} by the events), {size(account.listed_peak_pages)} at most",
        ),
    ]
    return ["".join(parts) for parts in lines]


def _kept(stream: Stream, path: Path) -> str:
    each = path.stat().st_size / stream.nr_operations
    ram = format_size(stream.peak_bytes)
    return (
        f"{stream.nr_operations} operations of {stream.end_s:.1f} s in {path}, {each:.2f} bytes each; at most {ram} "
        f"are allocated at once: pagetide run --stream {path} --vcpus {stream.vcpus} --ram ..."
    )


def _fail(sentence: str) -> int:
    print(f"pagetide: {sentence}", file=sys.stderr)
    return STATUS_FAILED
