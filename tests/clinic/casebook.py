"""What the clinic's tests found, case by case, and the document that is made of it: `make clinic`."""

import datetime as dt
import platform
from pathlib import Path
from typing import NamedTuple

from pagetide.machine.versions import cpu_name
from pagetide.units import format_size

_HEAD = """\
Real VMs with one disease each, and what `pagetide why` says of them. The truth is what the host holds of the memory
file (`st_blocks`), before and after, or what was put into the guest; the size that is said must be within 10 % or 8 MiB
of it. Then the remedy is applied, and what comes back must be within 15 % or 16 MiB of what was promised."""


_NO_VM = {
    "device-passed-through": "tried: this host has no IOMMU and no /dev/vfio; made-up evidence, and the descriptors "
    "that such a QEMU has open",
    "reporting-not-negotiated, by an old kernel": "not tried: none of the kernels that are set up here is older than "
    "5.7; made-up evidence, and a real VM that does not negotiate since it clears what it frees",
    "reports-keep-a-pattern": "tried: page_poison=1 with Debian's Linux 6.1 and 6.12, which are built without "
    "CONFIG_PAGE_POISONING and do nothing; made-up evidence",
    "discards-without-effect": "not tried: it takes a huge page of a guest that another process has pinned; made-up "
    "evidence of our daemon's ledger",
    "reporting-inhibited-by-migration, its size in postcopy": "how much of what has arrived is free nobody knows "
    "before all has; of a snapshot it is held against the truth",
    "Firecracker and Cloud Hypervisor": "do not run without KVM; their texts are written after their documentation",
}
"""Causes that no VM has here, and what was tried."""

_NO_PROMISE = (
    "in-use, vmm-own, memory-not-onlined and churn are told, and nobody can promise what comes back; a balloon gives "
    "back to the guest. What comes of names of files (slab-reclaimable), parts of huge pages (deferred-split, "
    "host-huge-pages), virtio-mem and swap depends on what lies beside it: the remedy is applied, no size is promised."
)


class Entry(NamedTuple):
    """One finding that was held against the truth.

    Attributes:
        test: the test's name, with its parameters.
        cause: the finding's.
        truth_bytes: how much it really was.
        said_bytes: how much it was said to be.
        promised_bytes: what was to come back by the remedy; None where nothing was promised, or no remedy applied.
        returned_bytes: what then came back; None likewise.
    """

    test: str
    cause: str
    truth_bytes: int | None
    said_bytes: int | None
    promised_bytes: int | None = None
    returned_bytes: int | None = None


class Casebook:
    """The entries of a session; where tests run in several processes, each has its own, and the first has all.

    Attributes:
        test: the one that runs.
        qemus: the release of each QEMU that the tests have, by its parameter.
        entries: what was noted.
    """

    test: str
    qemus: dict[str, str]
    entries: list[Entry]

    def __init__(self) -> None:
        self.test, self.qemus, self.entries = "", {}, []
        self._failed: set[str] = set()

    def sized(self, cause: str, truth_bytes: int, said_bytes: int) -> None:
        """The size of a finding was held against the truth; where that was asked twice, the last time counts."""
        self.entries = [entry for entry in self.entries if (entry.test, entry.cause) != (self.test, cause)]
        self.entries.append(Entry(self.test, cause, truth_bytes, said_bytes))

    def returned(self, cause: str, promised_bytes: int, returned_bytes: int) -> None:
        """Its remedy was applied, and what came back was held against what was promised."""
        for place, entry in reversed(list(enumerate(self.entries))):
            if (entry.test, entry.cause, entry.returned_bytes) == (self.test, cause, None):
                self.entries[place] = entry._replace(promised_bytes=promised_bytes, returned_bytes=returned_bytes)
                return
        self.entries.append(Entry(self.test, cause, None, None, promised_bytes, returned_bytes))

    def failed(self, test: str) -> None:
        """A test did not pass: what it noted is no case."""
        self._failed.add(test)

    def has_failed(self, test: str) -> bool:
        """Whether it is one of those."""
        return test in self._failed

    def write(self, path: Path, passed: list[str]) -> None:
        """Write the document, of the tests that passed."""
        made = f"Made by `make clinic` on {dt.datetime.now(dt.UTC):%Y-%m-%d}, {cpu_name()}, Linux {platform.release()}"
        qemus = ", ".join(f"{name} is {version}" for name, version in sorted(self.qemus.items()))
        lines = [
            "# The clinic",
            "",
            "<!-- Made by `make clinic`; do not edit. -->",
            "",
            *_HEAD.splitlines(),
            "",
            f"{made}: {len(passed)} tests passed, {len(self._failed)} failed. QEMU: {qemus or 'none'}.",
            "",
            *(f"Failed, and no case: {_words(test)}." for test in sorted(self._failed)),
            *[""] * bool(self._failed),
            "| case | finding | truth | said | promised | came back |",
            "|---|---|---|---|---|---|",
            *(_row(entry) for entry in sorted(self.entries, key=_place) if entry.test not in self._failed),
            "",
            "Tests that hold no size against a truth (healthy VMs, which must have no finding, and what is said of a",
            "monitor or of bounds):",
            "",
        ]
        with_entry = {entry.test for entry in self.entries}
        lines += [f"- {_words(test)}" for test in sorted(passed) if test not in with_entry]
        lines += ["", "Without a VM of its own:", "", *(f"- {cause}: {why}." for cause, why in _NO_VM.items())]
        lines += ["", "Without a promise:", "", _NO_PROMISE]
        path.write_text("\n".join(lines) + "\n")


def _place(entry: Entry) -> tuple[str, int]:
    """The order of rows: by cause, and then by size."""
    return entry.cause, -(entry.truth_bytes or 0)


def _row(entry: Entry) -> str:
    sizes = entry[2:]
    cells = (_words(entry.test), entry.cause, *("" if size is None else format_size(size) for size in sizes))
    return f"| {' | '.join(cells)} |"


def _words(test: str) -> str:
    """A test's name as words, and its parameters."""
    name, _, parameters = test.removeprefix("test_").partition("[")
    return name.replace("_", " ") + (f" ({parameters.removesuffix(']')})" if parameters else "")


CASEBOOK = Casebook()
"""That of this session."""
