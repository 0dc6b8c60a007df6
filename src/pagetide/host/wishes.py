"""What the host wants of a guest, apart from its connection."""

import dataclasses


@dataclasses.dataclass
class Wishes:
    """Kept for a guest's socket, so that a guest that comes back there finds them as they were.

    Attributes:
        target_bytes: memory that it is to make do with; None for all of it.
        paused: its reports are to stay in the ring.
        inhibited: nothing of it is to be discarded.
    """

    target_bytes: int | None = None
    paused: bool = False
    inhibited: bool = False
