"""A booted guest on QEMU's own balloon, as `pagetide top` and the page of a daemon that does not serve it show it."""

import itertools
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pagetide.machine.linux.packages import GuestParts, QemuProgram
from pagetide.operate.web.guard import OWN_HEADER
from tests.clinic.patient import FILL, FREE, MIB, Patient, monitor, qemu_patient
from tests.host.daemon.process import Daemon
from tests.operate.metrics.test_scrapes import free_port
from tests.real_guests import real_guests

pytestmark = [pytest.mark.slow, real_guests(2)]

DEVICE = ["-name", "watched", "-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]
NEAR_BYTES = 8 * MIB
TARGET_BYTES = 300 * MIB
_LOOKS_MAX = 100


def asked(folder: Path, command: str, **arguments: object) -> dict[str, Any]:
    """What QEMU's monitor says."""
    with closing(monitor(folder)) as qmp:
        answer = qmp.ask(command, **arguments)
    assert isinstance(answer, dict)
    return answer


def row_of(text: bytes | str) -> dict[str, Any]:
    """The VM's, in a look as JSON."""
    (row,) = [vm for vm in json.loads(text)["vms"] if vm["name"] == "watched"]
    assert isinstance(row, dict)
    return row


def top(folder: Path, *words: str) -> str:
    """What `pagetide top` prints."""
    command = [sys.executable, "-m", "pagetide.cli", "top", *words, "--control", str(folder / "nobody")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Page:
    """The page of a daemon without guests."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, place: str) -> bytes:
        """What is answered there."""
        request = urllib.request.Request(self._url + place, headers={OWN_HEADER: "test"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            data: bytes = answer.read()
            return data

    def row_once(self, patient: Patient) -> dict[str, Any]:
        """The first row of the VM in which what is held is what it is now; the look that is told first is older."""
        held_bytes = patient.held_bytes()
        row = next((row for row in self.looks() if abs(row["held_bytes"] - held_bytes) <= NEAR_BYTES), None)
        assert row is not None, f"in {_LOOKS_MAX} looks there was never {held_bytes}"
        return row

    def looks(self) -> Iterator[dict[str, Any]]:
        """The VM's row, look after look, of those in which it is there; no more looks than it should take."""
        with urllib.request.urlopen(self._url + "api/looks", timeout=60) as answer:
            for line in itertools.islice(answer, 2 * _LOOKS_MAX):  # each look, or that there is none, is two lines
                if b'"watched"' in line:
                    yield row_of(line.removeprefix(b"data: "))


@contextmanager
def page(folder: Path) -> Iterator[Page]:
    """One of them."""
    address = f"127.0.0.1:{free_port()}"
    daemon = Daemon(folder, "--web", address)
    try:
        assert daemon.process.stderr is not None
        while "the page at" not in (line := daemon.process.stderr.readline()):
            assert line, "it ended"
        yield Page(f"http://{address}/")
    finally:
        daemon.close()


def assert_row(row: dict[str, Any], patient: Patient, folder: Path) -> None:
    """It has the process, the memory that QEMU says there is, and what the memory file holds."""
    assert (row["pid"], row["vmm"], row["balloon"], row["account"]) == (patient.pid, "QEMU", "QEMU's", None)
    assert row["ram_bytes"] == asked(folder, "query-memory-size-summary")["base-memory"] == patient.ram_bytes
    assert abs(row["held_bytes"] - patient.held_bytes()) <= NEAR_BYTES, (row["held_bytes"], patient.held_bytes())
    assert row["reported_bytes"] is None
    assert row["returned_bytes"] is None


def test_top_and_the_page_show_it_as_qemu_does(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """At rest, while 250 MiB are used, once they came back, and with a balloon that was inflated by the monitor."""
    with qemu_patient(installed, linux, tmp_path, DEVICE) as patient, page(tmp_path) as shown:
        patient.settled_bytes()
        rest = row_of(top(tmp_path, "--json"))
        assert_row(rest, patient, tmp_path)
        patient.run(FILL)
        full = row_of(top(tmp_path, "--json"))
        assert_row(full, patient, tmp_path)
        assert full["held_bytes"] - rest["held_bytes"] > 200 * MIB
        assert_row(shown.row_once(patient), patient, tmp_path)
        patient.run(FREE)
        patient.settled_bytes()
        assert_row(row_of(top(tmp_path, "--json")), patient, tmp_path)
        asked(tmp_path, "balloon", value=TARGET_BYTES)
        patient.wait_until(lambda: asked(tmp_path, "query-balloon")["actual"] == TARGET_BYTES)
        patient.settled_bytes()
        small = row_of(top(tmp_path, "--json"))
        assert_row(small, patient, tmp_path)
        assert small["held_bytes"] <= asked(tmp_path, "query-balloon")["actual"]
        assert_row(shown.row_once(patient), patient, tmp_path)
        assert re.search(r"^watched .*QEMU's", top(tmp_path, "--once"), re.MULTILINE)


def test_the_page_has_its_map_its_curve_and_why(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """As `top` reads them, and nothing that only our daemon counts."""
    with qemu_patient(installed, linux, tmp_path, DEVICE) as patient, page(tmp_path) as shown:
        patient.settled_bytes()  # what has just booted still gives back
        held = [row["held_bytes"] for row in itertools.islice(shown.looks(), 3)]
        assert held, "it is in none of the looks"
        curves = json.loads(shown.get("api/curves?guest=watched&span_s=600"))
        assert any(abs(each - held[-1]) < NEAR_BYTES for each in curves["held_bytes"])
        assert set(curves["returned_bytes"]) == set(curves["target_bytes"]) == {None}
        told: list[Any] = [None]

        def has_map() -> bool:
            told[0] = json.loads(shown.get("api/map?guest=watched"))
            return told[0] is not None

        patient.wait_until(has_map)
        letters = "".join(letter * count for letter, count in told[0]["states"])
        assert len(letters) == patient.ram_bytes // (2 * MIB)
        held_blocks = len(letters.replace("n", ""))
        assert 0 < held_blocks < len(letters)
        assert held_blocks * 2 * MIB >= held[-1] - NEAR_BYTES
        assert b"QEMU" in shown.get("api/why?guest=watched")
