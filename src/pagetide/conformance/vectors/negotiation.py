"""Features, their numbering of queues, device status and reset (virtio 1.2, 2.1, 2.2, 2.4, 3.1.1 and 5.5.2)."""

from collections.abc import Callable

from pagetide.conformance.vectors.bench import ALL, BASE, DATA, MIB, PAGE, Bench, GuestQueue, NotOfferedError
from pagetide.conformance.vectors.vector import Vector
from pagetide.units import format_size
from pagetide.virtio.balloon import STAT, Feature, Queue, Stat, Status, queues

_WRONG_QUEUE_S = 5.0
"""How long to wait for a queue that may not be there under its number."""
_UNKNOWN = 1 << 50
_ALWAYS_THERE = (
    "QEMU has a queue for all that it offers, and numbers them so; a driver must accept STATS_VQ and FREE_PAGE_HINT "
    "to find reporting"
)
_NAMES = {
    Queue.INFLATE: "inflate",
    Queue.DEFLATE: "deflate",
    Queue.STATS: "statistics",
    Queue.FREE_PAGE: "hinting",
    Queue.REPORTING: "reporting",
}


def _offers(bench: Bench) -> str:
    offered = Feature(bench.connect().offered)
    wanted = ALL | Feature.PAGE_POISON | Feature.DEFLATE_ON_OOM
    missing = [str(feature.name) for feature in Feature if feature & wanted & ~offered]
    if missing:
        raise NotOfferedError(f"not offered: {', '.join(missing)}")
    return "all of them"


def _accepting(*, all_offered: bool, besides: int = 0) -> Callable[[Bench], str]:
    def play(bench: Bench) -> str:
        transport = bench.connect()
        features = (transport.offered if all_offered else int(Feature.VERSION_1)) | besides
        return "accepted" if transport.accept(features) else "refused"

    return play


def _tells_host(bench: Bench) -> str:
    transport = bench.connect()
    if not transport.offered & Feature.MUST_TELL_HOST:
        raise NotOfferedError("not offered: MUST_TELL_HOST")
    return "accepted" if transport.accept(int(Feature.VERSION_1 | Feature.MUST_TELL_HOST)) else "refused"


def _without_version_1(bench: Bench) -> str:
    bench.features = Feature(0)
    bench.connect().accept(0)
    return _inflates(bench, bench.queue(Queue.INFLATE))


