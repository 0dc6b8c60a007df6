"""What a balloon device must make of any ring: virtio 1.2, 2.7 and 5.5.6, read once more in plain Python.

Nothing of the device's own code is used but the names of its errors. The model works on a copy of all memory, in which
it also discards, so that it knows every byte that there must be afterwards.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from pagetide.virtio.balloon import Feature, Queue, Stat
from pagetide.virtio.split_ring import ring

PAGE = 4096
SIZE = 8
FILE_PAGES = 96
REGIONS = ((0x100, 16, 32), (0x120, 56, 24))
"""(first pfn, first page in the file, pages) of two regions whose guest addresses adjoin, unlike their places."""
GPA = 0x100 * PAGE
END = 0x138 * PAGE
DESC, AVAIL, USED = GPA, GPA + 0x200, GPA + 0x400
BORDER = 0x120 * PAGE
TABLES = (GPA + 2 * PAGE, BORDER - 36, END - 64)
"""Where indirect tables are: within a region, across the border within a descriptor, and up to the end of the second.
"""
ARRAY = GPA + 4 * PAGE

Descriptor = tuple[int, int, int, int]


@dataclass(frozen=True)
class Case:
    """What a guest wrote, and what was agreed."""

    kind: Queue
    descs: list[Descriptor]
    tables: list[list[Descriptor]]
    heads: list[int]
    idx: int
    array: bytes
    event_idx: bool
    indirect: bool
    inhibited: bool
    poison: int
    budget: int


@dataclass
class Answer:
    """What must have become of it."""

    error: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    statistics: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, value: int) -> None:
        """Add to a word of the ledger."""
        self.counts[name] = self.counts.get(name, 0) + value


class BrokenRuleError(Exception):
    """The driver broke this rule."""


FIRST_IMAGE = b"".join((0x5AFE_0000_0000_0001 + n).to_bytes(8, "little") for n in range(FILE_PAGES * PAGE // 8))
"""All memory before the guest wrote anything: every word differs from zero and from its neighbours."""


def pieces_of(gpa: int, length: int) -> list[tuple[int, int]]:
    """Where in the file these bytes are, region by region: (place, length); nowhere if some are in none."""
    pieces = []
    for pfn, page, pages in REGIONS:  # in the order of their addresses
        start, end = max(gpa, pfn * PAGE), min(gpa + length, (pfn + pages) * PAGE)
        if start < end:
            pieces.append((page * PAGE + start - pfn * PAGE, end - start))
    return pieces if sum(size for _, size in pieces) == length else []


def write_case(image: bytearray, case: Case) -> None:
    """Write rings, tables and buffers to the guest's memory."""

    def put(gpa: int, data: bytes) -> None:
        for place, size in pieces_of(gpa, len(data)):
            image[place : place + size], data = data[:size], data[size:]
        assert not data

    put(AVAIL, bytes(6 + 2 * SIZE))
    put(USED, bytes(6 + 8 * SIZE))
    for gpa, descs in zip((DESC, *TABLES), (case.descs, *case.tables), strict=True):
        put(gpa, b"".join(struct.pack("<QIHH", *desc) for desc in descs))
    put(AVAIL + 2, struct.pack(f"<H{len(case.heads)}H", case.idx, *case.heads))
    put(ARRAY, case.array)


