"""Causes that no VM here can have, or not for certain: each by the evidence that makes it, and none without."""

from pathlib import Path

import msgspec
import pytest

from pagetide.operate.answer import Answer, answer
from pagetide.operate.evidence import DaemonFacts, Evidence
from pagetide.operate.guest.facts import GuestBalloon, GuestFacts
from pagetide.operate.host.cgroup import CgroupFacts, read_group
from pagetide.operate.host.monitor_facts import MonitorFacts, VirtioMem
from pagetide.operate.host.vmm_facts import RamMapping
from pagetide.units import GIB, MIB
from tests.operate.test_balance import REPORTS, make_guest, make_vm

replace = msgspec.structs.replace


def daemon_that(**figures: int) -> DaemonFacts:
    """One that serves the guest, and has these figures."""
    zero = dict.fromkeys(("reported_bytes", "discarded_bytes", "verified_bytes", "balloon_bytes"), 0)
    return DaemonFacts(
        state="serving", is_paused=False, is_inhibited=False, features=(), target_bytes=GIB, **(zero | figures)
    )


def monitor_that(**figures: object) -> MonitorFacts:
    """A monitor of a QEMU with a balloon."""
    known = {"version": "11.1.3", "has_balloon": True, "offers_reporting": True, "ram_bytes": GIB, "actual_bytes": GIB}
    return MonitorFacts(**(known | figures))  # type: ignore[arg-type]


def answered(guest: GuestFacts | None = None, *, held_bytes: int = 600 * MIB, **changes: object) -> Answer:
    """Of a VM of which the host holds so much, with what is changed of its evidence, or of its memory."""
    vm = make_vm(held_bytes)
    of_ram = {name: changes.pop(name) for name in tuple(changes) if name in RamMapping.__struct_fields__}
    vm = replace(vm, ram=(replace(vm.ram[0], **of_ram),))
    return answer(Evidence(taken="", vm=vm, guest=guest, **changes))  # type: ignore[arg-type]


def causes(found: Answer) -> dict[str, int | None]:
    """Each cause with its size."""
    return {each.cause: each.size_bytes for each in found.findings}


def test_a_file_behind_a_private_mapping_is_found() -> None:
    """Its pages are held beside the copies; a shared one has no others."""
    found = answered(is_shared=False, file_bytes=200 * MIB)
    assert causes(found) == {"private-mapping-of-a-file": 200 * MIB}
    assert causes(answered(is_shared=False, file_bytes=MIB)) == {}


def test_what_was_there_after_its_discard_is_found() -> None:
    """By the daemon's own look; what was not looked at counts for nothing."""
    daemon = daemon_that(discarded_bytes=GIB, checked_bytes=500 * MIB, verified_bytes=400 * MIB)
    found = answered(daemon=daemon, others=2)
    assert causes(found) == {"discards-without-effect": 100 * MIB}
    assert any("2 other processes map the same file" in each for each in found.findings[0].evidence)
    assert found.notes == ("2 other processes map the guest's memory, too.",)
    assert causes(answered(daemon=replace(daemon, verified_bytes=500 * MIB))) == {}


def test_memory_that_is_taken_again_is_churn() -> None:
    """Where half of what was returned or more was touched again, and that is much."""
    assert causes(answered(daemon=daemon_that(returned_bytes=400 * MIB, refaulted_bytes=300 * MIB))) == {"churn": None}
    assert causes(answered(daemon=daemon_that(returned_bytes=GIB, refaulted_bytes=300 * MIB))) == {}
    assert causes(answered(daemon=daemon_that(returned_bytes=20 * MIB, refaulted_bytes=20 * MIB))) == {}


def test_a_vmm_that_takes_much_itself_is_found() -> None:
    """From 256 MiB on."""
    for own_bytes, expected in ((255 * MIB, {}), (300 * MIB, {"vmm-own": 300 * MIB})):
        evidence = Evidence(taken="", vm=make_vm(100 * MIB, own_bytes=own_bytes))
        assert causes(answer(evidence)) == expected


@pytest.mark.parametrize(
    ("status", "takes_snapshot", "cause"),
    [
        ("postcopy-active", False, "reporting-inhibited-by-migration"),
        ("active", True, "reporting-inhibited-by-migration"),
        ("active", False, "read-by-migration"),
        ("cancelling", False, "read-by-migration"),
        ("setup", False, "coming"),
        ("wait-unplug", False, "coming"),
        ("failed", False, "coming"),
        ("cancelled", False, "coming"),
        (None, True, "coming"),
    ],
)
def test_what_a_migration_does_to_shared_memory(status: str | None, takes_snapshot: bool, cause: str) -> None:
    """While pages are still to come, or to be saved, nothing is discarded; and what it has read is held."""
    monitor = monitor_that(migration=status, takes_snapshot=takes_snapshot)
    assert causes(answered(make_guest({9: 250}), held_bytes=GIB, monitor=monitor)) == {cause: 500 * MIB}
    assert causes(answered(monitor=monitor)) == ({} if cause == "coming" else {cause: None})


