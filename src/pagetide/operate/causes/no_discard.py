"""Why what a guest reports is not discarded: by how its memory is held, or since somebody has stopped it."""

from pagetide.operate.balance import OUT, PAGE_POISON_BIT, REPORTABLE, balance
from pagetide.operate.causes.finding import Finding, Remedy
from pagetide.operate.evidence import Evidence
from pagetide.operate.guest.facts import GuestFacts
from pagetide.operate.guest.linux_reporting import reporting_order, sort_free
from pagetide.units import format_size

POISONS = {f"page_poison={on}" for on in ("1", "on", "y")}
"""With one of these a kernel that can (CONFIG_PAGE_POISONING) fills free pages with a pattern, mm/page_poison.c."""

_TAKE_AND_GIVE_BACK = Remedy(
    where="QEMU",
    command="balloon SIZE",
    note="once that has ended: as SIZE somewhat more than the guest uses, and then its whole memory",
)
_TAKING = "the guest has little free for a moment"

_POSTCOPY = {"postcopy-active", "postcopy-paused", "postcopy-recover", "postcopy-recover-setup"}
_SNAPSHOT = {"setup", "active"}
_READS = {"active", "pre-switchover", "device", "cancelling", "colo"}
HAS_READ = "completed"
"""The status of a migration that read all of the memory once, maybe long ago."""

_CONT = Remedy(where="QEMU", command="cont", note="virsh resume for libvirt's")
_RESET = Remedy(where="QEMU", command="system_reset", note="and then cont; virsh reset for libvirt's")
_GO_ON = {
    "paused": _CONT,
    "prelaunch": _CONT,
    "io-error": Remedy(where="QEMU", command="cont", note="once its disk works again; virsh resume for libvirt's"),
    "suspended": Remedy(where="QEMU", command="system_wakeup", note="virsh dompmwakeup for libvirt's"),
    "shutdown": _RESET,
    "internal-error": _RESET,
    "guest-panicked": _RESET,
    "postmigrate": Remedy(where="QEMU", command="quit", note="if it runs elsewhere; otherwise cont"),
}
"""How a VM goes on from a state (runstate_transitions_def, system/runstate.c, QEMU 10); from others it does by itself,
or by who stopped it."""

_AWAY = {"finish-migrate", "postmigrate"}


def no_discard(evidence: Evidence, size_bytes: int | None) -> Finding | None:
    """What is in the way whatever the guest's balloon is; None if nothing is."""
    daemon = evidence.daemon
    if evidence.vm.passes_devices:
        return _pinned(evidence, size_bytes)
    if any(part.is_locked and not part.is_shared for part in evidence.vm.ram):
        return _locked(evidence, size_bytes)
    if daemon is not None and (daemon.is_paused or daemon.is_inhibited):
        return _stopped(evidence, size_bytes)
    if evidence.is_private_for_ours:
        return _private(evidence, size_bytes)
    return None


def no_discard_now(evidence: Evidence, size_bytes: int | None) -> Finding | None:
    """Why reports are answered and nothing is discarded, where the balloon is as it should be; None if it is."""
    monitor, guest = evidence.monitor, evidence.guest
    if monitor is not None and monitor.migration in _POSTCOPY and monitor.run_state not in _AWAY:
        return _migrating(evidence, size_bytes, "its pages are still on their way here (postcopy)")
    if monitor is not None and monitor.run_state not in {None, "running"}:
        return _not_running(evidence, size_bytes)
    if monitor is not None and monitor.takes_snapshot and monitor.migration in _SNAPSHOT:
        return _migrating(evidence, size_bytes, "its pages are being saved while it runs (background-snapshot)")
    if guest is not None and _wants_its_pattern(guest):
        return _poisoned(evidence, size_bytes)
    return None


def read_by_migration(evidence: Evidence, size_bytes: int | None) -> Finding | None:
    """What a migration has read of shared memory, or reads; None if none does, or it is not known to have."""
    monitor = evidence.monitor
    if monitor is None or monitor.migration not in {*_READS, HAS_READ}:
        return None
    return _read(evidence, size_bytes) if any(part.is_shared for part in evidence.vm.ram) else None


def _wants_its_pattern(guest: GuestFacts) -> bool:
    tells = any(each.has_driver and each.features >> PAGE_POISON_BIT & 1 for each in guest.balloons)
    return tells and not POISONS.isdisjoint(guest.parameters)


def free_in_guest(evidence: Evidence) -> tuple[str, ...]:
    """What the guest has free, and how much of that is held, as evidence; nothing without its text."""
    guest = evidence.guest
    if guest is None:
        return ()
    free, order = guest.memory("MemFree"), reporting_order(guest)
    large, held = format_size(sort_free(guest, order).reportable), format_size(balance(evidence).of(REPORTABLE))
    return (
        f"{format_size(free)} are free in the guest (MemFree)",
        f"{large} of that in blocks of order {order} and more (buddyinfo); {held} of these are held",
    )


def _stopped(evidence: Evidence, size_bytes: int | None) -> Finding:
    daemon = evidence.daemon
    assert daemon is not None
    is_inhibited = daemon.is_inhibited
    word, undo = ("inhibited", "uninhibit") if is_inhibited else ("paused", "resume")
    lost = "; what is reported meanwhile is not discarded later" if is_inhibited else ""
    return Finding(
        cause=f"reporting-{word}",
        size_bytes=size_bytes,
        sentence=f"Somebody has {word} this guest: what it reports is not discarded{lost}.",
        evidence=(
            f"the daemon says that it is {word}",
            *free_in_guest(evidence),
            *(() if is_inhibited else _unanswered(evidence)),
        ),
        remedies=(Remedy(where="pagetide", command=f"pagetide ctl {undo} GUEST"),),
        returns_bytes=None if is_inhibited else size_bytes,
        cost=f"none, unless it was {word} for a reason, such as a device that was passed through",
    )