class Model:
    """The device, in slow motion. Its image must be the memory's in the end, but for flags and events."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.image = bytearray(FIRST_IMAGE)
        write_case(self.image, case)
        self.answer = Answer()
        self.last = self.seen = self.used = 0
        self.held: int | None = None
        self.together: dict[tuple[int, int], set[int]] = {}

    def run(self) -> Answer:
        """Serve the ring until nothing is left, or a rule is broken."""
        try:
            while self._turn():
                pass
        except BrokenRuleError as error:
            self.answer.error = error.args[0]
        return self.answer

    def _turn(self) -> bool:
        """Whether there may be more."""
        before = self.used
        try:
            for _ in range(self.case.budget):
                element = self._pop()
                if element is not None:
                    self._take(*element)
                    continue
                self._finish()
                if self._avail_idx() == self.last & 0xFFFF:  # or what went was the ring itself
                    return False
        finally:
            self._finish()
            if self.used != before:
                self._put(USED + 2, struct.pack("<H", self.used))
        return True

    def _finish(self) -> None:
        """Reports of a turn are discarded together, and then given back."""
        for pages in self.together.values():
            for page in pages:
                self.image[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
        for _, head in self.together:
            self._push(head)
        self.together.clear()

    def _push(self, head: int) -> None:
        self._put(USED + 4 + 8 * (self.used % SIZE), struct.pack("<II", head, 0))
        self.used += 1

    def _take(self, head: int, buffers: list[tuple[int, int, bool]]) -> None:
        """Deal with one element, and give one back."""
        match self.case.kind:
            case Queue.REPORTING:
                pages = self._report(buffers)
                if not self.case.inhibited and not self.case.poison:
                    self.together[len(self.together), head] = pages
                    return
            case Queue.INFLATE | Queue.DEFLATE:
                self._pages(buffers)
            case Queue.FREE_PAGE:
                self.answer.count("hints_stale", sum(writable for _, _, writable in buffers))
            case Queue.STATS:
                data = b"".join(self._bytes(gpa, length) for gpa, length, writable in buffers if not writable)[:640]
                entries = struct.iter_unpack("<HQ", data[: len(data) // 10 * 10])
                known = {stat.value: stat.name.lower() for stat in Stat}
                self.answer.statistics = {known[tag]: value for tag, value in entries if tag in known}
                self.answer.count("statistics", 1)
                back, self.held = self.held, head
                if back is None:
                    return
                head = back
        self._push(head)

    def _report(self, buffers: list[tuple[int, int, bool]]) -> set[int]:
        pages: list[int] = []
        count = self.answer.count
        count("reports", 1)
        count("blocks", len(buffers))
        for gpa, length, writable in buffers:
            count("reported_bytes", length)
            pieces = pieces_of(gpa, length)
            if length == 0:
                count("zero_length_blocks", 1)
            elif not writable:
                count("skipped_device_readable_bytes", length)
            elif not pieces:
                count("skipped_out_of_range_bytes", length)
            elif gpa % PAGE or length % PAGE:
                count("skipped_unaligned_bytes", length)
            else:
                pages += [page for place, size in pieces for page in range(place // PAGE, (place + size) // PAGE)]
        return self._count(pages, "", "inhibited" if self.case.inhibited else "poisoned" if self.case.poison else "")

    def _pages(self, buffers: list[tuple[int, int, bool]]) -> None:
        name = "inflate_" if self.case.kind is Queue.INFLATE else "deflate_"
        pages: list[int] = []
        named = 0
        self.answer.count(f"{name}reports", 1)
        for gpa, length, writable in buffers:
            if writable or length % 4 or not pieces_of(gpa, length) or named + length // 4 > 1024:
                self.answer.count(f"{name}malformed", 1)
                continue
            named += length // 4
            for (pfn,) in struct.iter_unpack("<I", self._bytes(gpa, length)):
                pieces = pieces_of(pfn * PAGE, PAGE)
                if not pieces:
                    self.answer.count(f"{name}skipped_out_of_range_bytes", PAGE)
                else:
                    pages.append(pieces[0][0] // PAGE)
        self.answer.count(f"{name}blocks", named)
        self.answer.count(f"{name}reported_bytes", named * PAGE)
        if self.case.kind is Queue.INFLATE:
            for page in self._count(pages, name, "inhibited" if self.case.inhibited else ""):
                self.image[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)

    def _count(self, pages: list[int], name: str, held_back: str) -> set[int]:
        """Account for pages of one element; those to be discarded."""
        once = set(pages)
        self.answer.count(f"{name}skipped_repeated_bytes", (len(pages) - len(once)) * PAGE)
        if held_back:
            self.answer.count(f"{name}skipped_{held_back}_bytes", len(once) * PAGE)
            return set()
        for word in ("discarded_bytes", "checked_bytes", "verified_bytes"):
            self.answer.count(f"{name}{word}", len(once) * PAGE)
        return once

    def _avail_idx(self) -> int:
        return int.from_bytes(self._bytes(AVAIL + 2, 2), "little")

    def _pop(self) -> tuple[int, list[tuple[int, int, bool]]] | None:
        if self.seen == self.last:
            idx = self._avail_idx()
            if (idx - self.last) % 65536 > SIZE - (self.last - self.used):
                raise BrokenRuleError(ring.AVAIL_IDX)
            self.seen = self.last + (idx - self.last) % 65536
        if self.seen == self.last:
            return None
        (head,) = struct.unpack("<H", self._bytes(AVAIL + 4 + 2 * (self.last % SIZE), 2))
        if head >= SIZE:
            raise BrokenRuleError(ring.HEAD_RANGE)
        buffers = list(self._chain(head))
        self.last += 1
        return head, buffers

    def _chain(self, head: int) -> Iterator[tuple[int, int, bool]]:
        found = self._follow(DESC, SIZE, head)
        gpa, length, flags, _ = found[-1]
        if flags & 4:
            if not self.case.indirect:
                raise BrokenRuleError(ring.INDIRECT_NOT_NEGOTIATED)
            found.pop()
            if length == 0 or length % 16:
                raise BrokenRuleError(ring.TABLE_LENGTH)
            if length // 16 > 1024 - len(found):
                raise BrokenRuleError(ring.TABLE_TOO_LONG)
            if not pieces_of(gpa, length):
                raise BrokenRuleError(ring.TABLE_OUTSIDE)
            found += self._follow(gpa, length // 16, 0)
            if found[-1][2] & 4:
                raise BrokenRuleError(ring.INDIRECT_NESTED)
        for gpa, length, flags, _ in found:
            yield gpa, length, bool(flags & 2)

    def _follow(self, table: int, entries: int, index: int) -> list[Descriptor]:
        chain: list[Descriptor] = []
        for _ in range(entries):
            gpa, length, flags, after = struct.unpack("<QIHH", self._bytes(table + 16 * index, 16))
            chain.append((gpa, length, flags, after))
            if flags & 4:
                if flags & 1:
                    raise BrokenRuleError(ring.INDIRECT_WITH_NEXT)
                return chain
            if not flags & 1:
                return chain
            if after >= entries:
                raise BrokenRuleError(ring.NEXT_RANGE)
            index = after
        raise BrokenRuleError(ring.CHAIN_LOOPS)

    def _bytes(self, gpa: int, length: int) -> bytes:
        return b"".join(bytes(self.image[place : place + size]) for place, size in pieces_of(gpa, length))

    def _put(self, gpa: int, data: bytes) -> None:
        ((place, _),) = pieces_of(gpa, len(data))
        self.image[place : place + len(data)] = data


def reads_used(case: Case) -> bool:
    """Whether a buffer lies over the used ring: what is read there is the device's own, as it is at that moment."""
    end = USED + 6 + 8 * SIZE
    buffers = [desc for descs in (case.descs, *case.tables) for desc in descs]
    return any(gpa < end and gpa + length > USED for gpa, length, _, _ in buffers)


def features_of(case: Case) -> int:
    """What was negotiated."""
    features = int(Feature.VERSION_1 | Feature.STATS_VQ | Feature.FREE_PAGE_HINT | Feature.REPORTING)
    features |= int(Feature.EVENT_IDX) if case.event_idx else 0
    features |= int(Feature.INDIRECT_DESC) if case.indirect else 0
    return features | (int(Feature.PAGE_POISON) if case.poison else 0)
