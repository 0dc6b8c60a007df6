"""The answer: the balance, and the findings by bytes."""

import msgspec

from pagetide.operate.balance import Balance, balance
from pagetide.operate.causes.finding import Finding
from pagetide.operate.causes.in_guest import guest_causes
from pagetide.operate.causes.on_host import host_causes
from pagetide.operate.causes.reporting import reporting_causes
from pagetide.operate.evidence import Evidence
from pagetide.units import MIB

_LEAST_BYTES = 32 * MIB
_LEAST_SHARE = 64


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Why a VM's memory does not come back.

    Attributes:
        taken: when its evidence was gathered, as ISO 8601 in UTC.
        ram_bytes: how much memory the guest has.
        balance: what the host holds.
        findings: why, the largest first; those whose size is not known come last.
        least_bytes: less than this is no finding.
        gaps: what could not be read, and what that leaves open.
    """

    taken: str
    ram_bytes: int
    balance: Balance
    findings: tuple[Finding, ...]
    least_bytes: int
    gaps: tuple[str, ...]


def answer(evidence: Evidence) -> Answer:
    """The answer that this evidence gives."""
    ram_bytes = evidence.vm.ram_bytes
    least_bytes = max(_LEAST_BYTES, ram_bytes // _LEAST_SHARE)
    held = balance(evidence)
    found = [
        finding
        for causes in (reporting_causes, guest_causes, host_causes)
        for finding in causes(evidence, held, least_bytes)
        if finding.size_bytes is None or finding.size_bytes >= least_bytes
    ]
    return Answer(
        taken=evidence.taken,
        ram_bytes=ram_bytes,
        balance=held,
        findings=tuple(sorted(found, key=lambda finding: -(finding.size_bytes or 0))),
        least_bytes=least_bytes,
        gaps=evidence.gaps,
    )
