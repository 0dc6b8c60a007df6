"""`pagetide why`: why a VM's memory does not come back. It looks, and changes nothing."""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from pagetide.commands.daemon.control_path import default_control_path
from pagetide.commands.status import STATUS_FAILED, STATUS_OK
from pagetide.machine.config_error import ConfigError
from pagetide.operate.answer import Answer, answer
from pagetide.operate.evidence import Evidence, EvidenceError, load_evidence, save_evidence
from pagetide.operate.gather import GatherError, gather
from pagetide.operate.guest.agent import AgentError, agent_text
from pagetide.operate.guest.script import GUEST_SCRIPT
from pagetide.operate.guest.text import TEXT_BYTES_MAX
from pagetide.operate.host.processes import ProcessError, find_vms, look_at
from pagetide.operate.picture import change, picture, vm_table
from pagetide.terminal.ascii_fallback import fall_back_to_ascii
from pagetide.whole_file import TargetError, check_writable, write_whole

_CLEAR = "\x1b[H\x1b[2J"
_WATCH_MIN_S = 0.5


class Sources(NamedTuple):
    """Where to read from.

    Attributes:
        vm: which VM; None lists them.
        guest: a file with what the guest script wrote; `-` is standard input.
        agent: the socket of the guest's agent, instead.
        control: the daemon's control socket; None is the usual place.
        load: a file with evidence, instead of a VM.
    """

    vm: str | None = None
    guest: Path | None = None
    agent: Path | None = None
    control: Path | None = None
    load: Path | None = None


class Output(NamedTuple):
    """What to make of it.

    Attributes:
        save: a file for the evidence.
        html: a file for the page.
        as_json: whether JSON is wanted.
        watch_s: how often to look again; None for once.
        columns: how wide the terminal is.
    """

    save: Path | None = None
    html: Path | None = None
    as_json: bool = False
    watch_s: float | None = None
    columns: int = 80


def print_guest_script() -> int:
    """Print the script that is to be run in the guest."""
    sys.stdout.write(GUEST_SCRIPT)
    return STATUS_OK


def why(sources: Sources, output: Output, *, wait: Callable[[float], None] = time.sleep) -> int:
    """Answer once, or again and again; an exit status.

    Args:
        sources: where to read from.
        output: what to make of it.
        wait: waits so many seconds between two looks.

    Raises:
        ConfigError: the arguments do not go together, or a file cannot be written.
    """
    fall_back_to_ascii(sys.stdout)
    _check(sources, output)
    if sources.load is None and sources.vm is None:
        return _list(as_json=output.as_json)
    try:
        if output.watch_s is not None:
            return _watch(sources, output, wait)
        evidence = _gather(sources) if sources.load is None else load_evidence(sources.load)
    except (GatherError, EvidenceError, AgentError) as error:
        print(f"pagetide: {error}", file=sys.stderr)
        return STATUS_FAILED
    if output.save is not None:
        save_evidence(evidence, output.save)
    found = answer(evidence)
    if output.html is not None:
        from pagetide.operate.page import page  # which loads what makes pages

        write_whole(output.html, page(found).encode())
    if output.as_json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print(picture(found, output.columns))
    return STATUS_OK


def _check(sources: Sources, output: Output) -> None:
    asks_guest = sources.guest is not None or sources.agent is not None
    if sources.load is not None and (sources.vm is not None or asks_guest or output.save is not None):
        raise ConfigError(
            "--from has all there is to answer from: it goes with no VM, no --guest, no --agent and no --save"
        )
    writes = output.save is not None or output.html is not None
    if sources.load is None and sources.vm is None and (asks_guest or writes or output.watch_s is not None):
        raise ConfigError("name the VM: `pagetide why` without one lists those on this host")
    if sources.guest is not None and sources.agent is not None:
        raise ConfigError("--guest and --agent are two ways to the same text: give one")
    if output.watch_s is not None:
        if sources.load is not None or writes or output.as_json or str(sources.guest) == "-":
            raise ConfigError("--watch looks at a VM again and again: it goes with no file and no --json")
        if not _WATCH_MIN_S <= output.watch_s <= 86400:
            raise ConfigError(f"--watch looks every {_WATCH_MIN_S:g} to 86400 s, not every {output.watch_s:g} s")
    if output.html is not None:
        try:
            check_writable(output.html, "the page")
        except TargetError as error:
            raise ConfigError(str(error)) from None


def _watch(sources: Sources, output: Output, wait: Callable[[float], None]) -> int:
    """Show the answer again and again, with what has changed since the look before, until Ctrl-C or the VM's end."""
    assert output.watch_s is not None
    before: Answer | None = None
    while True:
        found = answer(_gather(sources))
        since = [] if before is None else [change(before, found), ""]
        lines = [found.taken, *since, picture(found, output.columns)]
        sys.stdout.write((_CLEAR if sys.stdout.isatty() else "") + "\n".join(lines) + "\n")
        sys.stdout.flush()
        before = found
        wait(output.watch_s)


def _gather(sources: Sources) -> Evidence:
    assert sources.vm is not None
    text = None
    if sources.agent is not None:
        text = agent_text(sources.agent)
    elif sources.guest is not None:
        text = _read(sources.guest)
    return gather(sources.vm, text, default_control_path() if sources.control is None else sources.control)


def _read(path: Path) -> bytes:
    """The guest's text, and no more of it than may be."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(TEXT_BYTES_MAX + 1)
        with path.open("rb") as file:
            return file.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        raise GatherError(f"the guest's text cannot be read from {path}: {error.strerror}") from error


def _list(*, as_json: bool) -> int:
    vms = []
    for pid in find_vms():
        with contextlib.suppress(ProcessError, OSError):
            vms.append(look_at(pid, counts_others=False))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(vms), indent=2).decode())
    elif vms:
        print(vm_table(vms))
        print("\nname one by its process: pagetide why PROCESS --guest FILE")
    else:
        print("no VM is found on this host, or none that may be looked at (as root, all are)")
    return STATUS_OK
