"""What a guest's page map says: a letter for each block of 2 MiB, as the host sees it.

Nobody tells the host what a guest has in use: it holds what the guest has touched and not given back. What was given
back before this daemon was attached, it does not know of.
"""

import msgspec

HELD = "h"
"""All of the block is held, in RAM or in swap, and none of it was given back since it was last gone."""
PARTIAL = "p"
"""Some of it is held, and the rest is not."""
REFAULTED = "f"
"""Some of it is held that had been given back."""
RETURNED = "r"
"""Nothing of it is held any more: it was given back, by a report or into the balloon."""
NEVER = "n"
"""Nothing of it is held, and nothing ever was, as far as is known."""
UNKNOWN = "u"
"""The kernel does not say what is there (hugetlbfs, or a file on a disk)."""

NAMES = {
    HELD: "held",
    PARTIAL: "held in part",
    REFAULTED: "came back",
    RETURNED: "given back",
    NEVER: "never touched",
    UNKNOWN: "not known",
}
"""What each letter means, in a few words."""


class MapPiece(msgspec.Struct, frozen=True):
    """A piece of a guest's map.

    Blocks are counted by the guest's addresses, from the first region's on; the parts of a block that lie in two
    regions are two.

    Attributes:
        first: the number of its first block.
        blocks: how many blocks the whole map has now.
        states: a letter for each block of the piece; none if `first` is behind the last.
        regions: where each region begins in the guest, its size and the number of its first block, by address.
    """

    first: int
    blocks: int
    states: str
    regions: list[tuple[int, int, int]]
