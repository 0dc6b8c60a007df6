"""A guest as the daemon tells of it, made up."""

from typing import Any

from pagetide.host.device.lag import ROUND_US
from pagetide.host.memory.ledger import WORD_NAMES
from pagetide.operate.metrics.told import ToldGuest, ToldLag


def told_guest(name: str, account: int = 1, **figures: Any) -> ToldGuest:
    """One whose figures are 0 unless they are given, by the ledger's words or by the fields of `ToldGuest`."""
    ledger = {word: 0 if word == "statistics" else figures.pop(word, 0) for word in WORD_NAMES}
    fields: dict[str, Any] = {
        "state": "serving", "ram_bytes": 1 << 30, "shared_bytes": 1 << 30, "held_bytes": 0, "target_bytes": 1 << 30,
        "balloon_bytes": 0, "resting": False, "allowance_spent_s": 0.0, "given_up": 0, "lag": ToldLag(0, 0),
        "lag_within": [(time_us, 0) for time_us in ROUND_US], "errors": {"ring": 0, "discard": 0, "malformed": 0},
        "waiting": {}, "statistics": {},
    }  # fmt: skip
    return ToldGuest(name=name, account=account, ledger=ledger, **(fields | figures))
