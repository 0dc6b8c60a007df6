"""How much memory a guest is to make do with, and how many pages its balloon is to hold for that."""

from collections.abc import Mapping
from typing import NamedTuple

from pagetide.host.device.config import NUM_PAGES_MAX, DeviceConfig
from pagetide.host.memory.guest_memory import DeviceMemory
from pagetide.host.memory.ram_size import ram_bytes, shared_files
from pagetide.memory.region_map import REGION_BYTES
from pagetide.units import PAGE_SIZE_BYTES

_SLACK_PAGES = 256  # statistics and `actual` are not told at the same moment


class Sizes(NamedTuple):
    """How much memory.

    Attributes:
        ram_bytes: that the guest has, as `Target.ram_bytes`.
        shared_bytes: that it has shared.
        held_bytes: what the host holds of that, in RAM and in swap, by `st_blocks`, which costs nothing. On hugetlbfs
            those are pages of its pool. Of a file that is shared in part, what is held of the rest may be among it, up
            to the part's size.
    """

    ram_bytes: int
    shared_bytes: int
    held_bytes: int


class Target:
    """What is wanted of one guest.

    More than the guest has empties the balloon. What it shares can be a little less than what it was started with:
    User-Mode Linux keeps its own kernel's pages out of it. No more than 2^32 - 1 pages can be asked for, nor more than
    the guest's own total. The target holds: when statistics tell of more or less memory, it is asked for anew.
    """

    def __init__(self, memory: DeviceMemory, config: DeviceConfig) -> None:
        """Want nothing yet."""
        self._memory, self._config = memory, config
        self._own_bytes: int | None = None
        self._bytes: int | None = None

    @property
    def ram_bytes(self) -> int:
        """Memory that the guest has, as well as it can be told (ram_size.py); 0 before it has shared any."""
        return ram_bytes(shared_files(self._memory.region_map.table), self._own_bytes)

    @property
    def sizes(self) -> Sizes:
        """All of them, of one look."""
        files = shared_files(self._memory.region_map.table)
        shared_bytes = held_bytes = 0
        for shared, populated in files:
            shared_bytes += shared
            held_bytes += min(shared, populated)
        return Sizes(ram_bytes(files, self._own_bytes), shared_bytes, held_bytes)

    @property
    def shared_bytes(self) -> int:
        """All memory that the guest has shared, which may be more than it has."""
        return int(self._memory.region_map.table[:, REGION_BYTES].sum())

    def set_bytes(self, target_bytes: int | None) -> None:
        """Want this, or nothing (None); the driver is to be told of a changed configuration.

        Raises:
            ValueError: the guest has shared no memory yet, or the target is negative.
        """
        if self.shared_bytes == 0:
            raise ValueError("the guest has shared no memory yet")
        if target_bytes is not None and target_bytes < 0:
            raise ValueError(f"a guest cannot keep {target_bytes} bytes")
        self._bytes = target_bytes
        self._config.set_num_pages(0 if target_bytes is None else self._pages_for(target_bytes))

    def learn(self, statistics: Mapping[str, int], *, deflates_on_oom: bool) -> bool:
        """Learn the guest's own total; whether the driver is to be told of a changed configuration."""
        total_bytes = statistics.get("memtot", 0)
        # Linux takes a page in the balloon out of its total, unless it would give it back rather than run out of
        # memory (drivers/virtio/virtio_balloon.c, fill_balloon, 6.12).
        in_balloon_bytes = 0 if deflates_on_oom else self._config.fields.actual * PAGE_SIZE_BYTES
        self._own_bytes = total_bytes + in_balloon_bytes if total_bytes else None
        if self._bytes is None or self.shared_bytes == 0:
            return False
        num_pages = self._pages_for(self._bytes)
        changed = abs(num_pages - self._config.fields.num_pages) >= _SLACK_PAGES
        if changed:
            self._config.set_num_pages(num_pages)
        return changed

    def forget(self) -> None:
        """The guest is another one: its own total is not known. What is wanted stays."""
        self._own_bytes = None

    def _pages_for(self, target_bytes: int) -> int:
        most_bytes = self.ram_bytes if self._own_bytes is None else self._own_bytes
        return min(max(0, min(self.ram_bytes - target_bytes, most_bytes)) // PAGE_SIZE_BYTES, NUM_PAGES_MAX)
