"""Why the host holds memory whatever the guest frees: swap, discards without effect, the VMM, what is taken again."""

from collections.abc import Iterator

from pagetide.operate.balance import BALLOON, BELOW_ORDER, HOST_HUGE, VMM, Balance
from pagetide.operate.causes.finding import Finding, Remedy
from pagetide.operate.evidence import Evidence
from pagetide.operate.guest.linux_reporting import reporting_order
from pagetide.units import MIB, format_size

_VMM_LEAST_BYTES = 256 * MIB
"""A VMM that takes less is as they are: QEMU with a display, TCG's translations, stacks of its threads."""

_CHURN_SHARE = 0.5


def host_causes(evidence: Evidence, balance: Balance, least_bytes: int) -> Iterator[Finding]:
    """What is found of all that, where it is so much."""
    vm, own_bytes = evidence.vm, balance.of(VMM)
    if vm.ram_swapped_bytes >= least_bytes:
        yield _swap(vm.ram_swapped_bytes)
    yield from _twice(evidence, least_bytes)
    yield from _without_effect(evidence, least_bytes)
    guest, small_bytes = evidence.guest, balance.of(BELOW_ORDER)
    if guest is not None and balance.order != reporting_order(guest) and small_bytes >= least_bytes:
        yield _parts_of_pages(evidence, small_bytes)
    if (huge_bytes := balance.of(HOST_HUGE)) >= least_bytes:
        yield _host_huge(evidence, huge_bytes)
    if (kept_bytes := balance.of(BALLOON)) >= least_bytes:
        yield _kept(kept_bytes, evidence.vm.told_by)
    if own_bytes >= max(least_bytes, _VMM_LEAST_BYTES):
        yield _own(own_bytes, evidence.vm.told_by)
    yield from _churn(evidence, least_bytes)


def _swap(size_bytes: int) -> Finding:
    return Finding(
        cause="host-swap",
        size_bytes=size_bytes,
        sentence=f"{format_size(size_bytes)} of the guest's memory are in the host's swap.",
        evidence=("Swap of the guest's memory (smaps)",),
        remedies=(Remedy(where="host", command="swapoff and swapon", note="reads it back, if there is room in RAM"),),
        cost="reading it from the swap device",
    )


def _twice(evidence: Evidence, least_bytes: int) -> Iterator[Finding]:
    """A private mapping of a file: what the guest gives back are the copies, and the file keeps its own pages."""
    vm = evidence.vm
    files_bytes = vm.ram_file_bytes
    if files_bytes < least_bytes:
        return
    yield Finding(
        cause="private-mapping-of-a-file",
        size_bytes=files_bytes,
        sentence="The guest's memory is a private mapping of a file, which holds pages of its own beside the copies: "
        "what the guest gives back are copies, and the file's pages stay.",
        evidence=(
            f"the file holds {format_size(files_bytes)} (st_blocks)",
            f"beside {format_size(vm.ram_held_bytes)} in the mapping, which is private (rw-p in smaps)",
        ),
        remedies=(
            Remedy(where="QEMU", command="share=on on the memory backend", note="from the next start on"),
            Remedy(where="libvirt", command="<access mode='shared'/> in <memoryBacking>", note="virsh edit"),
        ),
        returns_bytes=files_bytes,
        cost="a restart of the VM",
    )


def _without_effect(evidence: Evidence, least_bytes: int) -> Iterator[Finding]:
    """What was discarded, as the call said, and was there nevertheless when the daemon looked."""
    daemon, vm = evidence.daemon, evidence.vm
    if daemon is None or daemon.checked_bytes is None:
        return
    still_bytes = daemon.checked_bytes - daemon.verified_bytes
    if still_bytes < least_bytes:
        return
    others = max((part.others for part in vm.ram), default=0)
    who = f"{others} other processes map the same file" if others else "no other process is seen to map it"
    yield Finding(
        cause="discards-without-effect",
        size_bytes=min(still_bytes, vm.ram_held_bytes),
        sentence="Discarding freed nothing of memory that somebody has pinned, or that is a part of a larger page: the "
        "call succeeds, and the page stays.",
        evidence=(
            f"of {format_size(daemon.checked_bytes)} discarded {format_size(still_bytes)} were still there (ledger)",
            f"{who} (/proc); in huge pages {format_size(vm.ram_huge_bytes)} ({vm.told_by})",
        ),
        remedies=(
            Remedy(
                where="host",
                command="end what pins it",
                note="another device's back-end that has registered the memory (vfio, RDMA, AF_XDP)",
            ),
        ),
        cost="what that back-end does",
    )


