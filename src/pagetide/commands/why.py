"""`pagetide why`: why a VM's memory does not come back. It looks, and changes nothing."""

import contextlib
import sys
from pathlib import Path

import msgspec

from pagetide.commands.control_path import default_control_path
from pagetide.commands.status import STATUS_FAILED, STATUS_OK
from pagetide.machine.config_error import ConfigError
from pagetide.operate.answer import answer
from pagetide.operate.evidence import Evidence, EvidenceError, load_evidence, save_evidence
from pagetide.operate.gather import GatherError, gather
from pagetide.operate.guest.script import GUEST_SCRIPT
from pagetide.operate.guest.text import TEXT_BYTES_MAX
from pagetide.operate.host.processes import ProcessError, find_vms, look_at
from pagetide.operate.picture import picture, vm_table
from pagetide.terminal.ascii_fallback import fall_back_to_ascii


def print_guest_script() -> int:
    """Print the script that is to be run in the guest."""
    sys.stdout.write(GUEST_SCRIPT)
    return STATUS_OK


def why(
    vm: str | None,
    *,
    guest: Path | None,
    control: Path | None,
    save: Path | None,
    load: Path | None,
    as_json: bool,
    columns: int,
) -> int:
    """Answer once; an exit status.

    Args:
        vm: which VM; None lists them.
        guest: a file with what the guest script wrote; `-` is standard input.
        control: the daemon's control socket; None is the usual place.
        save: a file for the evidence.
        load: a file with evidence, instead of a VM.
        as_json: whether JSON is wanted.
        columns: how wide the terminal is.

    Raises:
        ConfigError: the arguments do not go together.
    """
    fall_back_to_ascii(sys.stdout)
    if load is not None and (vm is not None or guest is not None or save is not None):
        raise ConfigError("--from has all there is to answer from: it goes with no VM, no --guest and no --save")
    if load is None and vm is None:
        if guest is not None or save is not None:
            raise ConfigError("name the VM: `pagetide why` without one lists those on this host")
        return _list(as_json=as_json)
    try:
        evidence = _gather(vm, guest, control) if load is None else load_evidence(load)
    except (GatherError, EvidenceError) as error:
        print(f"pagetide: {error}", file=sys.stderr)
        return STATUS_FAILED
    if save is not None:
        save_evidence(evidence, save)
    found = answer(evidence)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print(picture(found, columns))
    return STATUS_OK


def _gather(vm: str | None, guest: Path | None, control: Path | None) -> Evidence:
    assert vm is not None
    return gather(vm, None if guest is None else _read(guest), default_control_path() if control is None else control)


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
            vms.append(look_at(pid))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(vms), indent=2).decode())
    elif vms:
        print(vm_table(vms))
        print("\nname one by its process: pagetide why PROCESS --guest FILE")
    else:
        print("no VM is found on this host, or none that may be looked at (as root, all are)")
    return STATUS_OK