def test_a_migration_that_has_ended_is_no_reason_for_ever() -> None:
    """What was freed since is coming, and how much that is nobody knows; pages that are too large come first."""
    monitor = monitor_that(migration="completed", takes_snapshot=True)
    read, coming = answered(make_guest({9: 250}), held_bytes=GIB, monitor=monitor).findings
    assert (read.cause, read.size_bytes) == ("read-by-migration", 500 * MIB)
    assert (coming.cause, coming.size_bytes, coming.returns_bytes) == ("coming", None, None)
    assert coming.coming_s == answered(make_guest({9: 250}), held_bytes=GIB).findings[0].coming_s
    assert causes(answered(monitor=monitor)) == {"read-by-migration": None}
    huge = answered(make_guest({9: 250}), held_bytes=GIB, monitor=monitor, kind="hugetlbfs", page_bytes=GIB)
    assert list(causes(huge)) == ["pages-larger-than-blocks"]


@pytest.mark.parametrize(
    ("state", "command"),
    [
        ("paused", "cont"),
        ("prelaunch", "cont"),
        ("io-error", "cont"),
        ("suspended", "system_wakeup"),
        ("shutdown", "system_reset"),
        ("internal-error", "system_reset"),
        ("postmigrate", "quit"),
        ("inmigrate", None),
        ("finish-migrate", None),
        ("save-vm", None),
        ("restore-vm", None),
        ("a state to come", None),
    ],
)
def test_a_vm_that_does_not_run_reports_nothing(state: str, command: str | None) -> None:
    """What could be reported is not coming; how it goes on is by its state, and from some it does by itself."""
    found = answered(make_guest({9: 250}), held_bytes=GIB, monitor=monitor_that(run_state=state))
    assert causes(found) == {"vm-stopped": 500 * MIB}
    assert [each.command for each in found.findings[0].remedies] == ([] if command is None else [command])
    assert found.findings[0].returns_bytes == (None if command is None else 500 * MIB)


@pytest.mark.parametrize("state", ["running", None])
def test_a_vm_that_runs_is_not_stopped(state: str | None) -> None:
    """Nor is one of which nobody was asked."""
    found = answered(make_guest({9: 250}), held_bytes=GIB, monitor=monitor_that(run_state=state))
    assert causes(found) == {"coming": 500 * MIB}


def test_nobody_is_told_to_end_what_a_postcopy_still_needs() -> None:
    """Where the VM arrives it is the migration, whatever its state; where it left, there is nothing to do but wait."""
    for state, cause in (("paused", "reporting-inhibited-by-migration"), ("postmigrate", "vm-stopped")):
        monitor = monitor_that(run_state=state, migration="postcopy-paused")
        (finding,) = answered(make_guest({9: 250}), held_bytes=GIB, monitor=monitor).findings
        assert finding.cause == cause
    assert finding.remedies == ()
    assert "still on their way there" in finding.sentence


def test_what_is_held_and_what_is_out_are_told_apart() -> None:
    """In the evidence of a guest that waits: of 200 MiB that are free no more are held, and 128 MiB are out."""
    guest = make_guest({9: 100}, meminfo={"SUnreclaim": GIB - 200 * MIB - 129 * MIB})
    (finding,) = answered(guest, held_bytes=GIB, daemon=replace(daemon_that(), is_paused=True)).findings[:1]
    assert (finding.cause, finding.size_bytes) == ("reporting-paused", 328 * MIB)
    assert any(each.endswith("; 200 MiB of these are held") for each in finding.evidence)
    assert any(each.startswith("up to 128 MiB more are out") for each in finding.evidence)


def test_what_a_migration_reads_of_private_memory_costs_nothing() -> None:
    """It reads the kernel's page of zeros."""
    found = answered(make_guest({9: 250}), held_bytes=GIB, monitor=monitor_that(migration="active"), is_shared=False)
    assert causes(found) == {"coming": 500 * MIB}


def test_a_device_that_keeps_the_guests_pattern_discards_nothing() -> None:
    """Where the guest fills free pages, and has told the device so; a bit or a word alone does nothing."""
    told = GuestBalloon(has_driver=True, features=1 << 5 | 1 << 4)
    for balloons, parameters, expected in (
        ((told,), ("page_poison=1",), "reports-keep-a-pattern"),
        ((told,), ("init_on_free=1",), "coming"),
        ((REPORTS,), ("page_poison=1",), "coming"),
    ):
        guest = replace(make_guest({9: 250}, balloons=balloons), parameters=parameters)
        assert causes(answered(guest, held_bytes=GIB)) == {expected: 500 * MIB}


def test_virtio_mem_that_is_not_unplugged_is_found() -> None:
    """By what is plugged beyond what is wanted."""
    device = VirtioMem(size_bytes=512 * MIB, requested_bytes=128 * MIB, max_bytes=GIB)
    assert causes(answered(monitor=monitor_that(virtio_mem=(device,)))) == {"virtio-mem-not-unplugged": 384 * MIB}
    device = replace(device, requested_bytes=512 * MIB)
    assert causes(answered(monitor=monitor_that(virtio_mem=(device,)))) == {}


