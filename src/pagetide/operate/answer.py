"""The answer: the balance, and the findings by bytes."""

from collections.abc import Iterator

import msgspec

from pagetide.operate.balance import KERNEL, Balance, balance
from pagetide.operate.causes.finding import Finding
from pagetide.operate.causes.in_guest import guest_causes
from pagetide.operate.causes.on_host import host_causes
from pagetide.operate.causes.plugged import plug_causes
from pagetide.operate.causes.reporting import reporting_causes
from pagetide.operate.evidence import Evidence
from pagetide.units import MIB, format_size

_LEAST_BYTES = 32 * MIB
_LEAST_SHARE = 64
_KERNEL_LEAST_BYTES = 256 * MIB
_KERNELS = {"page tables", "slab", "reserved", "without a flag"}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Why a VM's memory does not come back.

    Attributes:
        taken: when its evidence was gathered, as ISO 8601 in UTC.
        ram_bytes: how much memory the guest has.
        balance: what the host holds.
        findings: why, the largest first; those whose size is not known come last.
        least_bytes: less than this is no finding.
        notes: what else is to be known of what is held, as sentences.
        gaps: what could not be read, and what that leaves open.
    """

    taken: str
    ram_bytes: int
    balance: Balance
    findings: tuple[Finding, ...]
    least_bytes: int
    notes: tuple[str, ...]
    gaps: tuple[str, ...]

    @property
    def nothing(self) -> str:
        """What is to be said where there is no finding."""
        if self.balance.order is None:
            return "Nothing is found from the host's side. Without the guest's text most reasons cannot be found."
        return f"Nothing is found that keeps {format_size(self.least_bytes)} or more from coming back."


def answer(evidence: Evidence) -> Answer:
    """The answer that this evidence gives."""
    ram_bytes = evidence.vm.ram_bytes
    least_bytes = max(_LEAST_BYTES, ram_bytes // _LEAST_SHARE)
    held = balance(evidence)
    found = [
        finding
        for causes in (reporting_causes, guest_causes, plug_causes, host_causes)
        for finding in causes(evidence, held, least_bytes)
        if finding.size_bytes is None or finding.size_bytes >= least_bytes
    ]
    return Answer(
        taken=evidence.taken,
        ram_bytes=ram_bytes,
        balance=held,
        findings=tuple(_for_whom(evidence, each) for each in sorted(found, key=lambda each: -(each.size_bytes or 0))),
        least_bytes=least_bytes,
        notes=tuple(_notes(evidence, held)),
        gaps=evidence.gaps,
    )


def _for_whom(evidence: Evidence, finding: Finding) -> Finding:
    """Where libvirt runs the VM, what is done by libvirt comes first: it knows nothing of what QEMU is told besides."""
    if evidence.monitor is None or evidence.monitor.source != "libvirt":
        return finding
    remedies = sorted(finding.remedies, key=lambda remedy: remedy.where == "QEMU")
    return msgspec.structs.replace(finding, remedies=tuple(remedies))


def _sampled(evidence: Evidence, balance: Balance) -> Iterator[str]:
    """What the kernel's own is, as far as some of its pages tell, where it is much."""
    guest = evidence.guest
    if (
        guest is None
        or not guest.sampled_pages
        or balance.of(KERNEL) < max(_KERNEL_LEAST_BYTES, guest.memory("MemTotal") // 8)
    ):
        return
    pages = sum(number for kind, number in guest.sampled_pages.items() if kind != "no memory")
    named = sorted(guest.sampled_pages.items(), key=lambda each: -each[1])
    parts = ", ".join(f"{kind} {number / max(1, pages):.0%}" for kind, number in named if kind in _KERNELS)
    yield f"Of {pages} pages of the guest that were looked at (kpageflags) are the kernel's: {parts or 'none'}."


def _notes(evidence: Evidence, balance: Balance) -> Iterator[str]:
    """Who pays for it, who else has it, and what is shown of it elsewhere."""
    group, shared_bytes = evidence.cgroup, sum(part.held_bytes for part in evidence.vm.ram if part.is_shared)
    if group is not None:
        limit = "without a limit" if group.limit_bytes is None else f"of a limit of {format_size(group.limit_bytes)}"
        yield f"Its control group is charged with {format_size(group.charged_bytes)}, {limit}."
        if group.shared_bytes is not None and shared_bytes - group.shared_bytes > _LEAST_BYTES:
            elsewhere = format_size(shared_bytes - group.shared_bytes)
            yield f"At least {elsewhere} of the guest's memory are charged to other groups, whose processes touched it."
    yield from _sampled(evidence, balance)
    monitor = evidence.monitor
    if monitor is not None and monitor.statistics_age_s is not None and not monitor.statistics_interval_s:
        yield (
            f"What QEMU and libvirt show of the guest's own statistics is {monitor.statistics_age_s} s old and stays "
            "so: no polling interval is set (qom-set guest-stats-polling-interval, virsh dommemstat --period)."
        )
    others = max((part.others for part in evidence.vm.ram), default=0)
    if others:
        yield f"{others} other process{'es map' * (others > 1) or ' maps'} the guest's memory, too."
