"""`pagetide conformance`: every vector on one device or on both, as a table or as JSON."""

import functools
import json
import logging
import sys
from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.table import Table

from pagetide.lab.conformance.bench import RAM_BYTES
from pagetide.lab.conformance.run import run_vectors
from pagetide.lab.conformance.vector import Result
from pagetide.machine.device_under_test import DeviceUnderTest
from pagetide.machine.devices import OwnDevice, StockQemu, VhostUserDevice
from pagetide.machine.qemu_process import QemuError
from pagetide.machine.qmp import QmpError
from pagetide.machine.qtest import QtestError
from pagetide.virtio.vhost_user_frontend import RefusedError
from pagetide.virtio.vhost_user_messages import RemoteProtocolError
from pagetide.virtio.vhost_user_transport import PeerGoneError
from pagetide.virtio.virtio_pci import PciError

_OPENED: dict[str, Callable[[int], DeviceUnderTest]] = {"pagetide": OwnDevice, "qemu": StockQemu}

_NO_DEVICE = (
    OSError, QemuError, QtestError, QmpError, PciError, PeerGoneError, RefusedError, RemoteProtocolError
)  # fmt: skip


def run_conformance(device: str, *, as_json: bool) -> int:
    """Run the vectors and print what they found; 0 if all passed, 1 otherwise.

    Args:
        device: `pagetide`, `qemu`, or the path of a vhost-user socket that somebody serves.
        as_json: JSON instead of a table.
    """
    logging.getLogger("pagetide").addHandler(logging.NullHandler())  # what our daemon says of bad drivers
    results: list[Result] = []
    try:
        opened = _OPENED.get(device, functools.partial(VhostUserDevice, device))
        with opened(RAM_BYTES) as tested:
            for result in run_vectors(tested, is_qemu=device == "qemu"):
                results.append(result)
                print(f"{'ok' if result.passed else 'FAILED':<7} {result.topic}: {result.name}", file=sys.stderr)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        hint = "" if device in ("pagetide", "qemu") else "nobody serves a vhost-user socket at "
        print(f"pagetide: {hint}{device}: {error}", file=sys.stderr)
        return 1
    except _NO_DEVICE as error:
        print(f"pagetide: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps([result._asdict() for result in results], indent=2))
    else:
        _print_table(device, results)
    return 0 if all(result.passed for result in results) else 1


def _print_table(device: str, results: list[Result]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"A virtio balloon: {device}", title_justify="left")
    for heading in ("about", "vector", "found", "", "note"):
        table.add_column(heading)
    topic = ""
    for result in results:
        about, topic = result.topic if result.topic != topic else "", result.topic
        verdict = "FAILED" if not result.passed else "ok" if result.found is not None else "-"
        note = result.note if result.passed else f"expected: {result.expected}. {result.note}"
        table.add_row(about, result.name, result.found or "", verdict, note)
    Console(highlight=False).print(table)
    passed = sum(result.passed and result.found is not None for result in results)
    untested = sum(result.found is None for result in results)
    failed = len(results) - passed - untested
    print(f"{passed} passed, {failed} failed, {untested} not testable there")