def test_memory_that_is_not_onlined_is_found() -> None:
    """By the states of the guest's memory blocks; how much of it is held nobody knows."""
    guest = replace(make_guest({9: 100}), offline_bytes=256 * MIB)
    assert "memory-not-onlined" in causes(answered(guest, held_bytes=GIB - 200 * MIB))
    assert "memory-not-onlined" not in causes(answered(replace(guest, offline_bytes=0), held_bytes=GIB - 200 * MIB))


def test_huge_pages_in_part_unmapped_are_found() -> None:
    """By what is listed beyond what is mapped, and no more than the kernel counts, where it counts."""
    meminfo = {"Active(anon)": 470 * MIB, "AnonPages": 300 * MIB, "Shmem": 20 * MIB}
    guest = make_guest({9: 100}, meminfo=meminfo)
    for counted_bytes, size_bytes in ((None, 150 * MIB), (300 * MIB, 150 * MIB), (100 * MIB, 100 * MIB)):
        found = answered(replace(guest, partial_bytes=counted_bytes), held_bytes=GIB - 200 * MIB)
        assert causes(found) == {"deferred-split": size_bytes}
    assert causes(answered(replace(guest, partial_bytes=0), held_bytes=GIB - 200 * MIB)) == {}


def test_memory_in_use_is_said_to_be() -> None:
    """Where processes have three quarters of what is held, and not where they have little of it."""
    guest = make_guest({9: 100}, meminfo={"AnonPages": 700 * MIB})
    assert causes(answered(guest, held_bytes=GIB - 200 * MIB)) == {"in-use": 700 * MIB}
    guest = make_guest({9: 100}, meminfo={"AnonPages": 300 * MIB})
    assert causes(answered(guest, held_bytes=GIB - 200 * MIB)) == {}


def test_no_block_is_a_whole_page_of_1_gib() -> None:
    """Then nothing can be given back; pages of 2 MiB can."""
    guest = make_guest({9: 250})
    gigantic = answered(guest, held_bytes=GIB, kind="hugetlbfs", page_bytes=GIB)
    assert list(causes(gigantic)) == ["pages-larger-than-blocks"]
    assert list(causes(answered(guest, held_bytes=GIB, kind="hugetlbfs", page_bytes=2 * MIB))) == ["coming"]


def test_a_part_of_a_page_of_2_mib_is_not_given_back() -> None:
    """A guest that reports smaller blocks than the host's pages on hugetlbfs: a lower order helps it nothing."""
    guest = replace(make_guest({6: 1600, 9: 50}), reporting_order=5)
    whole = answered(guest, held_bytes=GIB, kind="hugetlbfs", page_bytes=2 * MIB)
    assert causes(whole) == {"pages-larger-than-blocks": 400 * MIB, "coming": 100 * MIB}
    assert causes(answered(guest, held_bytes=GIB)) == {"coming": 500 * MIB}


def test_what_the_hosts_huge_pages_hold_is_no_fault_of_the_guests() -> None:
    """As far as the memory is in huge pages, and in blocks smaller than they are; a balloon's pages come after."""
    guest = replace(make_guest({6: 1600, 9: 50}), reporting_order=5)
    assert causes(answered(guest, held_bytes=GIB, huge_bytes=GIB)) == {
        "host-huge-pages": 400 * MIB,
        "coming": 100 * MIB,
    }
    inflated = make_guest({9: 50}, inflated_pages=25600)
    found = causes(answered(inflated, held_bytes=GIB, huge_bytes=60 * MIB))
    assert (found["host-huge-pages"], found["balloon-without-effect"]) == (60 * MIB, 40 * MIB)


def test_who_is_charged_is_noted() -> None:
    """The group's charge and limit, and what of the guest's memory others are charged with."""
    group = CgroupFacts(charged_bytes=300 * MIB, limit_bytes=GIB, swapped_bytes=0, shared_bytes=200 * MIB)
    assert answered(cgroup=group).notes == (
        "Its control group is charged with 300 MiB, of a limit of 1 GiB.",
        "At least 400 MiB of the guest's memory are charged to other groups, whose processes touched it.",
    )
    (note,) = answered(cgroup=replace(group, limit_bytes=None, shared_bytes=600 * MIB)).notes
    assert note.endswith("without a limit.")


def test_a_group_is_read_by_its_files(tmp_path: Path) -> None:
    """Version 2's; the root's, which has no such files, is none."""
    assert read_group(tmp_path) is None
    files = {"current": "4096\n", "max": "max\n", "stat": "anon 1\nfile 9\nshmem 8192\n", "swap.current": "12288\n"}
    for name, text in files.items():
        (tmp_path / f"memory.{name}").write_text(text)
    told = read_group(tmp_path)
    assert told == CgroupFacts(charged_bytes=4096, limit_bytes=None, swapped_bytes=12288, shared_bytes=8192)
    (tmp_path / "memory.max").write_text("1048576\n")
    (tmp_path / "memory.swap.current").unlink()
    told = read_group(tmp_path)
    assert told == CgroupFacts(charged_bytes=4096, limit_bytes=MIB, swapped_bytes=None, shared_bytes=8192)