def _parts_of_pages(evidence: Evidence, size_bytes: int) -> Finding:
    page_bytes = max(part.page_bytes for part in evidence.vm.ram)
    return Finding(
        cause="pages-larger-than-blocks",
        size_bytes=size_bytes,
        sentence=f"{format_size(size_bytes)} are free in blocks that are smaller than the host's pages of "
        f"{format_size(page_bytes)} on hugetlbfs, of which only whole ones can be given back.",
        evidence=("KernelPageSize of the guest's memory (smaps)", "free blocks by order (buddyinfo)"),
        remedies=(
            Remedy(where="guest", command="echo 1 >/proc/sys/vm/compact_memory", note="once: it makes larger blocks"),
            Remedy(where="VM", command="no memory on hugetlbfs", note="from the next start on"),
        ),
        cost="a moment of the guest's processors",
    )


def _host_huge(evidence: Evidence, size_bytes: int) -> Finding:
    folder = "/sys/kernel/mm/transparent_hugepage"
    return Finding(
        cause="host-huge-pages",
        size_bytes=size_bytes,
        sentence="The host has the guest's memory in huge pages, and holds them whole where the guest has given back a "
        "part: its khugepaged fills what is missing.",
        evidence=(
            f"in huge pages {format_size(evidence.vm.ram_huge_bytes)} ({evidence.vm.told_by})",
            "the guest reports blocks smaller than that, or has them in its balloon",
        ),
        remedies=(
            Remedy(
                where="host",
                command=f"echo 0 >{folder}/khugepaged/max_ptes_none",
                note="for all VMs, so that no page is filled any more; what is, goes once the guest has used it again",
            ),
            Remedy(
                where="host", command=f"echo never >{folder}/enabled", note="the same, from each VM's next start on"
            ),
        ),
        cost="fewer huge pages: the guest is slower where much memory is used at random",
    )


def _kept(size_bytes: int, told_by: str) -> Finding:
    return Finding(
        cause="balloon-without-effect",
        size_bytes=size_bytes,
        sentence=f"{format_size(size_bytes)} are in the guest's balloon: the guest lacks them, and the host holds "
        "them all the same.",
        evidence=(f"what is held beyond all that the guest has (vmstat's balloon_inflate, {told_by})",),
        remedies=(
            Remedy(
                where="VM",
                command="no device that is passed through, no locked memory, no larger pages on hugetlbfs",
                note="each of them has QEMU's balloon take pages from the guest and discard none",
            ),
        ),
        cost="a restart of the VM",
    )


def _own(size_bytes: int, told_by: str) -> Finding:
    return Finding(
        cause="vmm-own",
        size_bytes=size_bytes,
        sentence="The VMM itself takes that much, besides the guest's memory.",
        evidence=(f"what the process holds in other mappings ({told_by})",),
        remedies=(
            Remedy(
                where="VM",
                command="fewer devices, a smaller display, -accel tcg,tb-size=MIB without KVM",
                note="from the next start on",
            ),
        ),
    )


def _churn(evidence: Evidence, least_bytes: int) -> Iterator[Finding]:
    """Memory that comes back and is taken again: the host holds what the guest works with."""
    daemon = evidence.daemon
    if daemon is None or daemon.returned_bytes is None or daemon.refaulted_bytes is None:
        return
    if daemon.refaulted_bytes < max(least_bytes, _CHURN_SHARE * daemon.returned_bytes):
        return
    yield Finding(
        cause="churn",
        size_bytes=None,
        sentence=f"Memory does come back and is taken again: {format_size(daemon.returned_bytes)} were returned, and "
        f"{format_size(daemon.refaulted_bytes)} of that, or more, were touched again.",
        evidence=("returned_bytes and refaulted_bytes in the daemon's ledger",),
        remedies=(
            Remedy(where="guest", command="a higher page_reporting_order", note="small blocks are used again soonest"),
        ),
        cost="free memory in smaller blocks stays",
    )
