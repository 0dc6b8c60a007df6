"""Configuration space (virtio 1.2, 5.5.4), a target that the host sets, and reports that the host holds back."""

from collections.abc import Callable

from pagetide.conformance.vectors.bench import ALL, DATA, MIB, PAGE, RAM_BYTES, Bench
from pagetide.conformance.vectors.vector import Vector
from pagetide.virtio.balloon import (
    CMD_ID_DONE,
    CMD_ID_STOP,
    CONFIG_ACTUAL,
    CONFIG_FREE_PAGE_HINT_CMD_ID,
    CONFIG_NUM_PAGES,
    CONFIG_POISON_VAL,
    Feature,
    Queue,
)


def _target(bench: Bench) -> str:
    """Set a target twice; is the driver told, and of the right number of pages?"""
    bench.start(Queue.INFLATE)
    seen = []
    for target_bytes in (RAM_BYTES - 64 * MIB, RAM_BYTES):
        bench.transport.take_config_notification()
        bench.device.set_target_bytes(target_bytes)
        told = bench.wait_for(bench.transport.take_config_notification)
        seen.append(f"{bench.transport.read_config(CONFIG_NUM_PAGES)} pages{'' if told else ', not told'}")
    return ", then ".join(seen)


def _no_news(bench: Bench) -> str:
    """A driver that changes `actual` is not told of its own change."""
    bench.start(Queue.INFLATE)
    bench.transport.take_config_notification()
    bench.transport.write_config(CONFIG_ACTUAL, 77)
    told = bench.transport.take_config_notification()
    return f"{bench.transport.read_config(CONFIG_ACTUAL)}, {'told' if told else 'not told'}"


def _write(offset: int, value: int, features: Feature = ALL) -> Callable[[Bench], str]:
    """Write a field, and read it back."""

    def play(bench: Bench) -> str:
        bench.start(Queue.INFLATE, features, *(Feature.PAGE_POISON,) if features & Feature.PAGE_POISON else ())
        before = bench.transport.read_config(offset)
        bench.transport.write_config(offset, value)
        after = bench.transport.read_config(offset)
        return "written" if after == value else "not written" if after == before else f"{after:#x}"

    return play


def _reset_forgets(offset: int) -> Callable[[Bench], str]:
    def play(bench: Bench) -> str:
        bench.start(Queue.INFLATE, ALL | Feature.PAGE_POISON, Feature.PAGE_POISON)
        bench.transport.write_config(offset, 0xAA)
        bench.transport.reset()
        return "forgotten" if bench.transport.read_config(offset) == 0 else "kept"

    return play


def _reset_ends_round(bench: Bench) -> str:
    bench.start(Queue.FREE_PAGE)
    bench.device.begin_hinting()
    begun = bench.wait_for(lambda: bench.transport.read_config(CONFIG_FREE_PAGE_HINT_CMD_ID) > CMD_ID_DONE)
    bench.transport.reset()
    bench.start(Queue.FREE_PAGE)
    ended = bench.transport.read_config(CONFIG_FREE_PAGE_HINT_CMD_ID) == CMD_ID_STOP
    return f"{'begun' if begun else 'not begun'}, {'ended' if ended else 'not ended'}"


def _paused(kind: Queue) -> Callable[[Bench], str]:
    """Report, or inflate, while paused; then go on."""

    def play(bench: Bench) -> str:
        queue = bench.start(kind)
        bench.device.pause(paused=True)
        try:
            bench.may_change(DATA, 2 * PAGE)
            if kind is Queue.REPORTING:
                queue.give([(DATA, PAGE)], writable=True)
                queue.give([(DATA + PAGE, PAGE)], writable=True)
            else:
                queue.give_bytes((DATA // PAGE).to_bytes(4, "little"))
                queue.give_bytes((DATA // PAGE + 1).to_bytes(4, "little"), at=64)
            waited = queue.stays()
            back = not waited and queue.come_back()
            before_bytes = bench.gone_bytes()
        finally:
            bench.device.pause(paused=False)
        back = back or queue.come_back(2)
        return f"{'waits' if waited else 'served'}, {before_bytes} B gone; then {bench.outcome(back=back)}"

    return play


def _inhibited(bench: Bench) -> str:
    queue = bench.start(Queue.REPORTING)
    bench.device.inhibit(inhibited=True)
    try:
        queue.give([(DATA, MIB)], writable=True)
        back = queue.come_back()
    finally:
        bench.device.inhibit(inhibited=False)
    return bench.outcome(back=back)


VECTORS: tuple[Vector, ...] = (
    Vector("configuration", "a target, set and taken back", _target, "16384 pages, then 0 pages"),
    Vector("configuration", "`actual` is the driver's, who is not told of it", _no_news, "77, not told"),
    Vector("configuration", "`num_pages` is not", _write(CONFIG_NUM_PAGES, 55), "not written"),
    Vector("configuration", "nor is the command id", _write(CONFIG_FREE_PAGE_HINT_CMD_ID, 55), "not written"),
    Vector("configuration", "`poison_val` is", _write(CONFIG_POISON_VAL, 0xAA, ALL | Feature.PAGE_POISON), "written"),
    Vector("configuration", "a reset ends a round of hints", _reset_ends_round, "begun, ended"),
    Vector("configuration", "a reset forgets `poison_val`", _reset_forgets(CONFIG_POISON_VAL), "forgotten"),
    Vector(
        "configuration",
        "a reset forgets `actual`",
        _reset_forgets(CONFIG_ACTUAL),
        "forgotten",
        "",
        "kept",
        "QEMU keeps `actual`, which its monitor shows, until the next driver writes it",
    ),
    Vector(
        "pause",
        "reports wait, and none is lost",
        _paused(Queue.REPORTING),
        "waits, 0 B gone; then 8 KiB gone",
        "",
        "served, 8192 B gone; then 8 KiB gone",
        "QEMU cannot pause reporting; a stopped machine's device still serves its queues",
    ),
    Vector(
        "pause",
        "inflating goes on",
        _paused(Queue.INFLATE),
        "served, 8192 B gone; then 8 KiB gone",
    ),
    Vector(
        "pause",
        "inhibited: acknowledged, and nothing is discarded",
        _inhibited,
        "0 B gone",
        "skipped_inhibited_bytes",
    ),
)
