"""`pagetide conformance`: every vector on one device or on both, as a table or as JSON."""

import functools
import json
import logging
import sys
from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.table import Table

from pagetide.conformance.devices.catalogue import OwnDevice, StockQemu, VhostUserDevice
from pagetide.conformance.devices.device_under_test import DeviceUnderTest
from pagetide.conformance.run import NoDeviceError, run_vectors
from pagetide.conformance.vectors.bench import RAM_BYTES
from pagetide.conformance.vectors.vector import Result
from pagetide.machine.qemu.qmp import QmpError
from pagetide.machine.qemu.qtest import QtestError

_OPENED: dict[str, Callable[[int], DeviceUnderTest]] = {"pagetide": OwnDevice, "qemu": StockQemu}


def run_conformance(device: str, *, as_json: bool) -> int:
    """Run the vectors and print what they found; 0 if all passed, 1 otherwise.

    A device that goes away and does not come back ends the run; what was found before is printed.

    Args:
        device: `pagetide`, `qemu`, or the path of a vhost-user socket that somebody serves.
        as_json: JSON instead of a table.
    """
    logging.getLogger("pagetide").addHandler(logging.NullHandler())  # what our daemon says of bad drivers
    results: list[Result] = []
    problem = ""
    try:
        opened = _OPENED.get(device, functools.partial(VhostUserDevice, device))
        with opened(RAM_BYTES) as tested:
            for result in run_vectors(tested, is_qemu=device == "qemu"):
                results.append(result)
                print(f"{'ok' if result.passed else 'FAILED':<7} {result.topic}: {result.name}", file=sys.stderr)
    except (NoDeviceError, OSError, QmpError, QtestError) as error:
        where = "" if device in _OPENED else f"no device answers at {device!r}: "
        problem = f"{where}{error}"
    if problem and not results:
        print(f"pagetide: {problem}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps([result._asdict() for result in results], indent=2))
    else:
        _print_table(device, results)
    if problem:
        last = results[-1]
        print(f"pagetide: the run ended after {last.topic}: {last.name}; {problem}", file=sys.stderr)
    return 0 if not problem and all(result.passed for result in results) else 1


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
