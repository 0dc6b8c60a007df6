"""Why free memory that is large enough to be reported is still held: what is wrong with the balloon, or nothing."""

from collections.abc import Iterator

import msgspec

from pagetide.operate.balance import OUT, REPORTABLE, REPORTING_BIT, Balance, is_reporting
from pagetide.operate.causes.finding import Finding, Remedy
from pagetide.operate.causes.no_discard import (
    HAS_READ,
    POISONS,
    free_in_guest,
    no_discard,
    no_discard_now,
    read_by_migration,
)
from pagetide.operate.evidence import Evidence
from pagetide.operate.guest.facts import GuestFacts
from pagetide.operate.guest.linux_reporting import drain_s, reporting_order, sort_free
from pagetide.units import ORDER_MAX, PAGE_SIZE_BYTES, format_size

_FIRST_RELEASE = (5, 7)
_POISON = POISONS | {f"init_on_free={on}" for on in ("1", "on", "y")}
"""With one of these a driver reports only where PAGE_POISON is offered (virtballoon_validate, Linux 6.1)."""

_PLUG_QMP = 'device_add {"driver":"virtio-balloon-pci","id":"balloon0","free-page-reporting":true}'
_PLUG_NOTE = "a QMP command; on q35 with a free root port as its bus; until the VM ends"
_LIBVIRT = "<memballoon model='virtio' freePageReporting='on'/>"
_COST = "each reported block that is used again is faulted in anew"


def reporting_causes(evidence: Evidence, balance: Balance, least_bytes: int) -> Iterator[Finding]:
    """The one reason why reportable memory is held, if that is so much; two where nobody can tell how much is by each.

    Without the guest's text nobody knows how much that is, and what is plain from the host's side is told all the same.
    """
    guest = evidence.guest
    size_bytes = None if guest is None else balance.of(REPORTABLE) + balance.of(OUT)
    if size_bytes is not None and size_bytes < least_bytes:
        return
    if (finding := no_discard(evidence, size_bytes)) is not None:
        yield finding
    elif _has_no_balloon(evidence):
        yield _no_device(evidence, size_bytes)
    elif _does_not_report(evidence):
        yield _not_reporting(evidence, size_bytes)
    elif (finding := no_discard_now(evidence, size_bytes)) is not None:
        yield finding
    elif _is_in_larger_pages(evidence):
        yield _larger_pages(evidence, size_bytes)
    else:
        yield from _read_or_coming(evidence, size_bytes)


def _read_or_coming(evidence: Evidence, size_bytes: int | None) -> Iterator[Finding]:
    """Nothing is wrong with the balloon. How much was freed since a migration that has ended nobody can tell."""
    guest = evidence.guest
    if (read := read_by_migration(evidence, size_bytes)) is not None:
        yield read
    if guest is None or size_bytes is None:
        return
    coming = _coming(guest, evidence, size_bytes)
    if read is None:
        yield coming
    elif evidence.monitor is not None and evidence.monitor.migration == HAS_READ:
        since = f"What the guest has freed since that migration ended is a part of it. {coming.sentence}"
        yield msgspec.structs.replace(coming, size_bytes=None, returns_bytes=None, sentence=since)


def _has_no_balloon(evidence: Evidence) -> bool:
    """By the guest, or else by what the VMM says, which may be that a balloon was plugged in since its start."""
    if evidence.guest is not None:
        return not evidence.guest.balloons
    for said in (evidence.monitor, evidence.firecracker):
        if said is not None:
            return not said.has_balloon and not evidence.vm.balloons
    return evidence.vm.balloons == ()


def _does_not_report(evidence: Evidence) -> bool:
    """By what the guest has negotiated, or else by what it is offered."""
    return _is_offered(evidence) is False if evidence.guest is None else not is_reporting(evidence.guest)


def _no_device(evidence: Evidence, size_bytes: int | None) -> Finding:
    told = [] if evidence.guest is None else ["the guest has no virtio device of type 5 (/sys/bus/virtio/devices)"]
    if evidence.vm.balloons == ():
        told.append(f"there is none on the command line of {evidence.vm.vmm}")
    if evidence.monitor is not None and not evidence.monitor.has_balloon:
        told.append(f"{evidence.monitor.source} knows of none")
    if evidence.firecracker is not None and not evidence.firecracker.has_balloon:
        told.append("Firecracker's API knows of none")
    plug = Remedy(where="QEMU", command=_PLUG_QMP, note=_PLUG_NOTE)
    libvirt = Remedy(where="libvirt", command=_LIBVIRT, note="virsh edit, from the next start on")
    vm = _in_definition(evidence, "a virtio-balloon device with free page reporting")
    return Finding(
        cause="no-balloon-device",
        size_bytes=size_bytes,
        sentence="The VM has no balloon device, so what the guest frees is never reported.",
        evidence=(*told, *free_in_guest(evidence)),
        remedies=(plug, libvirt) if evidence.vm.vmm == "QEMU" else (vm,),
        returns_bytes=size_bytes,
        cost=_COST,
    )


def _in_definition(evidence: Evidence, what: str) -> Remedy:
    """What is to be in a VM's definition; Firecracker's is its API before the start."""
    if evidence.vm.vmm == "Firecracker":
        what = 'PUT /balloon {"amount_mib":0,"deflate_on_oom":true,"free_page_reporting":true}, 1.14 and newer'
    return Remedy(where="VM", command=what, note="from the next start on")


