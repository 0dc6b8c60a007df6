"""What is measured of a guest. It imports nothing of the host, so that who only tells it starts fast."""

import msgspec

ROUND_US = (100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000)
"""The round times by which a histogram of waits is told, in microseconds."""


class GuestFigures(msgspec.Struct, frozen=True, array_like=True):
    """What is measured of a guest, for who asks for many guests again and again; as in `GuestState`.

    Attributes:
        name: its name.
        account: as there, and so are the others.
        words: of the ledger, those that were asked for, in the order in which they were.
        waited: how many reports waited, and for how many microseconds in all.
        within: how many of these waited no longer than each of `ROUND_US`.
        wrong: what went wrong: rings, discards, malformed descriptors.
    """

    name: str
    account: int
    state: str
    given_up: int
    resting: bool
    allowance_spent_s: float
    ram_bytes: int
    shared_bytes: int
    held_bytes: int
    target_bytes: int
    balloon_bytes: int
    waiting: dict[str, int]
    statistics: dict[str, int]
    words: list[int]
    waited: tuple[int, int]
    within: list[int]
    wrong: tuple[int, int, int]
