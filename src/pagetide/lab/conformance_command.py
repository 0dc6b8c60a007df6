"""`pagetide conformance`: every vector on one device or on both, as a table or as JSON."""

import json
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from pagetide.lab.conformance import RAM_BYTES, Result, run_vectors
from pagetide.machine.devices import OwnDevice, StockQemu, VhostUserDevice
from pagetide.machine.qemu_device import QemuError
from pagetide.machine.qtest import QtestError
from pagetide.virtio.vhost_user_frontend import RefusedError
from pagetide.virtio.vhost_user_messages import RemoteProtocolError
from pagetide.virtio.vhost_user_transport import PeerGoneError
from pagetide.virtio.virtio_pci import PciError


def run_conformance(device: str, *, as_json: bool) -> int:
    """Run the vectors and print what they found; 0 if all passed, 1 otherwise.

    Args:
        device: `pagetide`, `qemu`, or the path of a vhost-user socket that somebody serves.
        as_json: JSON instead of a table.
    """
    results: list[Result] = []
    try:
        opened = {"pagetide": OwnDevice, "qemu": StockQemu}.get(device)
        with VhostUserDevice(device, RAM_BYTES) if opened is None else opened(RAM_BYTES) as tested:
            for result in run_vectors(tested, is_qemu=device == "qemu"):
                results.append(result)
                print(f"{'ok' if result.passed else 'FAILED':<7} {result.name}", file=sys.stderr)
    except (OSError, QemuError, QtestError, PciError, PeerGoneError, RefusedError, RemoteProtocolError) as error:
        print(f"pagetide: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps([result._asdict() for result in results], indent=2))
    else:
        _print_table(device, results)
    return 0 if all(result.passed for result in results) else 1


def _print_table(device: str, results: list[Result]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"Free page reporting on {device}", title_justify="left")
    for heading in ("vector", "expected", "found", "", "note"):
        table.add_column(heading)
    for result in results:
        found = "not offered" if result.found is None else result.found
        table.add_row(result.name, result.expected, found, "ok" if result.passed else "FAILED", result.note)
    Console(highlight=False).print(table)