def _not_reporting(evidence: Evidence, size_bytes: int | None) -> Finding:
    """There is a balloon, and it does not report."""
    guest, held = evidence.guest, free_in_guest(evidence)
    bits = f"bit {REPORTING_BIT} of the balloon's negotiated features is 0 (/sys/bus/virtio/devices)"
    if guest is not None and not any(each.has_driver for each in guest.balloons):
        return Finding(
            cause="driver-missing",
            size_bytes=size_bytes,
            sentence="The VM has a balloon device, and no driver in the guest has taken it.",
            evidence=("the guest's balloon has no driver (/sys/bus/virtio/devices)", *held),
            remedies=(Remedy(where="guest", command="modprobe virtio_balloon"),),
            returns_bytes=size_bytes if _is_offered(evidence) else None,
            cost=_COST,
        )
    if _is_offered(evidence) is not True:
        said = "the VMM does not offer free page reporting" if _is_offered(evidence) is False else "it is not known to"
        plug = Remedy(where="QEMU", command=_PLUG_QMP, note=f"after device_del of the one that is there; {_PLUG_NOTE}")
        libvirt = Remedy(where="libvirt", command=_LIBVIRT, note="virsh edit, from the next start on")
        vm = _in_definition(evidence, "switch free page reporting on")
        return Finding(
            cause="reporting-not-offered",
            size_bytes=size_bytes,
            sentence="The VM's balloon does not offer free page reporting, so what the guest frees is never reported.",
            evidence=((said,) if guest is None else (bits, said, *held)),
            remedies=(plug, libvirt) if evidence.vm.vmm == "QEMU" else (vm,),
            returns_bytes=size_bytes,
            cost=_COST,
        )
    assert guest is not None
    release = guest.release_number
    if release is not None and release < _FIRST_RELEASE:
        why, command = f"Linux {guest.release} cannot report (5.7 and newer can)", "a newer kernel"
    elif poisons := [word for word in guest.parameters if word in _POISON]:
        why = "the guest poisons or clears free pages, and the device does not offer PAGE_POISON"
        command = f"no {poisons[0].partition('=')[0]}"
    else:
        why, command = "its kernel may be built without CONFIG_PAGE_REPORTING", "a kernel with CONFIG_PAGE_REPORTING"
    return Finding(
        cause="reporting-not-negotiated",
        size_bytes=size_bytes,
        sentence=f"Free page reporting is offered, and the guest's driver does not take it: {why}.",
        evidence=(bits, "the VMM offers it", *held),
        remedies=(Remedy(where="guest", command=f"boot with {command}"),),
        returns_bytes=size_bytes,
        cost="a reboot of the guest",
    )


def _is_offered(evidence: Evidence) -> bool | None:
    """Whether the device offers reporting; None if nobody says."""
    if evidence.monitor is not None and evidence.monitor.offers_reporting is not None:
        return evidence.monitor.offers_reporting
    if evidence.firecracker is not None and evidence.firecracker.has_balloon:
        return evidence.firecracker.offers_reporting
    known = [each.offers_reporting for each in evidence.vm.balloons or () if each.offers_reporting is not None]
    return any(known) if known else None


def _largest_block_bytes(evidence: Evidence) -> int:
    return (PAGE_SIZE_BYTES if evidence.guest is None else evidence.guest.page_bytes) << ORDER_MAX


def _is_in_larger_pages(evidence: Evidence) -> bool:
    """Whether no block that the guest can report is a whole page of the host's pool."""
    largest_bytes = _largest_block_bytes(evidence)
    return any(part.kind == "hugetlbfs" and part.page_bytes > largest_bytes for part in evidence.vm.ram)


def _larger_pages(evidence: Evidence, size_bytes: int | None) -> Finding:
    page_bytes = max(part.page_bytes for part in evidence.vm.ram)
    return Finding(
        cause="pages-larger-than-blocks",
        size_bytes=size_bytes,
        sentence=f"The guest's memory is in pages of {format_size(page_bytes)} on hugetlbfs, and a block that is "
        f"reported has at most {format_size(_largest_block_bytes(evidence))}: only whole pages can be given back.",
        evidence=("KernelPageSize of the guest's memory (smaps)", *free_in_guest(evidence)),
        remedies=(
            Remedy(where="QEMU", command="hugetlbsize=2M on the memory backend", note="from the next start on"),
            Remedy(where="libvirt", command="<page size='2048' unit='KiB'/> in <hugepages>", note="virsh edit"),
        ),
        returns_bytes=size_bytes,
        cost="more entries in page tables",
    )


def _coming(guest: GuestFacts, evidence: Evidence, size_bytes: int) -> Finding:
    order = reporting_order(guest)
    free = sort_free(guest, order)
    coming_s = drain_s(guest, order, size_bytes / free.reportable)
    return Finding(
        cause="coming",
        size_bytes=size_bytes,
        sentence=f"It is coming: {format_size(size_bytes)} can be reported, and Linux's pace at order {order} and 2 s "
        f"returns it in about {coming_s:.0f} s.",
        evidence=(
            *free_in_guest(evidence),
            f"bit {REPORTING_BIT} of the balloon's negotiated features is 1",
        ),
        returns_bytes=size_bytes,
        coming_s=coming_s,
    )
