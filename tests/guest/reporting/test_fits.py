"""Which settings do not fit a design."""

from typing import Any

import pytest

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.reporting.registry import DESIGNS, make_design
from pagetide.guest.reporting.settings import ReportingSettings

pytestmark = pytest.mark.jit  # its kernels are tested both ways elsewhere

MISFITS: list[tuple[str, dict[str, Any], str]] = [
    ("sync", {"cool_s": 1.0}, "with sync .* no time to cool"),
    ("sync", {"wake": "timer"}, "with sync .* nobody to wake by timer"),
    ("sync", {"capacity": 513}, "with sync the capacity must be at most 512"),
    ("notify-array", {"hints_max": 15}, "with notify-array .* room for the 16 hints .* not for 15"),
    ("hybrid", {"wake_blocks": 300}, "with hybrid .* room for the 300 hints .* not for 256"),
    ("shared", {"order": 8}, "with shared .* order must be 9, not 8"),
    ("shared", {"order": 10}, "with shared .* order must be 9, not 10"),
    ("shared", {"oom": "swap"}, "with shared .* spare"),
    ("shared", {"pace": "linux"}, "with shared .* pace must be drain"),
    ("shared", {"wake": "merge"}, "with shared .* wake must be timer"),
    ("balloon", {"oom": "swap"}, "with balloon oom must be"),
    ("balloon", {"oom": "cap"}, "with balloon oom must be"),
    ("balloon", {"pace": "linux"}, "with balloon .* pace must be drain"),
    ("balloon", {"wake": "merge"}, "with balloon .* wake must be timer"),
    ("balloon", {"cool_s": 1.0}, "with balloon .* no time to cool"),
    ("pool", {"cool_s": 1.0}, "with pool .* no time to cool"),
    ("pool", {"delay_s": 0.0}, "with pool .* delay must be at least 0.1 s, not 0.0 s"),
    ("pool", {"order": 8, "unit_order": 9}, "with pool .* order must be at least 9, not 8"),
    ("pool", {"delay_s": 0.09}, "with pool .* delay must be at least 0.1 s, not 0.09 s"),
    *[
        (name, {"pace": "linux"}, f"only scan has Linux's pace; with {name} the pace must be drain")
        for name in ("sync", "notify", "notify-array", "hybrid", "scan-restart", "cursor", "pool")
    ],
]


@pytest.mark.parametrize(("name", "changes", "sentence"), MISFITS, ids=str)
def test_settings_that_do_not_fit_are_refused(name: str, changes: dict[str, Any], sentence: str) -> None:
    """The sentence says what would do."""
    with pytest.raises(ValueError, match=sentence):
        make_design(name, Zone(1024), ReportingSettings()._replace(**changes))


@pytest.mark.parametrize("name", DESIGNS)
def test_the_defaults_fit_every_design(name: str) -> None:
    """Whoever sets nothing gets a design that is at rest, since it was not started."""
    design = make_design(name, Zone(1024), ReportingSettings())
    assert design.at_rest
    assert design.due_s is None
