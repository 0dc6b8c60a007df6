"""The balance: every byte in one class, whatever the guest and the kernel say."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pagetide.operate.answer import answer
from pagetide.operate.balance import (
    BALLOON,
    BELOW_ORDER,
    HUGE_FREE,
    KERNEL,
    NOT_EXPLAINED,
    OUT,
    PCP,
    REPORTABLE,
    balance,
)
from pagetide.operate.evidence import DaemonFacts, Evidence
from pagetide.operate.guest.facts import GuestBalloon, GuestFacts, GuestZone, HugePool
from pagetide.operate.guest.linux_reporting import drain_s
from pagetide.operate.host.monitor_facts import MonitorFacts, VirtioMem
from pagetide.operate.host.vmm_facts import BalloonOption, RamMapping, VmmFacts
from pagetide.units import GIB, MIB

REPORTS = GuestBalloon(has_driver=True, features=1 << 5)


def make_vm(held_bytes: int, ram_bytes: int = GIB, own_bytes: int = 10 * MIB) -> VmmFacts:
    """A QEMU with a balloon of its own that offers reporting."""
    ram = RamMapping(
        kind="memfd", is_shared=True, size_bytes=ram_bytes, held_bytes=held_bytes, swapped_bytes=0, huge_bytes=0,
        page_bytes=4096, is_locked=False,
    )  # fmt: skip
    return VmmFacts(
        vmm="QEMU", pid=1, ram=(ram,), ram_is_guessed=False, own_bytes=own_bytes, own_swapped_bytes=0,
        balloons=(BalloonOption(is_ours=False, offers_reporting=True),), passes_devices=False,
    )  # fmt: skip


def make_guest(
    free: dict[int, int],
    *,
    meminfo: dict[str, int] | None = None,
    pcp_bytes: int = 0,
    balloons: tuple[GuestBalloon, ...] = (REPORTS,),
    pool_pages: int = 0,
    inflated_pages: int = 0,
) -> GuestFacts:
    """A guest of 1 GiB with one zone that has so many free blocks by order."""
    blocks = tuple(free.get(order, 0) for order in range(11))
    free_bytes = sum(count << order for order, count in enumerate(blocks)) * 4096
    zone = GuestZone(
        node=0, name="Normal", free_bytes=free_bytes, low_bytes=4 * MIB, pcp_bytes=pcp_bytes, blocks=blocks
    )
    return GuestFacts(
        release="6.1.0", page_bytes=4096, parameters=(),
        meminfo={"MemTotal": GIB, "MemFree": free_bytes} | (meminfo or {}),
        vmstat={"balloon_inflate": inflated_pages}, zones=(zone,),
        pools=(HugePool(page_bytes=2 * MIB, pages=pool_pages, free_pages=pool_pages),),
        reporting_order=9, pageblock_order=9, balloons=balloons, percpu_pagelist_high_fraction=0, unread=(),
    )  # fmt: skip


def make_evidence(held_bytes: int, guest: GuestFacts | None) -> Evidence:
    """Of such a VM."""
    return Evidence(taken="2026-11-29T12:00:00+00:00", vm=make_vm(held_bytes), guest=guest)


def test_free_memory_that_is_held_is_told_from_what_is_not() -> None:
    """Of 800 MiB free, 300 are held: lists and small blocks first, and the rest could be reported."""
    guest = make_guest({9: 380, 8: 20, 0: 5120}, pcp_bytes=10 * MIB)
    used_bytes = GIB - guest.memory("MemFree") - 10 * MIB
    found = balance(make_evidence(used_bytes + 300 * MIB, guest))
    assert found.of(KERNEL) == used_bytes
    assert found.of(PCP) == 10 * MIB
    assert found.of(BELOW_ORDER) == 40 * MIB
    assert found.below_order_bytes[8] == found.below_order_bytes[0] == 20 * MIB
    assert found.of(REPORTABLE) == 250 * MIB
    assert found.of(NOT_EXPLAINED) == 0


def test_a_pool_goes_before_what_could_be_reported_only_where_something_reports() -> None:
    """With reporting, free blocks go and a pool stays; without, nobody can tell, and both get their share."""
    for balloons, pool_bytes in (((REPORTS,), 100 * MIB), ((), 20 * MIB)):
        guest = make_guest({9: 200}, balloons=balloons, pool_pages=50)
        used_bytes = GIB - 500 * MIB
        found = balance(make_evidence(used_bytes + 100 * MIB, guest))
        assert found.of(HUGE_FREE) == pool_bytes
        assert found.of(REPORTABLE) == 100 * MIB - pool_bytes


def test_a_balloon_that_is_held_all_the_same_is_seen() -> None:
    """What is held beyond what the guest has without its balloon lies in the balloon."""
    guest = make_guest({9: 100}, inflated_pages=25600)
    assert balance(make_evidence(GIB - 100 * MIB, guest)).of(BALLOON) == 0
    assert balance(make_evidence(GIB - 30 * MIB, guest)).of(BALLOON) == 70 * MIB


def test_a_report_that_waits_is_found_by_what_meminfo_does_not_name() -> None:
    """Of the guest's memory 128 MiB are nowhere; where reports are answered, they are the kernel's."""
    guest = make_guest({9: 100}, meminfo={"SUnreclaim": GIB - 200 * MIB - 129 * MIB})
    evidence = make_evidence(GIB, guest)
    paused = DaemonFacts(
        state="serving", is_paused=True, is_inhibited=False, features=(), target_bytes=GIB, balloon_bytes=0,
        reported_bytes=0, discarded_bytes=0, verified_bytes=0,
    )  # fmt: skip
    waiting = balance(msgspec.structs.replace(evidence, daemon=paused))
    assert (waiting.of(OUT), waiting.of(KERNEL)) == (128 * MIB, MIB)
    assert (balance(evidence).of(OUT), balance(evidence).of(KERNEL)) == (0, 129 * MIB)
    for balloons, inflated_pages, meminfo, out_mib in (
        ((GuestBalloon(has_driver=False, features=1 << 5),), 0, {}, 0),
        ((GuestBalloon(has_driver=True, features=0),), 0, {}, 0),
        ((GuestBalloon(has_driver=True, features=1 << 5 | 1 << 2),), 100 << 8, {}, 28),
        ((REPORTS,), 0, {"Zswap": 100 * MIB}, 28),
    ):
        other = make_guest({9: 100}, meminfo=guest.meminfo | meminfo, balloons=balloons, inflated_pages=inflated_pages)
        told = balance(msgspec.structs.replace(evidence, guest=other, daemon=paused))
        assert told.of(OUT) == out_mib * MIB, (balloons, meminfo)


def test_what_is_not_plugged_in_is_not_the_kernels() -> None:
    """Of 1 GiB that a VMM maps the guest has half, and all of that is free and held."""
    guest = make_guest({9: 250}, meminfo={"MemTotal": 512 * MIB})
    evidence = make_evidence(500 * MIB, guest)
    assert balance(evidence).of(REPORTABLE) == 0
    device = VirtioMem(size_bytes=0, requested_bytes=0, max_bytes=512 * MIB)
    monitor = MonitorFacts(
        version="11.1.3", has_balloon=True, offers_reporting=True, ram_bytes=GIB, actual_bytes=None,
        virtio_mem=(device,),
    )  # fmt: skip
    assert balance(msgspec.structs.replace(evidence, monitor=monitor)).of(REPORTABLE) == 488 * MIB
    guest = msgspec.structs.replace(guest, offline_bytes=512 * MIB)
    assert balance(msgspec.structs.replace(evidence, guest=guest)).of(REPORTABLE) == 488 * MIB


def test_without_a_guests_text_nothing_is_explained() -> None:
    """The guest's memory is one class then, and there are no findings made up."""
    found = answer(make_evidence(600 * MIB, None))
    assert found.balance.of(NOT_EXPLAINED) == 600 * MIB
    assert found.findings == ()


