"""All vectors, and how they run on a device."""

from collections.abc import Iterator

from pagetide.conformance.devices.device_under_test import DeviceUnderTest, NotTestableError
from pagetide.conformance.vectors import config as vectors_config
from pagetide.conformance.vectors import inflate as vectors_inflate
from pagetide.conformance.vectors import negotiation as vectors_negotiation
from pagetide.conformance.vectors import reporting as vectors_reporting
from pagetide.conformance.vectors import rings as vectors_rings
from pagetide.conformance.vectors import statistics as vectors_statistics
from pagetide.conformance.vectors.bench import NEEDS_RESET, NOTHING_DONE, REFUSALS, Bench, NotOfferedError
from pagetide.conformance.vectors.vector import Result, Vector
from pagetide.machine.qemu.qmp import QmpError
from pagetide.machine.qemu.qtest import QtestError
from pagetide.virtio.pci import PciError
from pagetide.virtio.split_ring.ring import RingError
from pagetide.virtio.vhost_user.messages import LocalProtocolError

VECTORS: tuple[Vector, ...] = (
    *vectors_negotiation.VECTORS,
    *vectors_rings.VECTORS,
    *vectors_reporting.VECTORS,
    *vectors_inflate.VECTORS,
    *vectors_statistics.VECTORS,
    *vectors_config.VECTORS,
)
"""Every vector, in the order in which they run."""


_GONE = (*REFUSALS, PciError, QmpError, QtestError)


class NoDeviceError(Exception):
    """There is no device, or none any more; the message says how that was seen."""


def run_vectors(device: DeviceUnderTest, *, is_qemu: bool = False) -> Iterator[Result]:
    """Run every vector that is for this device, each after a reset; those for ours alone need its ledger.

    Raises:
        NoDeviceError: as `run_vector`.
    """
    bench = Bench(device)
    is_ours = device.account() is not None
    for vector in VECTORS:
        if is_ours or not vector.ours_only:
            yield run_vector(vector, bench, is_qemu=is_qemu)


def run_vector(vector: Vector, bench: Bench, *, is_qemu: bool = False) -> Result:
    """Run one vector.

    Raises:
        NoDeviceError: nobody was there when the vector began. A device that goes away later fails the vector.
    """
    expected, note = (vector.qemu, vector.why) if is_qemu and vector.qemu else (vector.expected, "")
    bench.begin()
    before = dict(bench.device.account() or {})
    try:
        found = vector.play(bench)
    except (LocalProtocolError, NotOfferedError, NotTestableError) as error:
        return Result(vector.topic, vector.name, expected, None, True, str(error))
    except RingError as error:
        return Result(vector.topic, vector.name, expected, "a broken ring", False, str(error))
    except _GONE as error:
        if not bench.is_connected:
            raise NoDeviceError(str(error)) from error
        return Result(vector.topic, vector.name, expected, "the device goes away", False, str(error))
    after = bench.device.account()
    if found == NOTHING_DONE and expected == NEEDS_RESET and not bench.device.tells_broken:
        why = "it leaves the ring alone, and has no device status to say so (protocol feature STATUS)"
        return Result(vector.topic, vector.name, expected, None, True, why)
    problem = "" if bench.is_intact() else "memory that was not given away was changed"
    if after is not None and vector.counted and after[vector.counted] <= before[vector.counted]:
        problem = f"the ledger does not count {vector.counted}"
    return Result(vector.topic, vector.name, expected, found, found == expected and not problem, problem or note)
