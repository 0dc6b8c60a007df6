"""The statistics queue (virtio 1.2, 5.5.6.3) and free page hinting (5.5.6.5)."""

from collections.abc import Callable

from pagetide.conformance.vectors.bench import DATA, MIB, PAGE, Bench, GuestQueue
from pagetide.conformance.vectors.vector import Vector
from pagetide.virtio.balloon import CMD_ID_DONE, CONFIG_FREE_PAGE_HINT_CMD_ID, STAT, Queue, Stat


def _told(value: int) -> bytes:
    return STAT.pack(Stat.MEMFREE, value) + STAT.pack(Stat.MEMTOT, value + 1)


def _first_is_held(bench: Bench) -> str:
    queue = bench.start(Queue.STATS)
    queue.give_bytes(_told(1))
    return "held" if queue.stays() else "given back"


def _ask(bench: Bench, queue: GuestQueue, data: bytes) -> str | None:
    """Have the device ask, and answer with these bytes; why not, or None."""
    bench.device.ask_for_statistics()
    if not queue.come_back():
        return "not asked"
    queue.give_bytes(data)
    return None


def _polled(data: bytes, wanted: dict[str, int]) -> Callable[[Bench], str]:
    """Answer one request with these bytes; does the device know these figures then?"""

    def play(bench: Bench) -> str:
        queue = bench.start(Queue.STATS)
        queue.give_bytes(_told(1))
        problem = _ask(bench, queue, data)
        if problem is not None:
            return problem
        bench.wait_for(lambda: bench.device.statistics() == wanted)
        told = bench.device.statistics()
        return ", ".join(f"{name} {value}" for name, value in sorted(told.items())) or "nothing told"

    return play


def _two_buffers(bench: Bench) -> str:
    queue = bench.start(Queue.STATS)
    queue.give_bytes(_told(1))
    queue.give_bytes(_told(2), at=PAGE)
    if not queue.come_back():
        return "none given back"
    return "one held" if queue.stays() else "both given back"


def _hint(queue: GuestQueue, cmd_id: int | None) -> bool:
    """Announce a command id, or hint a page block; whether it comes back."""
    if cmd_id is not None:
        queue.give_bytes(cmd_id.to_bytes(4, "little"))
    else:
        queue.give([(DATA, MIB)], writable=True)
    return queue.come_back()


def _no_round(bench: Bench) -> str:
    queue = bench.start(Queue.FREE_PAGE)
    cmd_id = bench.transport.read_config(CONFIG_FREE_PAGE_HINT_CMD_ID)
    back = _hint(queue, 0x8000_0000) and _hint(queue, None) and _hint(queue, 0)
    return f"command id {cmd_id}, {bench.outcome(back=back)}"


def _round(bench: Bench) -> str:
    """One round: the id, two hints, stop, done."""
    queue = bench.start(Queue.FREE_PAGE)
    bench.transport.take_config_notification()
    bench.device.begin_hinting()
    told = bench.wait_for(bench.transport.take_config_notification)
    cmd_id = bench.transport.read_config(CONFIG_FREE_PAGE_HINT_CMD_ID)
    back = _hint(queue, cmd_id) and _hint(queue, None) and _hint(queue, None)
    back = back and bench.transport.read_config(CONFIG_FREE_PAGE_HINT_CMD_ID) == cmd_id and _hint(queue, 0)
    done = bench.wait_for(lambda: bench.transport.read_config(CONFIG_FREE_PAGE_HINT_CMD_ID) == CMD_ID_DONE)
    return ", ".join(
        ("told" if told else "not told", "begun" if cmd_id > 1 else "not begun", "done" if done else "not done")
    ) + f", {bench.outcome(back=back)}"  # fmt: skip


def _odd_command(bench: Bench) -> str:
    queue = bench.start(Queue.FREE_PAGE)
    queue.give_bytes(b"\1\2")
    return bench.outcome(back=queue.come_back())


VECTORS: tuple[Vector, ...] = (
    Vector("statistics", "the first buffer is kept", _first_is_held, "held", "statistics"),
    Vector(
        "statistics",
        "polled: the buffer comes back, and new figures are known",
        _polled(_told(1 << 40), {"memfree": 1 << 40, "memtot": (1 << 40) + 1}),
        f"memfree {1 << 40}, memtot {(1 << 40) + 1}",
    ),
    Vector(
        "statistics",
        "tags that nobody knows are left out",
        _polled(STAT.pack(0x7777, 7) + _told(5) + STAT.pack(0xFFFF, 7), {"memfree": 5, "memtot": 6}),
        "memfree 5, memtot 6",
    ),
    Vector(
        "statistics",
        "a torn last entry is left out",
        _polled(_told(5) + STAT.pack(Stat.SWAP_IN, 9)[:7], {"memfree": 5, "memtot": 6}),
        "memfree 5, memtot 6",
    ),
    Vector(
        "statistics",
        "a tag told twice: the last one counts",
        _polled(_told(5) + _told(8), {"memfree": 8, "memtot": 9}),
        "memfree 8, memtot 9",
    ),
    Vector("statistics", "two buffers: one is given back", _two_buffers, "one held"),
    Vector("hinting", "outside of a round hints are acknowledged", _no_round, "command id 0, 0 B gone", "hints_stale"),
    Vector("hinting", "a round, from its id to done", _round, "told, begun, done, 0 B gone", "hints"),
    Vector(
        "hinting",
        "a command id of two bytes",
        _odd_command,
        "0 B gone",
        "",
        "needs reset",
        "QEMU gives the device up; ours takes what is no command id for nothing",
    ),
)
