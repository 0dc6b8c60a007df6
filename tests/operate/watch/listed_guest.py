"""A guest as the daemon lists it, made up."""

from typing import Any

from pagetide.host.memory.ledger import WORD_NAMES
from pagetide.operate.watch.told_guests import ToldGuest, ToldLag


def listed_guest(name: str, account: int = 1, **figures: Any) -> ToldGuest:
    """One whose figures are 0 unless they are given, by the ledger's words or by the fields of `ToldGuest`."""
    ledger = {word: 0 if word == "statistics" else figures.pop(word, 0) for word in WORD_NAMES}
    fields: dict[str, Any] = {
        "state": "serving", "ram_bytes": 1 << 30, "held_bytes": 0, "target_bytes": 1 << 30, "balloon_bytes": 0,
        "resting": False, "lag": ToldLag(0, 0), "statistics": {}, "socket": None,
    }  # fmt: skip
    return ToldGuest(name=name, account=account, ledger=ledger, **(fields | figures))
