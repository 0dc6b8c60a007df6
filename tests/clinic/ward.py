"""How the clinic judges an answer: cause, bytes, and what came back against what was promised."""

from pathlib import Path

from pagetide.operate.answer import Answer, answer
from pagetide.operate.causes.finding import Finding
from pagetide.operate.gather import gather
from tests.clinic.casebook import CASEBOOK
from tests.clinic.patient import MIB, Patient

NOWHERE = Path("/nonexistent/control.sock")


def examine(patient: Patient, vm: str | None = None, control: Path = NOWHERE) -> Answer:
    """What `pagetide why` answers of this VM, named by its process or otherwise."""
    found = answer(gather(vm or str(patient.pid), patient.guest_text(), control))
    balance = found.balance
    assert sum(balance.classes.values()) == balance.held_bytes
    return found


def finding_of(found: Answer, cause: str) -> Finding:
    """The finding of this cause."""
    causes = [finding.cause for finding in found.findings]
    assert cause in causes, f"{causes}: {found.balance.classes}"
    return found.findings[causes.index(cause)]


def assert_first(found: Answer, cause: str, truth_bytes: int) -> Finding:
    """The first finding, which must be of this cause, and right to 10 % or 8 MiB."""
    first = finding_of(found, cause)
    assert found.findings[0] is first, [(finding.cause, finding.size_bytes) for finding in found.findings]
    assert_size(first, truth_bytes)
    return first


def assert_size(finding: Finding, truth_bytes: int) -> None:
    """What the finding says is right to 10 % or 8 MiB."""
    assert finding.size_bytes is not None
    CASEBOOK.sized(finding.cause, truth_bytes, finding.size_bytes)
    wrong_bytes = abs(finding.size_bytes - truth_bytes)
    assert wrong_bytes <= max(truth_bytes // 10, 8 * MIB), (finding.size_bytes / MIB, truth_bytes / MIB)


def assert_promise(finding: Finding, came_back_bytes: int) -> None:
    """What came back is what was promised, to 15 % or 16 MiB."""
    assert finding.returns_bytes is not None
    CASEBOOK.returned(finding.cause, finding.returns_bytes, came_back_bytes)
    wrong_bytes = abs(finding.returns_bytes - came_back_bytes)
    assert wrong_bytes <= max(finding.returns_bytes * 15 // 100, 16 * MIB), (
        f"promised {finding.returns_bytes / MIB:.1f} MiB, {came_back_bytes / MIB:.1f} MiB came back"
    )
