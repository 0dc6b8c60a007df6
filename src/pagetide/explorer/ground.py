"""What the explored source stands on: atomics, locks and guest memory that belong to no processor.

In a world that pauses they are generators that yield a pause first. Memory is sequentially consistent: what a missing
fence would let happen is not explored here (tests/virtio proves the fences).
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

from pagetide.explorer.source import ATOMIC, LOCK, RING, SYSTEM_CALL, Control, ExploredError, Pause
from pagetide.guest.allocator.zone_layout import REQUEST, WAKE, ZONE_LOCK, frame_table_base
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES

VCPUS = 2
"""Of the guest that is explored."""

QUEUE_BYTES = 128
"""Room for a queue; they are right behind the zone."""

PFNS_BYTES = 16
"""Room for the page frame numbers that a balloon tells of, behind the queues."""

_ATOMIC = Pause(ATOMIC)
_RING = Pause(RING)
_CALL = Pause(SYSTEM_CALL)
_CONTENDED = frozenset({REQUEST, WAKE})
_FORMATS = {"u8": "<B", "u16": "<H", "u32": "<I", "i64": "<q"}

Paused = Iterator[Pause]


class Ram:
    """Guest memory: the first word of each of the zone's pages, and the queues.

    Attributes:
        first_words: what each page begins with; 0 in one that was discarded or never touched.
        inflated: of each page whether it is in the balloon, as far as the host was told.
        freed_at: of each page the zone's tick when it was last about to be freed.
        queue: the queues' bytes.
        queue_gpa: where they are.
    """

    def __init__(self, nr_pages: int, queues: int) -> None:
        """Memory for a zone of so many pages and so many queues, all of it zero."""
        self.first_words = [0] * nr_pages
        self.inflated = [False] * nr_pages
        self.freed_at = [0] * nr_pages
        self.queue = bytearray(queues * QUEUE_BYTES + PFNS_BYTES)
        self.queue_gpa = nr_pages * PAGE_SIZE_BYTES

    def loader(self, kind: str) -> Callable[[int], int]:
        """A function that loads such an integer."""
        form = struct.Struct(_FORMATS[kind])

        def load(address: int) -> int:
            if address < self.queue_gpa:
                return self.first_words[address >> PAGE_SHIFT]
            return int(form.unpack_from(self.queue, address - self.queue_gpa)[0])

        return load

    def storer(self, kind: str) -> Callable[[int, int], None]:
        """A function that stores such an integer."""
        form = struct.Struct(_FORMATS[kind])

        def store(address: int, value: int) -> None:
            if address < self.queue_gpa:
                self.first_words[address >> PAGE_SHIFT] = value
            else:
                form.pack_into(self.queue, address - self.queue_gpa, value)

        return store


def _kernel(function: Any) -> Any:
    return function


FRAME_ORDER = 1
"""Of the frames that are taken: as in a real guest, a largest block may be two of them."""

_FRAMES = {"FRAME_ORDER": FRAME_ORDER, "FRAME_PAGES": 1 << FRAME_ORDER, "FRAME_SHIFT": FRAME_ORDER + PAGE_SHIFT}


def _units(order_max: int) -> dict[str, Any]:
    return {"ORDER_MAX": order_max, "ORDERS": order_max + 1, "PAGEBLOCK_ORDER": FRAME_ORDER}


JIT = {
    "*": True,
    "kernel": _kernel,
    "inline_kernel": _kernel,
    "external": lambda *_: None,
    "int32": int,
    "int64": int,
    "void": None,
}
"""Instead of `jit`: kernels stay Python."""


def plain_ground(order_max: int) -> dict[str, dict[str, Any]]:
    """For a world that does not pause: to set a zone up, and to check one at rest."""
    locks = {"*": True, "lock": lambda *_: None, "unlock": lambda *_: None}
    return {
        "jit": JIT,
        "units": _units(order_max),
        "guest.allocator.zone_lock": locks,
        "memory.frame_table": _FRAMES,
        "atomics": {"*": True} | dict.fromkeys(_ATOMICS),
    }


_ATOMICS = (
    *("abort", "pause", "sched_yield", "monotonic_ns", "errno", "fence"),
    *("atomic_load", "atomic_store", "atomic_add", "atomic_exchange", "atomic_compare_exchange"),
    *(f"{what}_{kind}" for what in ("load", "store") for kind in _FORMATS),
    *("load_u16_acquire", "store_u16_release"),
)


def pausing_ground(
    order_max: int, ram: Ram, control: Callable[[], Control], *, finely: bool
) -> dict[str, dict[str, Any]]:
    """For a world that pauses; `finely`, within ring operations too."""

    def lock(words: Any, index: int) -> Paused:
        yield Pause(LOCK, index)
        assert words[index] == 0
        words[index] = 1
        control().held += 1
        control().in_zone |= index == ZONE_LOCK

    def unlock(words: Any, index: int) -> None:
        if words[index] != 1:
            raise ExploredError("a lock is released that nobody holds")
        words[index] = 0
        control().held -= 1
        control().in_zone &= index != ZONE_LOCK

    class NoMemset:
        memset = staticmethod(lambda *_: None)

    return {
        "jit": JIT,
        "units": _units(order_max),
        "guest.allocator.zone_lock": {"*": True, "lock": lock, "unlock": unlock},
        "memory.frame_table": _FRAMES,
        "atomics": _atomics() | _accesses(ram, finely),
        "virtio.split_ring.ring": {"INDIRECT_DESCS_MAX": 4},
        "virtio.split_ring.driver": {"ctypes": NoMemset},
        "host.device.queues.inflate": {"PFNS_MAX": 4},
        "guest.allocator.balloon_pages": {"STEPS_A_HOLD": 1},  # a search meets whatever others did at any of its steps
        "guest.reporting.designs.balloon": {"PFNS_A_BATCH": BALLOON_PAGES_A_BATCH, "OOM_PAGES": BALLOON_PAGES_A_BATCH},
    }


BALLOON_PAGES_A_BATCH = 2
"""Pages that go into a balloon at once, or come out of it, instead of 256."""


class HostKilledError(Exception):
    """The host's process was killed: it does nothing more."""


