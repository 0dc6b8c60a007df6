"""All VMs at one time: the daemon's guests, joined with the processes behind them, and others."""

import itertools
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pagetide.operate.host.vmm_facts import BalloonOption, RamMapping, VmmFacts
from pagetide.operate.watch import host_vms
from pagetide.operate.watch.all_vms import STALE_MAX_S, Watching
from pagetide.operate.watch.host_vms import HostVm, HostVms
from tests.operate.scripted_server import served
from tests.operate.watch.listed_guest import listed_guest

MIB = 1 << 20


def facts(pid: int, *, is_ours: bool) -> VmmFacts:
    """A QEMU with 1 GiB."""
    sizes = {"size_bytes": 1024 * MIB, "held_bytes": 100 * MIB, "swapped_bytes": 0, "huge_bytes": 0}
    ram = RamMapping(kind="memfd", is_shared=True, page_bytes=4096, is_locked=False, **sizes)
    balloon = BalloonOption(is_ours=is_ours, offers_reporting=None if is_ours else False)
    return VmmFacts(
        vmm="QEMU", pid=pid, ram=(ram,), ram_is_guessed=False, own_bytes=7 * MIB, own_swapped_bytes=0,
        balloons=(balloon,), passes_devices=False,
    )  # fmt: skip


class Vms:
    """Two VMs: one is the daemon's guest at this socket, the other has QEMU's balloon and the same name."""

    def __init__(self, path: Path) -> None:
        self._vms = [
            HostVm("a", facts(11, is_ours=True), 90 * MIB, 0, frozenset({path})),
            HostVm("vm1", facts(12, is_ours=False), 80 * MIB, MIB, frozenset()),
        ]

    def look(self) -> list[HostVm]:
        return self._vms


def test_a_guest_and_its_process_are_one_vm(tmp_path: Path) -> None:
    """Joined by the socket's path; the other VM is there with what the kernel says, by a name of its own."""
    sock = tmp_path / "vm1.sock"
    statistics = {"memtot": 1000 * MIB, "avail": 600 * MIB, "memfree": 1}
    figures = {"held_bytes": 90 * MIB, "statistics": statistics, "returned_bytes": 3, "socket": str(sock)}
    guest = listed_guest("vm1", account=5, **figures)

    def serve(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(msgspec.json.encode({"guests": [guest], "waiting": [{"name": "vm2", "given_up": 0}]}) + b"\n")

    with served(tmp_path / "control", serve) as control:
        look = Watching(control, Vms(sock), lambda: 7.0).look()
    ours, other = look.vms
    assert (look.t_s, look.waiting, look.trouble) == (7.0, ["vm2"], "")
    assert (ours.name, ours.pid, ours.own_bytes, ours.is_ours) == ("vm1", 11, 7 * MIB, True)
    assert (ours.held_bytes, ours.used_bytes, ours.returned_bytes) == (90 * MIB, 400 * MIB, 3)
    assert (other.name, other.pid, other.held_bytes, other.swapped_bytes) == ("vm1 12", 12, 80 * MIB, MIB)
    assert (other.balloon, other.is_ours, other.returned_bytes) == ("QEMU's, no reports", False, None)


def test_without_a_daemon_the_others_are_seen(tmp_path: Path) -> None:
    """That none answers is said, and is no error."""
    look = Watching(tmp_path / "nobody", Vms(tmp_path)).look()
    assert [seen.name for seen in look.vms] == ["a", "vm1"]
    assert look.trouble.startswith(f"no daemon answers at {tmp_path / 'nobody'}")


def test_guests_of_a_daemon_that_does_not_answer_stay_for_a_while(tmp_path: Path) -> None:
    """As they were told last, which is said of them and of the look; then they are gone."""

    def serve(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(msgspec.json.encode({"guests": [listed_guest("a")], "waiting": []}) + b"\n")

    clock = iter((100.0, 100.5, 100.0 + STALE_MAX_S, 101.0 + STALE_MAX_S))
    watching = Watching(tmp_path / "control", None, lambda: next(clock))
    with served(tmp_path / "control", serve):
        looks = [watching.look()]
    looks += [watching.look() for _ in range(3)]
    assert [bool(look.trouble) for look in looks] == [False, True, True, True]
    assert [[(seen.name, seen.is_stale) for seen in look.vms] for look in looks] == [
        [("a", False)], [("a", True)], [("a", True)], [],
    ]  # fmt: skip
    assert looks[1].vms[0].state == "no answer"


def test_what_a_process_gets_is_seen_without_a_walk_through_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at page tables what is held follows the process's own figures; a VM that has ended is gone."""
    clock = itertools.count()
    vms = HostVms(lambda: next(clock) / 1000)
    memory = "import mmap; a = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)"
    script = f"{memory}; print(flush=True); input(); a.write(b'1' * (24 << 20)); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        monkeypatch.setattr(host_vms, "find_vms", lambda: [process.pid])
        process.stdout.readline()
        (before,) = vms.look()
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        (after,) = vms.look()
        process.stdin.write("\n")
    assert after.facts == before.facts
    assert 64 * MIB <= before.facts.ram_bytes < 80 * MIB
    assert 24 * MIB <= after.held_bytes - before.held_bytes < 28 * MIB
    assert vms.look() == []
