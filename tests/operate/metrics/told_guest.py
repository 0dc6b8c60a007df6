"""A guest as the daemon tells of it, made up."""

from typing import Any

from pagetide.host.device.figures import ROUND_US, GuestFigures
from pagetide.operate.metrics.series import WORDS


def told_guest(name: str, account: int = 1, **figures: Any) -> GuestFigures:
    """One whose figures are 0 unless they are given, by the ledger's words or by the fields of `GuestFigures`."""
    words = [figures.pop(word, 0) for word in WORDS]
    fields: dict[str, Any] = {
        "state": "serving", "ram_bytes": 1 << 30, "shared_bytes": 1 << 30, "held_bytes": 0, "target_bytes": 1 << 30,
        "balloon_bytes": 0, "resting": False, "allowance_spent_s": 0.0, "given_up": 0, "waited": (0, 0),
        "within": [0] * len(ROUND_US), "wrong": (0, 0, 0), "waiting": {}, "statistics": {},
    }  # fmt: skip
    return GuestFigures(name=name, account=account, words=words, **(fields | figures))
