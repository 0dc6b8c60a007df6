"""Devices that lack a protocol feature, or take smaller or fewer queues: nothing fails that cannot be tested.

Our back-end with the feature switched off, which refuses then what belongs to it. How many vectors cannot be tested is
part of the expectation, so that a suite that tests nothing any more is noticed.
"""

from collections.abc import Callable

import pytest

from pagetide.conformance.devices.catalogue import OwnDevice
from pagetide.conformance.run import VECTORS, run_vector
from pagetide.conformance.vectors.bench import RAM_BYTES, Bench
from pagetide.conformance.vectors.vector import Result
from pagetide.host.device.balloon import BalloonDevice
from pagetide.virtio.vhost_user.messages import ProtocolFeature
from pagetide.virtio.vhost_user.rules import PROTOCOL_FEATURES

Patch = Callable[[pytest.MonkeyPatch], None]


def _without(*features: ProtocolFeature) -> Patch:
    """A back-end that offers all but these."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        left = PROTOCOL_FEATURES
        for feature in features:
            left &= ~feature
        monkeypatch.setattr("pagetide.virtio.vhost_user.backend.PROTOCOL_FEATURES", left)

    return patch


def _with_rings_of(size_max: int) -> Patch:
    """A device that refuses larger queues."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        start_queue = BalloonDevice.start_queue

        def refuse(self: BalloonDevice, index: int, place, base, features, inflight=None) -> None:  # type: ignore[no-untyped-def]
            if place.size > size_max:
                raise ValueError(f"no queue of {place.size}")
            start_queue(self, index, place, base, features, inflight)

        monkeypatch.setattr(BalloonDevice, "start_queue", refuse)

    return patch


def _with_queues(count: int, *features: ProtocolFeature) -> Patch:
    """A device with fewer queues than its features need, and without these protocol features."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        _without(*features)(monkeypatch)
        monkeypatch.setattr("pagetide.host.guest.session.QUEUES_MAX", count)

    return patch


def _silent_without_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it use the descriptor for errors, which is its choice."""
    _without(ProtocolFeature.STATUS)(monkeypatch)
    monkeypatch.setattr("pagetide.virtio.vhost_user.vrings.Vrings.err_fd", lambda *_: -1)
    wait_for = Bench.wait_for

    def impatient(
        bench: Bench, condition: Callable[[], bool], patience_s: float = 3.0, *arm: Callable[[], bool]
    ) -> bool:
        return wait_for(bench, condition, min(patience_s, 3.0), *arm)

    monkeypatch.setattr(Bench, "wait_for", impatient)


P = ProtocolFeature
LACKS: dict[str, tuple[Patch, int]] = {
    "STATUS": (_without(P.STATUS), 1),
    "STATUS and RESET_DEVICE": (_without(P.STATUS, P.RESET_DEVICE), 7),
    "STATUS and REPLY_ACK": (_without(P.STATUS, P.REPLY_ACK), 1),
    "STATUS, and tells no errors": (_silent_without_status, 12),
    "CONFIG": (_without(P.CONFIG), 13),
    "BACKEND_REQ": (_without(P.BACKEND_REQ), 3),
    "REPLY_ACK": (_without(P.REPLY_ACK), 0),
    "MQ, RESET_DEVICE, CONFIGURE_MEM_SLOTS and INFLIGHT_SHMFD": (
        _without(P.MQ, P.RESET_DEVICE, P.CONFIGURE_MEM_SLOTS, P.INFLIGHT_SHMFD),
        0,
    ),
    "all of them": (_without(*P), 17),
    "rings of more than 64": (_with_rings_of(64), 2),
    "rings of more than 16": (_with_rings_of(16), 97),
    "a queue": (_with_queues(4), 55),
    "a queue, and MQ": (_with_queues(4, P.MQ, P.INFLIGHT_SHMFD), 55),
}
"""What a device lacks, and how many vectors cannot be tested then."""

_LONG = "70 000 elements"


@pytest.mark.parametrize("name", LACKS)
def test_what_cannot_be_tested_does_not_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every vector passes or is not testable, with its reason; and no more than these are not."""
    patch, untestable = LACKS[name]
    patch(monkeypatch)
    for module in ("bench", "rings"):
        monkeypatch.setattr(f"pagetide.conformance.vectors.{module}.SILENCE_S", 0.03)
    with OwnDevice(RAM_BYTES) as device:
        bench = Bench(device)
        results: list[Result] = [run_vector(vector, bench) for vector in VECTORS if _LONG not in vector.name]
    assert [f"{r.topic}: {r.name}: {r.found}, {r.note}" for r in results if not r.passed] == []
    missing = [f"{r.topic}: {r.name}: {r.note}" for r in results if r.found is None]
    assert len(missing) == untestable, missing