class TableView:
    """The frame table as the host maps it: a part of the zone's words.

    Attributes:
        go_on: raises HostKilledError when the host does nothing more.
    """

    def __init__(self, words: Any, base: int, go_on: Callable[[], None]) -> None:
        """See the table that begins at this word."""
        self.words, self.base, self.go_on = words, base, go_on

    def __getitem__(self, index: int) -> int:
        return int(self.words[self.base + index])

    def __setitem__(self, index: int, value: int) -> None:
        self.words[self.base + index] = value


def _is_frame(words: Any, index: int) -> bool:
    return isinstance(words, TableView) or index >= frame_table_base(VCPUS)


def _pause(words: Any) -> Paused:
    yield _ATOMIC
    if isinstance(words, TableView):
        words.go_on()


def _atomics() -> dict[str, Any]:
    def load(words: Any, index: int) -> Any:
        if index in _CONTENDED or _is_frame(words, index):
            yield from _pause(words)
        return words[index]

    def store(words: Any, index: int, value: int) -> Paused:
        if index in _CONTENDED or _is_frame(words, index):
            yield from _pause(words)
        words[index] = value

    def exchange(words: Any, index: int, value: int) -> Any:
        yield _ATOMIC
        old, words[index] = words[index], value
        return old

    def compare_exchange(words: Any, index: int, expected: int, value: int) -> Any:
        yield from _pause(words)
        old = words[index]
        if old == expected:
            words[index] = value
        return old

    def add(words: Any, index: int, value: int) -> Any:
        yield _ATOMIC
        old = words[index]
        words[index] = old + value
        return old

    return {
        **dict.fromkeys(_ATOMICS),
        "*": True,
        "atomic_load": load,
        "atomic_store": store,
        "atomic_add": add,
        "atomic_exchange": exchange,
        "atomic_compare_exchange": compare_exchange,
    }


def _accesses(ram: Ram, finely: bool) -> dict[str, Any]:
    load_now, store_now = ram.loader("u16"), ram.storer("u16")

    def load_u16(address: int) -> Any:
        if finely:
            yield _RING
        return load_now(address)

    def store_u16(address: int, value: int) -> Paused:
        if finely:
            yield _RING
        store_now(address, value)

    plain: dict[str, Any] = {f"load_{kind}": ram.loader(kind) for kind in _FORMATS}
    plain |= {f"store_{kind}": ram.storer(kind) for kind in _FORMATS}
    return {
        **plain,
        "fence": lambda: None,
        "load_u16": load_u16,
        "load_u16_acquire": load_u16,
        "store_u16": store_u16,
        "store_u16_release": store_u16,
    }


def system_call(control: Control) -> Paused:
    """Pause before a system call or a kick.

    Raises:
        ExploredError: a lock is held (invariant 4).
    """
    if control.held:
        raise ExploredError("a lock is held across a kick or a system call")
    yield _CALL
