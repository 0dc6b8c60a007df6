"""Why memory that was plugged into a VM, or is to be taken from it, does not come back."""

from collections.abc import Iterator

from pagetide.operate.balance import Balance
from pagetide.operate.causes.finding import Finding, Remedy
from pagetide.operate.evidence import Evidence
from pagetide.units import format_size


def plug_causes(evidence: Evidence, _: Balance, least_bytes: int) -> Iterator[Finding]:
    """A virtio-mem device that has more than is wanted, and memory that the guest has not onlined."""
    yield from _not_unplugged(evidence, least_bytes)
    yield from _not_onlined(evidence, least_bytes)


def _not_unplugged(evidence: Evidence, least_bytes: int) -> Iterator[Finding]:
    devices = evidence.monitor.virtio_mem if evidence.monitor is not None else ()
    size_bytes = sum(max(0, each.size_bytes - each.requested_bytes) for each in devices)
    if size_bytes < least_bytes:
        return
    yield Finding(
        cause="virtio-mem-not-unplugged",
        size_bytes=min(size_bytes, evidence.vm.ram_held_bytes),
        sentence="A virtio-mem device is to have less memory, and the guest has not given it up: it cannot move what "
        "lies there.",
        evidence=(
            *(
                f"plugged {format_size(each.size_bytes)} of {format_size(each.max_bytes)}, wanted "
                f"{format_size(each.requested_bytes)} (query-memory-devices)"
                for each in devices
            ),
        ),
        remedies=(
            Remedy(
                where="guest",
                command="memhp_default_state=online_movable on its command line",
                note="so that only what can be moved lies there; from its next boot on",
            ),
            Remedy(
                where="guest",
                command="echo 1 >/proc/sys/vm/compact_memory",
                note="once, where enough is free; the driver tries again within five minutes, or when it is asked anew",
            ),
        ),
        cost="a reboot of the guest",
    )


def _not_onlined(evidence: Evidence, least_bytes: int) -> Iterator[Finding]:
    guest = evidence.guest
    if guest is None or guest.offline_bytes is None or guest.offline_bytes < least_bytes:
        return
    yield Finding(
        cause="memory-not-onlined",
        size_bytes=None,
        sentence=f"{format_size(guest.offline_bytes)} were plugged in and are not online: the guest can neither use "
        "nor report them.",
        evidence=("memory blocks whose state is offline (/sys/devices/system/memory)",),
        remedies=(
            Remedy(
                where="guest",
                command="for b in /sys/devices/system/memory/memory*/state; do echo online_movable >$b; done",
                note="or memhp_default_state=online_movable on its command line",
            ),
        ),
        cost="none",
    )