def test_the_pace_of_linux() -> None:
    """3.1 GiB in blocks of order 10: two reports of 32 blocks a pass, a pass in 2 s."""
    assert drain_s(make_guest({10: 794}), 9, 1.0) == 26.0
    assert drain_s(make_guest({10: 794}), 9, 0.5) == 14.0
    assert drain_s(make_guest({9: 1}), 9, 1.0) == 0.0, "a zone with so little free reports nothing"


_SIZES = st.integers(0, 1 << 45)
_GUESTS = st.builds(
    make_guest,
    st.dictionaries(st.integers(0, 10), st.integers(0, 1 << 30)),
    meminfo=st.dictionaries(
        st.sampled_from(["AnonPages", "Cached", "Shmem", "Active(file)", "Dirty", "SReclaimable", "Mapped"]), _SIZES
    ),
    pcp_bytes=_SIZES,
    balloons=st.sampled_from([(), (REPORTS,), (GuestBalloon(has_driver=False, features=0),)]),
    pool_pages=st.integers(0, 1 << 20),
    inflated_pages=st.integers(0, 1 << 30),
)


@given(_GUESTS, st.integers(0, GIB))
def test_every_byte_is_in_one_class(guest: GuestFacts, held_bytes: int) -> None:
    """Whatever a guest says, classes are none below nothing and add up to the kernel's figure; no finding is larger."""
    found = answer(make_evidence(held_bytes, guest))
    assert sum(found.balance.classes.values()) == found.balance.held_bytes == held_bytes + 10 * MIB
    assert min(found.balance.classes.values()) >= 0
    assert sum(found.balance.below_order_bytes.values()) in {0, found.balance.of(BELOW_ORDER)}
    for finding in found.findings:
        assert finding.cause == "balloon-inflated" or (finding.size_bytes or 0) <= held_bytes
        assert (finding.returns_bytes or 0) <= held_bytes
    assert [*found.findings] == sorted(found.findings, key=lambda each: -(each.size_bytes or 0))
    assert msgspec.json.decode(msgspec.json.encode(make_evidence(held_bytes, guest)), type=Evidence).guest == guest


