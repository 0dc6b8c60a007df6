"""Firecracker's API: answers as its public documentation has them; no Firecracker was run, which needs KVM."""

import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pagetide.operate.answer import answer
from pagetide.operate.evidence import Evidence
from pagetide.operate.guest.facts import GuestBalloon
from pagetide.operate.host.firecracker import FirecrackerError, ask_firecracker, firecracker_facts
from pagetide.units import GIB, MIB
from tests.operate.scripted_server import served
from tests.operate.test_balance import make_guest, make_vm

MACHINE = b'{"vcpu_count":2,"mem_size_mib":1024,"smt":false,"track_dirty_pages":false,"huge_pages":"2M"}'
BALLOON = b'{"amount_mib":64,"deflate_on_oom":true,"stats_polling_interval_s":5,"free_page_reporting":true}'
OLD_BALLOON = b'{"amount_mib":64,"deflate_on_oom":true,"stats_polling_interval_s":0}'
STATISTICS = (
    b'{"target_pages":16384,"actual_pages":8192,"target_mib":64,"actual_mib":32,"swap_in":0,"swap_out":0,'
    b'"major_faults":1,"minor_faults":2,"free_memory":1000,"total_memory":3000,"available_memory":2000}'
)


def test_answers_are_read() -> None:
    """In bytes; a balloon of before 1.14 does not report, and without an interval there are no statistics."""
    facts = firecracker_facts(MACHINE, BALLOON, STATISTICS)
    assert (facts.ram_bytes, facts.has_huge_pages, facts.has_balloon) == (GIB, True, True)
    assert (facts.offers_reporting, facts.target_bytes, facts.actual_bytes) == (True, 64 * MIB, 32 * MIB)
    assert (facts.available_bytes, facts.statistics_interval_s) == (2000, 5)
    facts = firecracker_facts(MACHINE, OLD_BALLOON, None)
    assert (facts.offers_reporting, facts.actual_bytes, facts.statistics_interval_s) == (False, None, 0)
    facts = firecracker_facts(MACHINE.replace(b"2M", b"None"), None, None)
    assert (facts.has_huge_pages, facts.has_balloon, facts.offers_reporting, facts.target_bytes) == (
        False, False, None, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"mem_size_mib":-1}', b'{"mem_size_mib":1e40}', b"\xff", b"[" * 9999]
)
def test_what_is_no_answer_is_one_sentence(body: bytes) -> None:
    """Whatever listens there."""
    with pytest.raises(FirecrackerError, match="no Firecracker"):
        firecracker_facts(body, None, None)


def api(answers: dict[str, bytes]) -> Callable[[socket.socket], None]:
    """An API that has these, and refuses everything else as Firecracker does."""

    def serve(client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            method, what, _ = lines.readline().split()
            while lines.readline().strip():
                pass
        assert method == b"GET", "it only looks"
        body = answers.get(what.decode())
        status = b"400 Bad Request" if body is None else b"200 OK"
        body = body or b'{"fault_message":"Invalid request"}'
        client.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    return serve


def test_the_api_is_asked_over_its_socket(tmp_path: Path) -> None:
    """With a balloon and its statistics, without statistics, without a balloon; and something else."""
    whole = {"/machine-config": MACHINE, "/balloon": BALLOON, "/balloon/statistics": STATISTICS}
    for number, left_out in enumerate(((), ("/balloon/statistics",), ("/balloon", "/balloon/statistics"))):
        answers = {what: body for what, body in whole.items() if what not in left_out}
        with served(tmp_path / f"api{number}", api(answers)) as path:
            expected = (answers.get("/balloon"), answers.get("/balloon/statistics"))
            assert ask_firecracker(path) == firecracker_facts(MACHINE, *expected)
    with served(tmp_path / "none", api({})) as path, pytest.raises(FirecrackerError, match="no machine configuration"):
        ask_firecracker(path)
    with (
        served(tmp_path / "other", lambda client: client.sendall(b"220 mail\r\n")) as path,
        pytest.raises(FirecrackerError, match="no API of a Firecracker"),
    ):
        ask_firecracker(path)
    with pytest.raises(FirecrackerError, match="No such file"):
        ask_firecracker(tmp_path / "nowhere")


def test_a_firecracker_whose_balloon_is_silent_is_told_what_to_put() -> None:
    """Offered or not is the API's word; the remedy is a request to it."""
    vm = msgspec.structs.replace(make_vm(GIB - 100 * MIB), vmm="Firecracker", balloons=None)
    guest = make_guest({9: 250}, balloons=(GuestBalloon(has_driver=True, features=0),))
    for balloon, cause in ((OLD_BALLOON, "reporting-not-offered"), (BALLOON, "reporting-not-negotiated")):
        facts = firecracker_facts(MACHINE, balloon, None)
        (finding,) = answer(Evidence(taken="", vm=vm, guest=guest, firecracker=facts)).findings
        assert finding.cause == cause
    none = make_guest({9: 250}, balloons=())
    (finding,) = answer(
        Evidence(taken="", vm=vm, guest=none, firecracker=firecracker_facts(MACHINE, None, None))
    ).findings
    assert finding.cause == "no-balloon-device"
    assert "Firecracker's API knows of none" in finding.evidence
    assert finding.remedies[0].command.startswith("PUT /balloon")
