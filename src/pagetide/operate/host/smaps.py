"""/proc/PID/smaps: what each mapping of a process holds (Documentation/filesystems/proc.rst, Linux 6.18).

The kernel walks the page tables for it: some 13 ms of processor time a GiB of small pages (Linux 6.18).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+) *(.*)", re.DOTALL)


class Mapping(NamedTuple):
    """One mapping.

    Attributes:
        start: its first address.
        end: its end.
        permissions: such as `rw-s`.
        offset: where in its file it starts.
        device: what its file is on, as major:minor in hexadecimal.
        inode: its file's number; 0 without one.
        name: its file's name; empty without one.
        figures: lines such as `Rss`, in bytes.
        flags: of `VmFlags`.
    """

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    name: str
    figures: dict[str, int]
    flags: frozenset[str]

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        return self.end - self.start

    @property
    def is_shared(self) -> bool:
        """Whether what is written reaches the file."""
        return self.permissions[3] == "s"

    @property
    def is_hugetlb(self) -> bool:
        """Whether it is of hugetlbfs."""
        return "ht" in self.flags

    @property
    def resident_bytes(self) -> int:
        """In RAM, by this process's page tables; `Rss` does not count hugetlbfs."""
        hugetlb = self.figures.get("Private_Hugetlb", 0) + self.figures.get("Shared_Hugetlb", 0)
        return self.figures.get("Rss", 0) + hugetlb

    @property
    def swapped_bytes(self) -> int:
        """In swap."""
        return self.figures.get("Swap", 0)


def read_smaps(text: str) -> Iterator[Mapping]:
    """The mappings of such a file, in the order of their addresses."""
    head: re.Match[str] | None = None
    figures: dict[str, int] = {}
    flags: frozenset[str] = frozenset()
    for line in text.split("\n"):  # a name may have what else ends lines
        if match := _HEAD.fullmatch(line):
            if head is not None:
                yield _mapping(head, figures, flags)
            head, figures, flags = match, {}, frozenset()
            continue
        name, _, rest = line.partition(":")
        if name == "VmFlags":
            flags = frozenset(rest.split())
        elif rest.endswith(" kB"):
            figures[name] = int(rest[:-3]) << 10
    if head is not None:
        yield _mapping(head, figures, flags)


def _mapping(head: re.Match[str], figures: dict[str, int], flags: frozenset[str]) -> Mapping:
    start, end, offset = (int(head[index], 16) for index in (1, 2, 4))
    return Mapping(start, end, head[3], offset, head[5], int(head[6]), head[7], figures, flags)
