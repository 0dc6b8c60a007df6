"""VMs whose memory is on hugetlbfs, in pages larger than what the guest reports: of those only whole ones go back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagetide.machine.linux.packages import GuestParts, QemuProgram
from pagetide.operate.balance import BELOW_ORDER
from tests.clinic.patient import FILL, FREE, MIB, qemu_patient
from tests.clinic.ward import assert_first, assert_promise, assert_size, examine, finding_of
from tests.needed import lacking
from tests.real_guests import real_guests

pytestmark = [pytest.mark.slow, pytest.mark.rare, real_guests(2)]

REPORTING = ["-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]
HUGE = "memory-backend-memfd,share=on,hugetlb=on,hugetlbsize="


@contextmanager
def pool(page_mib: int, pages: int) -> Iterator[None]:
    """So many huge pages more on this host, or the test is skipped."""
    path = Path(f"/sys/kernel/mm/hugepages/hugepages-{page_mib << 10}kB/nr_hugepages")
    if not path.exists():
        lacking(f"this host has no huge pages of {page_mib} MiB")
    before = int(path.read_text())
    try:
        path.write_text(str(before + pages))
        if int(path.read_text()) < before + pages:
            lacking(f"this host has no room for {pages} huge pages of {page_mib} MiB")
        yield
    finally:
        path.write_text(str(before))


def test_no_block_is_a_page_of_1_gib(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """All of it stays for good; with pages of 2 MiB, the same load leaves what the guest uses."""
    left_bytes = []
    for size, page_mib in (("1G", 1024), ("2M", 2)):
        with (
            pool(page_mib, 1024 // page_mib),
            qemu_patient(installed, linux, tmp_path, REPORTING, ram_mib=1024, memory=f"{HUGE}{size}") as patient,
        ):
            patient.run(f"{FILL}; {FREE}")
            left_bytes.append(patient.settled_bytes())
            found = examine(patient, str(tmp_path / "qmp"))
            if size == "2M":
                assert found.findings == ()
            else:
                finding = finding_of(found, "pages-larger-than-blocks")
                assert found.findings[0] is finding
    assert_size(finding, left_bytes[0] - left_bytes[1])
    assert_promise(finding, left_bytes[0] - left_bytes[1])


def test_blocks_that_are_parts_of_pages_of_2_mib(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """A lower order does not help; once the guest has made larger blocks of small ones, they go. A tmpfs is there."""
    with pool(2, 256), qemu_patient(installed, linux, tmp_path, REPORTING, memory=f"{HUGE}2M") as patient:
        patient.run("echo 5 >/sys/module/page_reporting/parameters/page_reporting_order")
        patient.settled_bytes()
        small_bytes = examine(patient, str(tmp_path / "qmp")).balance.of(BELOW_ORDER)
        patient.run("for n in $(seq 300); do dd if=/dev/zero of=/mnt/$n bs=1M count=1 2>/dev/null; done")
        full_bytes = patient.held_bytes()
        patient.run("for n in $(seq 300); do [ $((n % 3)) = 0 ] || rm /mnt/$n; done")
        held_bytes = patient.settled_bytes()
        found = examine(patient, str(tmp_path / "qmp"))
        finding = assert_first(found, "pages-larger-than-blocks", 200 * MIB - (full_bytes - held_bytes) + small_bytes)
        assert_size(finding_of(found, "tmpfs"), 100 * MIB)
        patient.run(finding.remedies[0].command)
        assert finding.returns_bytes is None, "nobody knows how far the guest can move what is in between"
        assert finding.size_bytes is not None
        assert held_bytes - patient.settled_bytes() >= finding.size_bytes / 2
