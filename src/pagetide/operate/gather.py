"""Gathers the evidence of one VM from as many sources as can be reached; what cannot be is said."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from pagetide.operate.evidence import DaemonFacts, Evidence
from pagetide.operate.guest.facts import GuestFacts
from pagetide.operate.guest.text import GuestTextError, read_guest_text
from pagetide.operate.host.cgroup import cgroup_of
from pagetide.operate.host.daemon import daemon_guests
from pagetide.operate.host.dial import dial
from pagetide.operate.host.firecracker import FirecrackerError, FirecrackerFacts, ask_firecracker
from pagetide.operate.host.libvirt_domain import LibvirtError, ask_libvirt
from pagetide.operate.host.monitor import ASK_MAX_S, MonitorError, ask_monitor
from pagetide.operate.host.monitor_facts import MonitorFacts
from pagetide.operate.host.processes import ProcessError, find_vms, libvirt_uuid_of, look_at, sockets_of, vmm_of
from pagetide.operate.host.vmm_facts import VmmFacts

_DAEMON_MAX_S = 0.5
_NO_DAEMON = (
    "No daemon says that it serves this guest (--control names its socket): whether it is paused or inhibited is not "
    "known."
)


class GatherError(Exception):
    """Nothing can be answered; the message says why, and what to do."""


class Target(NamedTuple):
    """A VM, and what was learnt on the way to it."""

    pid: int
    monitor: MonitorFacts | None = None
    firecracker: FirecrackerFacts | None = None


def gather(vm: str, guest_text: bytes | None, control: Path) -> Evidence:
    """All that can be had of a VM.

    Args:
        vm: a process id, the path of a QMP socket or of a Firecracker's API socket, or the name of a guest of the
            daemon or of a domain of libvirt.
        guest_text: what the guest script wrote in it, if that is there.
        control: the daemon's control socket; there need not be one.

    Raises:
        GatherError: there is no such VM, it may not be looked at, or the guest's text is none.
    """
    try:
        guest = None if guest_text is None else read_guest_text(guest_text)
    except GuestTextError as error:
        raise GatherError(str(error)) from error
    target = _find(vm, control)
    try:
        facts = look_at(target.pid, _backends(target))
    except ProcessError as error:
        raise GatherError(str(error)) from error
    monitor, vmm_gaps = _ask_vmm(target, facts)
    is_ours = any(balloon.is_ours for balloon in facts.balloons or ())
    daemon = _ask_daemon(target.pid, control) if is_ours else None
    return Evidence(
        taken=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        vm=facts,
        guest=guest,
        monitor=monitor,
        firecracker=target.firecracker,
        daemon=daemon,
        cgroup=cgroup_of(target.pid),
        gaps=(*vmm_gaps, *((_NO_DAEMON,) if is_ours and daemon is None else ()), *_gaps(facts, guest)),
    )


def _ask_vmm(target: Target, facts: VmmFacts) -> tuple[MonitorFacts | None, tuple[str, ...]]:
    """What the VMM says of itself, or libvirt for it, and what is not known since nobody does."""
    if target.monitor is not None or target.firecracker is not None:
        return target.monitor, ()
    uuid = libvirt_uuid_of(target.pid)
    if uuid is not None:
        try:
            return ask_libvirt(uuid).facts, ()
        except LibvirtError as error:
            return None, (f"{error}: what is changed of the VM since its start, and its statistics, are not known.",)
    asked = {"QEMU": "QEMU's monitor", "Firecracker": "Firecracker's API"}.get(facts.vmm)
    if asked is None:
        return None, ()
    return None, (f"{asked} was not asked: what is changed of the VM since its start is not known. Name its socket.",)


def _gaps(facts: VmmFacts, guest: GuestFacts | None) -> Iterator[str]:
    """What else could not be read."""
    if guest is None:
        yield (
            "The guest was not asked: what its memory is used for is not known. Run what `pagetide why --guest-script` "
            "prints in the guest, and give its output with --guest FILE."
        )
    else:
        yield from (f"{name} could not be read in the guest: run the script there as root." for name in guest.unread)
        if not guest.zones:
            yield "The guest's buddyinfo is missing: which of its free memory could be reported is not known."
    if facts.ram_is_guessed:
        yield "The largest mapping was taken for the guest's memory; nothing says that it is."


def _find(vm: str, control: Path) -> Target:
    if vm.isascii() and vm.isdecimal():
        return Target(int(vm[:10]))
    if "/" in vm or Path(vm).is_socket():
        if not Path(vm).is_socket():
            raise GatherError(f"{vm} is no socket")
        return _at_socket(Path(vm))
    found = _of_daemon(vm, control)
    return Target(found) if isinstance(found, int) else _of_libvirt(vm, found)


def _at_socket(path: Path) -> Target:
    """What answers there: a Firecracker's API, if that is what listens, or QEMU's monitor."""
    try:
        sock, pid = dial(path, ASK_MAX_S)
        if vmm_of(pid) == "Firecracker":
            sock.close()
            return Target(pid, firecracker=ask_firecracker(path))
        return Target(pid, ask_monitor(sock))
    except (OSError, MonitorError, FirecrackerError) as error:
        raise GatherError(f"{path}: {error}; name the VM by its process id instead") from error


def _backends(target: Target) -> list[int]:
    """The sizes of the guest's memory, as its VMM has them; none if it was not asked."""
    if target.monitor is not None:
        return [each.size_bytes for each in target.monitor.backends]
    return [] if target.firecracker is None else [target.firecracker.ram_bytes]


def _of_daemon(name: str, control: Path) -> int | str:
    """The process of the daemon's guest of this name, or why there is none."""
    try:
        guests = daemon_guests(control, timeout_s=_DAEMON_MAX_S)
    except (OSError, msgspec.MsgspecError) as error:
        return f"no daemon that could have a guest of this name answers at {control}: {error}"
    sockets = {Path(path).resolve() for each, path, _ in guests if each == name and path is not None}
    if not sockets:
        known = ", ".join(each for each, _, _ in guests) or "none"
        return f"the daemon at {control} has no such guest; it has: {known}"
    pids = [pid for pid in find_vms() if sockets.intersection(sockets_of(pid))]
    if not pids:
        raise GatherError(f"no process here that may be looked at is attached as {name!r}; name it by its process id")
    return pids[0]


def _of_libvirt(name: str, otherwise: str) -> Target:
    """The process of libvirt's domain of this name, and what libvirt says of it."""
    try:
        domain = ask_libvirt(name)
    except LibvirtError as error:
        raise GatherError(f"{name!r} is no process id and no socket; {otherwise}; {error}") from error
    for pid in find_vms():
        if libvirt_uuid_of(pid) == domain.uuid:
            return Target(pid, domain.facts)
    raise GatherError(f"libvirt's domain {name!r} has no QEMU on this host")


def _ask_daemon(pid: int, control: Path) -> DaemonFacts | None:
    """What the daemon says of the guest whose process this is; None if none answers, or it is not its guest."""
    sockets = sockets_of(pid)
    try:
        for _, path, facts in daemon_guests(control, timeout_s=_DAEMON_MAX_S):
            if path is not None and Path(path).resolve() in sockets:
                return facts
    except (OSError, msgspec.MsgspecError):
        return None
    return None