def _unanswered(evidence: Evidence) -> tuple[str, ...]:
    """What a guest whose report nobody answers has taken out of its free lists."""
    if not (out := balance(evidence).of(OUT)):
        return ()
    most = f"up to {format_size(out)} more are out in a report that is not answered"
    return (f"{most}: MemTotal, less all that meminfo names",)


def _pinned(evidence: Evidence, size_bytes: int | None) -> Finding:
    return Finding(
        cause="device-passed-through",
        size_bytes=size_bytes,
        sentence="A device is passed through to the guest (vfio, vDPA): all of its memory is pinned, and nothing that "
        "it frees is discarded.",
        evidence=(
            "a device of vfio or vDPA on the command line, or among what the process has open (/proc/PID/fd)",
            *free_in_guest(evidence),
        ),
        remedies=(Remedy(where="VM", command="no passed-through device", note="from the next start on"),),
        returns_bytes=size_bytes,
        cost="the device",
    )


def _locked(evidence: Evidence, size_bytes: int | None) -> Finding:
    return Finding(
        cause="memory-locked",
        size_bytes=size_bytes,
        sentence="The VMM has locked the guest's memory, and madvise(MADV_DONTNEED) refuses to discard what is locked.",
        evidence=("VmFlags of the guest's memory have `lo` (smaps)", *free_in_guest(evidence)),
        remedies=(
            Remedy(where="QEMU", command="no -overcommit mem-lock=on", note="from the next start on"),
            Remedy(where="libvirt", command="no <locked/> in <memoryBacking>", note="from the next start on"),
        ),
        returns_bytes=size_bytes,
        cost="the guest's memory may be swapped out",
    )


def _private(evidence: Evidence, size_bytes: int | None) -> Finding:
    return Finding(
        cause="private-mapping",
        size_bytes=size_bytes,
        sentence="The guest's memory is a private mapping of the VMM, which no other process can discard, and its "
        "balloon is behind a socket.",
        evidence=(
            "the mapping is private (rw-p in smaps)",
            *free_in_guest(evidence),
            *_unanswered(evidence),
        ),
        remedies=(
            Remedy(where="QEMU", command="share=on on the memory backend", note="from the next start on"),
            Remedy(
                where="libvirt",
                command="<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>",
                note="virsh edit, from the next start on",
            ),
        ),
        returns_bytes=size_bytes,
        cost="a restart of the VM",
    )


def _not_running(evidence: Evidence, size_bytes: int | None) -> Finding:
    assert evidence.monitor is not None
    state = evidence.monitor.run_state or ""
    remedy = _GO_ON.get(state)
    if evidence.monitor.migration in _POSTCOPY:
        why = "The VM runs elsewhere, and its pages are still on their way there (postcopy): it needs this QEMU."
        remedy = None
    elif state == "postmigrate":
        why = "The VM has been migrated or saved, and here QEMU only waits to be ended, or told to go on."
    else:
        why = "The VM does not run, and a guest that does not run reports nothing."
    return Finding(
        cause="vm-stopped",
        size_bytes=size_bytes,
        sentence=why,
        evidence=(f"query-status says {state}", *free_in_guest(evidence)),
        remedies=() if remedy is None else (remedy,),
        returns_bytes=None if remedy is None else size_bytes,
        cost="" if remedy is None else _costs(remedy),
    )


def _costs(remedy: Remedy) -> str:
    return "the guest boots anew" if remedy == _RESET else "none, unless it was stopped for a reason"


def _migrating(evidence: Evidence, size_bytes: int | None, why: str) -> Finding:
    assert evidence.monitor is not None
    return Finding(
        cause="reporting-inhibited-by-migration",
        size_bytes=size_bytes,
        sentence=f"QEMU answers what the guest reports, and discards nothing: {why}. What is reported meanwhile is not "
        "discarded later, until the guest has used it again.",
        evidence=(f"query-migrate says {evidence.monitor.migration}", *free_in_guest(evidence)),
        remedies=(_TAKE_AND_GIVE_BACK,),
        cost=_TAKING,
    )


def _read(evidence: Evidence, size_bytes: int | None) -> Finding:
    """By a read of a hole shared memory gets a page, and private memory does not (shmem_fault, Linux 6.18)."""
    assert evidence.monitor is not None
    return Finding(
        cause="read-by-migration",
        size_bytes=size_bytes,
        sentence="A migration, or a saving of this VM, has read the guest's memory. Of shared memory, what was given "
        "back is held again by that, and the guest does not report it again until it has used it.",
        evidence=(
            f"query-migrate says {evidence.monitor.migration}; the guest's memory is shared (rw-s in maps)",
            *free_in_guest(evidence),
            "what the guest has freed just now is a part of it, and comes back by itself: look again",
        ),
        remedies=(_TAKE_AND_GIVE_BACK,),
        cost=_TAKING,
    )


def _poisoned(evidence: Evidence, size_bytes: int | None) -> Finding:
    return Finding(
        cause="reports-keep-a-pattern",
        size_bytes=size_bytes,
        sentence="The guest fills free pages with a pattern (page_poison), and wants to find it there: the device "
        "answers its reports, and discards nothing.",
        evidence=(
            "page_poison on the guest's command line",
            f"bit {PAGE_POISON_BIT} of the balloon's negotiated features is 1 (/sys/bus/virtio/devices)",
            *free_in_guest(evidence),
        ),
        remedies=(Remedy(where="guest", command="boot without page_poison", note="init_on_free=1 does not hinder it"),),
        returns_bytes=size_bytes,
        cost="a reboot of the guest",
    )
