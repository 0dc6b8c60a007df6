"""Hostile rings against the device, compared with the model in plain Python: memory, ledger, statistics and error."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pagetide.host.memory.ledger import Ledger
from pagetide.memory.region_map import REGION_BYTES
from pagetide.virtio.balloon import Queue
from pagetide.virtio.split_ring import ring
from soak.part import BrokenError, Part, Trial
from soak.ring_mutations import hostile_case
from tests.host.device.hostile_model import PAGE, SIZE, USED, Case, Model, pieces_of, reads_used
from tests.host.device.test_hostile_queues import Hosted, differing, served

CODES = {
    code: name
    for name, code in vars(ring).items()
    if isinstance(code, int) and ring.TABLE_OUTSIDE <= code <= ring.AVAIL_IDX
}
"""What the device half answers to a driver that breaks a rule, by name."""

_DONT_CARE = ((USED, 2), (USED + 4 + 8 * SIZE, 2))
"""Flags and avail_event: a device may ask for kicks as it likes."""


class Rings(Part):
    """Each seed is one ring, its tables and its buffers."""

    name = "rings"
    what = "a ring with changed fields, against the model"

    def __init__(self, *, broken: bool = False) -> None:
        """With a region map that takes the first region for a page longer, if it is to be broken."""
        self._broken = broken

    def paths(self) -> frozenset[str]:
        """Each error of the ring at each queue, and each word of the ledger."""
        errors = {f"{kind.name.lower()}: {code}" for kind in Queue for code in CODES.values()}
        return frozenset(errors | {f"ledger: {word}" for word in Ledger().snapshot()})

    @contextmanager
    def session(self, reached: Counter[str], until_s: float) -> Iterator[Trial]:
        """Trials share nothing."""
        yield lambda seed: self._try(hostile_case(seed), reached)

    def _try(self, case: Case, reached: Counter[str]) -> None:
        model = Model(case)
        hosted = Hosted(model.image)
        if self._broken:
            hosted.memory.region_map.table[0, REGION_BYTES] += PAGE
        try:
            error = served(hosted, case)
            image = hosted.image()
        finally:
            hosted.close()
        reached["elements served"] += hosted.ledger.snapshot()["reports"]
        if error is not None:
            reached[f"{case.kind.name.lower()}: {CODES.get(error, error)}"] += 1
        words = {name: count for name, count in hosted.ledger.snapshot().items() if count}
        reached.update({f"ledger: {name}": 1 for name in words})
        _compare(model, error, image, words)
        knows = error is None and not reads_used(case)
        if knows and hosted.device.statistics != model.answer.statistics:
            raise BrokenError(f"it knows {hosted.device.statistics}, not {model.answer.statistics}")


def _compare(model: Model, error: int | None, image: bytearray, words: dict[str, int]) -> None:
    """Raise BrokenError where the device's answer is not the model's."""
    answer = model.run()
    if error != answer.error:
        raise BrokenError(f"it answers {error}, not {answer.error}")
    counts = {name: count for name, count in words.items() if not name.endswith(("punches", "returned_bytes"))}
    expected = {name: count for name, count in answer.counts.items() if count}
    if counts != expected:
        raise BrokenError(f"it counts {counts}, not {expected}")
    for gpa, length in _DONT_CARE:
        ((place, _),) = pieces_of(gpa, length)
        model.image[place : place + length] = image[place : place + length] = bytes(length)
    if image != model.image:
        raise BrokenError(f"memory differs in pages {differing(image, model.image)}")