def causes_of(vm: VmmFacts, balloons: tuple[GuestBalloon, ...] = (REPORTS,), **daemon: bool) -> list[str]:
    """The causes that are named where 500 MiB are free in large blocks and held."""
    told = DaemonFacts(
        state="serving", is_paused=daemon.get("is_paused", False), is_inhibited=daemon.get("is_inhibited", False),
        features=(), target_bytes=GIB, balloon_bytes=0, reported_bytes=0, discarded_bytes=0, verified_bytes=0,
    )  # fmt: skip
    evidence = Evidence(taken="", vm=vm, guest=make_guest({9: 250}, balloons=balloons), daemon=told if daemon else None)
    return [finding.cause for finding in answer(evidence).findings]


def test_the_reason_is_that_which_no_other_remedy_gets_past() -> None:
    """Of all that is wrong with a balloon, what comes first in the way: the host, the daemon, the device."""
    vm = make_vm(GIB)
    silent = GuestBalloon(has_driver=True, features=0)
    (ram,) = vm.ram
    replace = msgspec.structs.replace
    locked = replace(vm, ram=(replace(ram, is_locked=True, is_shared=False),))
    not_offered = replace(vm, balloons=(BalloonOption(is_ours=False, offers_reporting=False),))
    private = replace(
        vm, ram=(replace(ram, is_shared=False),), balloons=(BalloonOption(is_ours=True, offers_reporting=None),)
    )
    assert causes_of(vm) == ["coming"]
    assert causes_of(vm, (silent,)) == ["reporting-not-negotiated"]
    assert causes_of(not_offered, (silent,)) == ["reporting-not-offered"]
    assert causes_of(vm, (GuestBalloon(has_driver=False, features=0),)) == ["driver-missing"]
    assert causes_of(vm, ()) == ["no-balloon-device"]
    assert causes_of(private) == ["private-mapping"]
    assert causes_of(vm, is_paused=True) == ["reporting-paused"]
    assert causes_of(vm, is_inhibited=True) == ["reporting-inhibited"]
    assert causes_of(locked, ()) == ["memory-locked"]
    assert causes_of(replace(locked, passes_devices=True)) == ["device-passed-through"]
