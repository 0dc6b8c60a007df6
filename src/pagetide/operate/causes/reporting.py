"""Why free memory that is large enough to be reported is still held: what is wrong with the balloon, or nothing."""

from collections.abc import Iterator

from pagetide.operate.balance import REPORTABLE, REPORTING_BIT, Balance, is_reporting
from pagetide.operate.causes.finding import Finding, Remedy
from pagetide.operate.evidence import Evidence
from pagetide.operate.guest.facts import GuestFacts
from pagetide.operate.guest.linux_reporting import CAPACITY, drain_s, reporting_order, sort_free
from pagetide.units import ORDER_MAX, PAGE_SIZE_BYTES, format_size

_FIRST_RELEASE = (5, 7)
_POISON = {f"{name}={on}" for name in ("page_poison", "init_on_free") for on in ("1", "on", "y")}
"""With one of these a driver reports only where PAGE_POISON is offered (virtballoon_validate, Linux 6.1)."""

_UNPLUG = "device_del of the balloon, and once that is gone "
_PLUG_QMP = (
    'device_add {"driver":"virtio-balloon-pci","id":"balloon0","free-page-reporting":true}, as a QMP command; on q35 '
    "with a free root port as its bus"
)
_LIBVIRT = "<memballoon model='virtio' freePageReporting='on'/>"
_COST = "each reported block that is used again is faulted in anew"


def reporting_causes(evidence: Evidence, balance: Balance, least_bytes: int) -> Iterator[Finding]:
    """The one reason why reportable memory is held, if that is so much.

    Without the guest's text nobody knows how much that is, and what is plain from the host's side is told all the same.
    """
    guest, daemon = evidence.guest, evidence.daemon
    size_bytes = None if guest is None else balance.of(REPORTABLE)
    if size_bytes is not None and size_bytes < least_bytes:
        return
    if evidence.vm.passes_devices:
        yield _pinned(evidence, size_bytes)
    elif any(part.is_locked and not part.is_shared for part in evidence.vm.ram):
        yield _locked(evidence, size_bytes)
    elif daemon is not None and (daemon.is_paused or daemon.is_inhibited):
        yield _stopped(evidence, size_bytes)
    elif _is_private_for_ours(evidence):
        yield _private(evidence, size_bytes)
    elif _has_no_balloon(evidence):
        yield _no_device(evidence, size_bytes)
    elif _does_not_report(evidence):
        yield _not_reporting(evidence, size_bytes)
    elif _is_in_larger_pages(evidence):
        yield _larger_pages(evidence, size_bytes)
    elif guest is not None and size_bytes is not None:
        yield _coming(guest, evidence, size_bytes)


def _free(evidence: Evidence, size_bytes: int | None) -> tuple[str, ...]:
    guest = evidence.guest
    if guest is None or size_bytes is None:
        return ()
    free, order = guest.memory("MemFree"), reporting_order(guest)
    large = format_size(sort_free(guest, order).reportable)
    return (
        f"{format_size(free)} are free in the guest (MemFree)",
        f"{large} of that in blocks of order {order} and more (buddyinfo); {format_size(size_bytes)} of these are held",
    )


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
    plug = Remedy(where="QEMU", command=_PLUG_QMP, note="until the VM ends")
    libvirt = Remedy(where="libvirt", command=_LIBVIRT, note="virsh edit, from the next start on")
    vm = _in_definition(evidence, "a virtio-balloon device with free page reporting")
    return Finding(
        cause="no-balloon-device",
        size_bytes=size_bytes,
        sentence="The VM has no balloon device, so what the guest frees is never reported.",
        evidence=(*told, *_free(evidence, size_bytes)),
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
    guest, held = evidence.guest, _free(evidence, size_bytes)
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
        plug = Remedy(where="QEMU", command=_UNPLUG + _PLUG_QMP, note="until the VM ends")
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
            *_free(evidence, size_bytes),
            *(() if is_inhibited else _unanswered(evidence)),
        ),
        remedies=(Remedy(where="pagetide", command=f"pagetide ctl {undo} GUEST"),),
        cost=f"none, unless it was {word} for a reason, such as a device that was passed through",
    )


def _unanswered(evidence: Evidence) -> tuple[str, ...]:
    """What a guest whose report nobody answers has taken out of its free lists, and counts nowhere."""
    if evidence.guest is None:
        return ()
    most = format_size((CAPACITY << ORDER_MAX) * evidence.guest.page_bytes)
    return (f"up to {most} more are out in a report that is not answered, and are counted with the guest's kernel",)


def _pinned(evidence: Evidence, size_bytes: int | None) -> Finding:
    return Finding(
        cause="device-passed-through",
        size_bytes=size_bytes,
        sentence="A device is passed through to the guest (vfio): all of its memory is pinned, and nothing that it "
        "frees is discarded.",
        evidence=("a vfio device on the command line", *_free(evidence, size_bytes)),
        remedies=(Remedy(where="VM", command="no passed-through device", note="from the next start on"),),
        returns_bytes=size_bytes,
        cost="the device",
    )


def _locked(evidence: Evidence, size_bytes: int | None) -> Finding:
    return Finding(
        cause="memory-locked",
        size_bytes=size_bytes,
        sentence="The VMM has locked the guest's memory, and madvise(MADV_DONTNEED) refuses to discard what is locked.",
        evidence=("VmFlags of the guest's memory have `lo` (smaps)", *_free(evidence, size_bytes)),
        remedies=(
            Remedy(where="QEMU", command="no -overcommit mem-lock=on", note="from the next start on"),
            Remedy(where="libvirt", command="no <locked/> in <memoryBacking>", note="from the next start on"),
        ),
        returns_bytes=size_bytes,
        cost="the guest's memory may be swapped out",
    )


def _is_private_for_ours(evidence: Evidence) -> bool:
    """Whether the balloon is behind a socket, to which private memory cannot be shared."""
    if evidence.daemon is not None and evidence.daemon.state == "no shared memory":
        return True
    behind_socket = any(each.is_ours for each in evidence.vm.balloons or ())
    return behind_socket and not all(part.is_shared for part in evidence.vm.ram)


def _private(evidence: Evidence, size_bytes: int | None) -> Finding:
    return Finding(
        cause="private-mapping",
        size_bytes=size_bytes,
        sentence="The guest's memory is a private mapping of the VMM, which no other process can discard, and its "
        "balloon is behind a socket.",
        evidence=("the mapping is private (rw-p in smaps)", *_free(evidence, size_bytes), *_unanswered(evidence)),
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
        evidence=("KernelPageSize of the guest's memory (smaps)", *_free(evidence, size_bytes)),
        remedies=(
            Remedy(where="QEMU", command="hugetlbsize=2M on the memory backend", note="from the next start on"),
            Remedy(where="libvirt", command="<page size='2048' unit='KiB'/> in <hugepages>", note="virsh edit"),
        ),
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
        evidence=(*_free(evidence, size_bytes), f"bit {REPORTING_BIT} of the balloon's negotiated features is 1"),
        returns_bytes=size_bytes,
        coming_s=coming_s,
    )