def _inflates(bench: Bench, queue: GuestQueue) -> str:
    bench.transport.driver_ok()
    bench.may_change(DATA, PAGE)
    queue.give_bytes((DATA // PAGE).to_bytes(4, "little"))
    return bench.outcome(back=queue.come_back())


def _status_reads_back(bench: Bench) -> str:
    bench.negotiate()
    bench.transport.driver_ok()
    up = bench.transport.status
    bench.transport.reset()
    return f"{int(up):#x}, after a reset {int(bench.transport.status):#x}"


def _reset_stops_queues(bench: Bench) -> str:
    queue = bench.start(Queue.REPORTING)
    bench.transport.reset()
    queue.give([(DATA, MIB)], writable=True)
    return bench.outcome(back=not queue.stays())


def _reset_with_a_full_ring(bench: Bench) -> str:
    """Kick and reset in one go, then watch the old ring while a new one elsewhere is used."""
    old = bench.start(Queue.REPORTING)
    for place in range(old.size):
        old.add([(DATA + place * 4 * MIB, 4 * MIB)], writable=True)
    bench.may_change(DATA, old.size * 4 * MIB)
    old.ring.publish()
    bench.transport.kick_and_reset(old.index)
    used, gone_bytes = old.used_bytes(), bench.gone_bytes()
    answered = int.from_bytes(used[2:4], "little") * 4 * MIB
    bench.features = Feature(bench.transport.negotiate(int(ALL)))
    new = bench.queue(Queue.REPORTING, spare=True)
    bench.transport.driver_ok()
    new.give([(DATA - MIB, MIB)], writable=True)
    bench.may_change(DATA - MIB, MIB)
    back = new.come_back()
    whole = gone_bytes == answered
    still = old.used_bytes() == used and bench.gone_bytes() == gone_bytes + MIB
    return ", ".join((
        "what was acknowledged is gone" if whole else f"{format_size(answered)} acknowledged, {gone_bytes} B gone",
        "then silence" if still else "then more",
        "the new ring is served" if back else "the new ring is dead",
    ))  # fmt: skip


def _reset_with_a_buffer_held(bench: Bench) -> str:
    """The device holds the statistics buffer at the reset: an element that is outstanding for certain."""
    old = bench.start(Queue.STATS)
    old.give_bytes(STAT.pack(Stat.MEMFREE, 1))
    if not old.stays():
        return "not held"
    used = old.used_bytes()
    bench.transport.reset()
    bench.features = Feature(bench.transport.negotiate(int(ALL)))
    new = bench.queue(Queue.STATS, spare=True)
    bench.transport.driver_ok()
    new.give_bytes(STAT.pack(Stat.MEMFREE, 2))
    new.give_bytes(STAT.pack(Stat.MEMFREE, 3), at=PAGE)
    back = new.come_back()
    still = old.used_bytes() == used
    return f"{'forgotten' if still else 'given back'}, the new ring is {'served' if back else 'dead'}"


def _numbering(features: Feature) -> Callable[[Bench], str]:
    """Try every queue under its dense number: which of them do what they are for?"""

    def play(bench: Bench) -> str:
        bench.negotiate(features, *(feature for feature in Feature if feature & features))
        numbers = {kind: bench.queue(kind) for kind in queues(bench.features)}
        bench.transport.driver_ok()
        return ", ".join(
            f"{queue.index} {_NAMES[kind]}" for kind, queue in numbers.items() if _serves(bench, kind, queue)
        )

    return play


def _serves(bench: Bench, kind: Queue, queue: GuestQueue) -> bool:
    """Whether a queue does what this kind of queue is for, and no other does."""
    before_bytes = bench.gone_bytes()
    block = DATA + kind * 4 * MIB
    match kind:
        case Queue.INFLATE | Queue.DEFLATE:
            queue.give_bytes((block // PAGE).to_bytes(4, "little"), at=kind * PAGE)
        case Queue.STATS:
            queue.give_bytes(STAT.pack(Stat.MEMFREE, 1), at=kind * PAGE)
        case _:
            queue.give([(block, MIB)], writable=True)
    gone_bytes = {Queue.INFLATE: PAGE, Queue.REPORTING: MIB}.get(kind, 0)
    if gone_bytes:
        bench.may_change(block, gone_bytes)
    if kind is Queue.STATS:
        return queue.stays()
    return queue.come_back(patience_s=_WRONG_QUEUE_S) and bench.gone_bytes() - before_bytes == gone_bytes


def _numbering_vectors() -> list[Vector]:
    vectors = []
    optional = (Feature.STATS_VQ, Feature.FREE_PAGE_HINT, Feature.REPORTING)
    offered = BASE
    for bits in range(8):
        features = Feature.VERSION_1
        for place, feature in enumerate(optional):
            features |= feature if bits >> place & 1 else Feature(0)
        expected = ", ".join(f"{index} {_NAMES[kind]}" for index, kind in enumerate(queues(features)))
        right = [kind for index, kind in enumerate(queues(features)) if queues(offered)[index] is kind]
        on_qemu = ", ".join(f"{index} {_NAMES[kind]}" for index, kind in enumerate(right))
        names = ", ".join(feature.name or "" for feature in optional if feature & features) or "none of these features"
        vectors.append(
            Vector(
                "numbering",
                f"with {names}",
                _numbering(features),
                expected,
                "",
                "" if on_qemu == expected else on_qemu,
                "" if on_qemu == expected else _ALWAYS_THERE,
            )
        )
    return vectors


VECTORS: tuple[Vector, ...] = (
    Vector("negotiation", "every feature of the balloon and of the ring is offered", _offers, "all of them"),
    Vector("negotiation", "all that is offered", _accepting(all_offered=True), "accepted"),
    Vector("negotiation", "VERSION_1 alone", _accepting(all_offered=False), "accepted"),
    Vector(
        "negotiation",
        "a bit that is not offered",
        _accepting(all_offered=False, besides=_UNKNOWN),
        "refused",
        "",
        "accepted",
        "QEMU masks the bit away and leaves FEATURES_OK set; ours refuses the message, as 2.2.2 has it for FEATURES_OK",
    ),
    Vector("negotiation", "MUST_TELL_HOST, which QEMU does not offer", _tells_host, "accepted"),
    Vector("negotiation", "no feature at all, as a legacy driver", _without_version_1, "4 KiB gone"),
    Vector(
        "negotiation",
        "the status reads back",
        _status_reads_back,
        f"{int(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK):#x}, after a reset 0x0",
    ),
    *_numbering_vectors(),
    Vector("reset", "a queue from before the reset is not served", _reset_stops_queues, "not acknowledged, 0 B gone"),
    Vector(
        "reset",
        "with a full ring, just kicked",
        _reset_with_a_full_ring,
        "what was acknowledged is gone, then silence, the new ring is served",
    ),
    Vector(
        "reset",
        "with the statistics buffer held",
        _reset_with_a_buffer_held,
        "forgotten, the new ring is served",
    ),
)
