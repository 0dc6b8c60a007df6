"""A guest's books: what it reported against what became of that, and what it has free against what is held of it."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pagetide.host.memory.ledger import SKIP_REASONS
from pagetide.units import format_size

_IN_VAIN_SHARE = 0.25
"""Of a guest's memory, as in the alert (deploy/prometheus/pagetide-rules.yml)."""
_UNSEEN_BYTES = 8 << 20
"""Memory that a guest uses and never touched, and what it does between two looks."""
_KINDS = {"reported": "", "inflated": "inflate_"}
"""Of what leaves the balloon nothing is discarded."""


class Account(NamedTuple):
    """What one queue's account says, in bytes.

    Attributes:
        named: what the guest named.
        discarded: of that.
        skipped: of that, by reason; those of which there is nothing are left out.
    """

    named: int
    discarded: int
    skipped: Mapping[str, int]

    @property
    def missing(self) -> int:
        """What became of nothing."""
        return self.named - self.discarded - sum(self.skipped.values())


class Books(NamedTuple):
    """One guest's at the end. All in bytes.

    Attributes:
        guest: its name.
        kind: what runs it.
        boots: how often it was booted.
        accounts: by what was done, as the daemon tells them of this boot.
        ram: memory that it has.
        total: what its kernel says that it has.
        free: what its kernel says is free.
        held: by the daemon's word.
        blocks: held by the memory file's own blocks.
    """

    guest: str
    kind: str
    boots: int
    accounts: Mapping[str, Account]
    ram: int
    total: int
    free: int
    held: int
    blocks: int

    @property
    def in_vain(self) -> int:
        """Held beyond what the guest uses."""
        return self.held - (self.total - self.free)

    def wrong(self) -> list[str]:
        """What does not balance, as sentences."""
        found = [
            f"{self.guest}: of the {name} {format_size(account.missing)} became of nothing"
            for name, account in self.accounts.items()
            if account.missing
        ]
        if abs(self.held - self.blocks) > _UNSEEN_BYTES:
            found.append(f"{self.guest}: {self.held} bytes are said to be held, and {self.blocks} are")
        if self.in_vain > _IN_VAIN_SHARE * self.ram:
            found.append(f"{self.guest}: {format_size(self.in_vain)} are held that the guest has free")
        if self.in_vain < -_UNSEEN_BYTES:
            found.append(f"{self.guest}: {format_size(-self.in_vain)} are not held that the guest uses")
        return found


def accounts_of(ledger: Mapping[str, int]) -> dict[str, Account]:
    """A ledger's two, as `pagetide ctl show --json` has it."""
    accounts = {}
    for name, prefix in _KINDS.items():
        skipped = {reason: ledger[f"{prefix}skipped_{reason}_bytes"] for reason in SKIP_REASONS}
        named, discarded = ledger[f"{prefix}reported_bytes"], ledger[f"{prefix}discarded_bytes"]
        accounts[name] = Account(named, discarded, {reason: size for reason, size in skipped.items() if size})
    return accounts


def books_of(guest: str, kind: str, boots: int, shown: Mapping[str, Any], meminfo: str, blocks: int) -> Books:
    """Of what `ctl show --json` tells, what the guest's /proc/meminfo says, and its file's blocks."""
    own = {name: int(kib) << 10 for name, kib in re.findall(r"^(\w+): +(\d+) kB$", meminfo, re.MULTILINE)}
    return Books(
        guest,
        kind,
        boots,
        accounts_of(shown["ledger"]),
        shown["ram_bytes"],
        own["MemTotal"],
        own["MemFree"],
        shown["held_bytes"],
        blocks,
    )
