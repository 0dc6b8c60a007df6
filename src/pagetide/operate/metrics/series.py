"""Which series there are of a guest, under which names, and which figure of the daemon's each of them is.

Names and units are by Prometheus' conventions: base units, the unit last, `_total` for what only grows. Labels have few
values, none of which a guest can choose: its name is its socket's. A guest's values lie in one list, in the order of
the families here and of the series in each.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from pagetide.host.device.figures import ROUND_US, GuestFigures

Value = int | float | str | None
"""What a series has; None where there is none now."""


class Family(NamedTuple):
    """Series that differ in their labels.

    Attributes:
        name: without `_total`, with the unit.
        kind: `counter`, `gauge` or `histogram`.
        unit: the unit's name; empty for what is counted.
        about: what it is.
        series: of each its suffix, and its labels besides the guest's name.
    """

    name: str
    kind: str
    unit: str
    about: str
    series: tuple[tuple[str, str], ...]


def _family(name: str, kind: str, unit: str, about: str, labels: Sequence[str] = ("",)) -> Family:
    suffix = "_total" if kind == "counter" else ""
    whole = f"pagetide_guest_{name}_{unit}" if unit else f"pagetide_guest_{name}"
    return Family(whole, kind, unit, about, tuple((suffix, label) for label in labels))


def _labels(key: str, values: Sequence[str]) -> list[str]:
    return [f'{key}="{value}"' for value in values]


STATE = _family("state", "gauge", "", "1 for the state that the guest is in.")
"""Its value is a label, the daemon's word."""

SOCKET = (
    _family("attached", "gauge", "", "1 while a guest is attached, 0 while its socket waits."),
    _family("given_up", "counter", "", "Guests of a socket that were given up, and did not leave by themselves."),
    STATE,
)
"""What there is also while nobody is attached."""

_SIZES = (
    ("memory", "Memory that the guest has.", "ram_bytes"),
    ("shared", "Memory that the guest shares with the daemon.", "shared_bytes"),
    ("held", "What the host holds of the guest's memory, in RAM and in swap.", "held_bytes"),
    ("target", "Memory that the guest is to make do with.", "target_bytes"),
    ("balloon", "What the guest's driver says is in the balloon.", "balloon_bytes"),
)
_QUEUES = ("inflate", "deflate", "stats", "free_page", "reporting")  # as the daemon calls them
_STATISTICS = (
    ("free_memory", "gauge", "bytes", "Memory that the guest has free", "memfree"),
    ("total_memory", "gauge", "bytes", "Memory that the guest has in all", "memtot"),
    ("available_memory", "gauge", "bytes", "Memory that the guest could use without swapping", "avail"),
    ("cache", "gauge", "bytes", "The guest's page cache", "caches"),
    ("swapped_in", "counter", "bytes", "What the guest read from its swap", "swap_in"),
    ("swapped_out", "counter", "bytes", "What the guest wrote to its swap", "swap_out"),
    ("major_faults", "counter", "", "Page faults of the guest that waited for a disk", "majflt"),
    ("minor_faults", "counter", "", "Page faults of the guest that did not", "minflt"),
    ("huge_page_allocations", "counter", "", "Huge pages that the guest allocated", "htlb_pgalloc"),
    ("huge_page_failures", "counter", "", "Huge pages that the guest could not allocate", "htlb_pgfail"),
    ("oom_kills", "counter", "", "Processes that the guest killed for want of memory", "oom_kill"),
    ("allocation_stalls", "counter", "", "Allocations in the guest that reclaimed first", "alloc_stall"),
)

PRESENT = (
    *(_family(name, "gauge", "bytes", about) for name, about, _ in _SIZES),
    _family("resting", "gauge", "", "1 while the guest is not served, having used up its allowance."),
    _family("waiting_elements", "gauge", "", "Elements that wait to be served.", _labels("queue", _QUEUES)),
    *(
        _family(f"own_{name}", kind, unit, f"{about}, by its own statistics.")
        for name, kind, unit, about, _ in _STATISTICS
    ),
)
"""What there is while a guest is attached. What the guest itself counts begins anew when it is booted."""

_take_sizes = attrgetter(*(field for _, _, field in _SIZES))
_STATISTICS_WORDS = tuple(word for *_, word in _STATISTICS)


def present_values(guest: GuestFigures) -> list[Value]:
    """By `PRESENT`."""
    return [
        *_take_sizes(guest),
        int(guest.resting),
        *map(guest.waiting.get, _QUEUES),
        *map(guest.statistics.get, _STATISTICS_WORDS),
    ]


SKIP_REASONS = (
    "unaligned", "out_of_range", "device_readable", "repeated", "failed", "poisoned", "inhibited", "partial",
)  # fmt: skip
"""Those of `host/memory/ledger.py`, which brings arrays along."""

_WORDS = (
    ("reports", "", "Reports of free memory that were served.", "reports"),
    ("reported", "bytes", "Memory that the guest reported as free.", "reported_bytes"),
    ("discarded", "bytes", "Of the reported, what discarding calls covered.", "discarded_bytes"),
    ("checked", "bytes", "Of the discarded, what was read back.", "checked_bytes"),
    ("verified", "bytes", "Of the checked, what was found gone.", "verified_bytes"),
    ("refaulted", "bytes", "Returned memory that was found resident again.", "refaulted_bytes"),
    ("inflated", "bytes", "Memory that the guest gave to the balloon.", "inflate_reported_bytes"),
    ("deflated", "bytes", "Memory that the guest took out of the balloon.", "deflate_reported_bytes"),
    ("hinted", "bytes", "Memory that free page hints named.", "hinted_bytes"),
    ("punches", "", "Discarding calls for reports.", "punches"),
)
_RETURNED = {"report": "returned_bytes", "balloon": "inflate_returned_bytes"}
_ERRORS = ("ring", "discard", "malformed")  # as `GuestFigures.wrong`

COUNTED = (
    *(_family(name, "counter", unit, about) for name, unit, about, _ in _WORDS),
    _family("returned", "counter", "bytes", "What the host held until it was discarded.", _labels("by", [*_RETURNED])),
    _family("skipped", "counter", "bytes", "Reported and not discarded.", _labels("reason", SKIP_REASONS)),
    _family("errors", "counter", "", "Broken rings, failed discards, malformed descriptors.", _labels("kind", _ERRORS)),
    Family(
        "pagetide_guest_report_lag_seconds", "histogram", "seconds", "How long reports waited to be acknowledged.",
        (*(("_bucket", f'le="{time_us / 1e6}"') for time_us in ROUND_US), ("_bucket", 'le="+Inf"'),
         ("_count", ""), ("_sum", "")),
    ),
    _family("allowance_spent", "counter", "seconds", "The daemon's time that the guest used in vain."),
)  # fmt: skip
"""What is counted by the daemon. An account begins anew with each connection, and goes on in accounts.py."""

WORDS = (
    *(word for *_, word in _WORDS), *_RETURNED.values(), *(f"skipped_{reason}_bytes" for reason in SKIP_REASONS),
)  # fmt: skip
"""Which of the ledger's words these take, in their order."""


def counted_values(guest: GuestFigures) -> list[int | float]:
    """By `COUNTED`."""
    count, sum_us = guest.waited
    return [*guest.words, *guest.wrong, *guest.within, count, count, sum_us / 1e6, guest.allowance_spent_s]


FAMILIES = (*SOCKET, *PRESENT, *COUNTED)
"""All of a guest's, in the order in which they are told."""


def series_count(families: Sequence[Family]) -> int:
    """How many values a guest has in these."""
    return sum(len(family.series) for family in families)
