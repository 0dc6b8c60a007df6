"""Work whose pieces are kept, for who has it done several times."""

from collections.abc import Iterator

from pagetide.workload.stream import Piece, Stream, Work

KEPT_OPERATIONS_MAX = 1 << 21
"""Of longer work nothing is kept."""

KEPT_BYTES_MAX = 32 * KEPT_OPERATIONS_MAX
"""What is kept takes at most: an operation has 16 bytes, and when it is due 8; the rest is what arrays take beside."""


class KeptWork:
    """The same work, whose pieces are made once; see `Work`."""

    def __init__(self, work: Work) -> None:
        """Take the work."""
        self.end_s, self.vcpus, self.slot_firsts, self.stretches = (
            work.end_s, work.vcpus, work.slot_firsts, work.stretches,
        )  # fmt: skip
        self.nr_operations, self.has_migratetypes = work.nr_operations, work.has_migratetypes
        self._work = work
        self._pieces: dict[int, tuple[Piece, ...]] = {}

    def pieces(self, vcpu: int) -> Iterator[Piece]:
        """What one vCPU does; whoever gets it leaves it as it is."""
        if self.nr_operations > KEPT_OPERATIONS_MAX:
            return self._work.pieces(vcpu)
        if vcpu not in self._pieces:
            self._pieces[vcpu] = tuple(self._work.pieces(vcpu))
        return iter(self._pieces[vcpu])

    def whole(self) -> Stream:
        """All operations as one stream."""
        return self._work.whole()
