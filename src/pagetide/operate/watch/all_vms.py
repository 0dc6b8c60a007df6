"""All VMs as they are now: the daemon's guests, and those that the kernel knows of."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from pagetide.operate.watch.host_vms import HostVm
from pagetide.operate.watch.seen import Seen, of_daemon, of_kernel
from pagetide.operate.watch.told_guests import ToldGuest, ask_daemon


class Look(msgspec.Struct, frozen=True):
    """What was seen at one time.

    Attributes:
        t_s: when, in seconds since 1970.
        vms: each VM.
        waiting: the names of sockets at which nobody is attached.
        trouble: why the daemon's guests are not among them, or are as they were last, in a sentence; empty if they are.
    """

    t_s: float
    vms: list[Seen]
    waiting: list[str]
    trouble: str = ""


STALE_MAX_S = 60.0
"""For so long the guests of a daemon that does not answer are those that it told last."""


class VmsSource(Protocol):
    """`HostVms`, or none."""

    def look(self) -> list[HostVm]:
        """The VMs on this host."""


class Watching:
    """Looks at all of them."""

    def __init__(self, control: Path, vms: VmsSource | None, clock_s: Callable[[], float] = time.time) -> None:
        """Know where to look.

        Args:
            control: the daemon's control socket.
            vms: the VMs on this host; None for the daemon's guests alone.
            clock_s: the time, since 1970.
        """
        self._control, self._vms, self._clock_s = control, vms, clock_s
        self._told = _Told(0.0, [], [])

    def look(self) -> Look:
        """Everything as it is now. A daemon that does not answer is said, and no error."""
        t_s, trouble = self._clock_s(), ""
        try:
            self._told = _ask(self._control, t_s)
        except (OSError, msgspec.MsgspecError) as error:
            trouble = f"no daemon answers at {self._control}: {error}"
            if t_s - self._told.t_s > STALE_MAX_S:
                self._told = _Told(0.0, [], [])
        vms = [] if self._vms is None else self._vms.look()
        seen, ours = [], set()
        for guest in self._told.guests:
            vm = _vm_of(guest, vms)
            if vm is not None:
                ours.add(vm.facts.pid)
            seen.append(of_daemon(guest, None if vm is None else vm.facts, is_stale=bool(trouble)))
        names = {each.name for each in seen}
        seen += [_alone(vm, names) for vm in vms if vm.facts.pid not in ours]
        return Look(t_s, seen, self._told.waiting, trouble)


class _Told(NamedTuple):
    """What the daemon told at one time."""

    t_s: float
    guests: list[ToldGuest]
    waiting: list[str]


def _ask(control: Path, t_s: float) -> _Told:
    told = _Told(t_s, [], [])
    for guests, sockets in ask_daemon(control):
        told.guests.extend(guests)
        told.waiting.extend(sock.name for sock in sockets)
    return told


def _alone(vm: HostVm, taken: set[str]) -> Seen:
    """A VM that is not the daemon's, by a name that no other has."""
    name = f"{vm.name} {vm.facts.pid}" if vm.name in taken else vm.name
    taken.add(name)
    return of_kernel(name, vm.facts, vm.held_bytes, vm.swapped_bytes)


def _vm_of(guest: ToldGuest, vms: list[HostVm]) -> HostVm | None:
    """The VM whose balloon is behind the socket at which the guest is attached."""
    if guest.socket is None or not vms:
        return None
    place: Path | None = None
    with contextlib.suppress(OSError, RuntimeError):
        place = Path(guest.socket).resolve()
    return next((vm for vm in vms if place in vm.sockets), None)
