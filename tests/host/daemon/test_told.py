"""What the daemon tells of guests to who watches them: what waits, what went wrong, what they cost, a few at a time."""

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pagetide.host.daemon.control import handle
from pagetide.host.daemon.keeper import Keeper
from pagetide.host.device.figures import ROUND_US, GuestFigures
from pagetide.host.guest.attached import AttachedGuest
from pagetide.virtio.split_ring.driver import AVAIL_ADDRESS
from pagetide.virtio.split_ring.ring import RING_ENTRIES
from pagetide.virtio.vhost_user.messages import Request
from tests.host.guest.served_guest import ServedGuest, wait_readable
from tests.host.guest_ring import PAGE, RING_PAGES, SIZE
from tests.host.server_at_times import ServerAtTimes

HEADER = struct.pack("<III", Request.GET_FEATURES, 1, 0)
"""A whole message (vhost-user, "Header": its request, flags with the version, the payload's size)."""


@pytest.fixture(params=[None, Keeper], ids=["kept nowhere", "kept"])
def times(request: pytest.FixtureRequest) -> Iterator[ServerAtTimes]:
    """A server."""
    times = ServerAtTimes(request.param and request.param())
    yield times
    times.close()


def attach(times: ServerAtTimes, path: Path) -> ServedGuest:
    """A guest at a socket of the server's."""

    def connect() -> ServedGuest:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(path))
        return ServedGuest(sock)

    return times.serving(connect)


def ask(times: ServerAtTimes, **request: Any) -> dict[str, Any]:
    """What the control socket would answer now."""
    answer: dict[str, Any] = json.loads(handle(json.dumps(request).encode(), times.server))
    return answer


def test_guests_and_sockets_are_listed_a_few_at_a_time(times: ServerAtTimes, tmp_path: Path) -> None:
    """Each once, in the order of names, also while one of those that were told already leaves."""
    for name in ("d", "b", "a", "c"):
        times.server.listen(tmp_path / f"{name}.sock")
    with attach(times, tmp_path / "c.sock"):
        guest = attach(times, tmp_path / "b.sock")
        first = ask(times, command="list", most=2)
        assert [each["name"] for each in first["waiting"] + first["guests"]] == ["a", "b"]
        assert first["more_after"] == "b"
        guest.close()
        times.serving(lambda: None)
        second = ask(times, command="list", most=2, after="b")
        assert [each["name"] for each in second["guests"] + second["waiting"]] == ["c", "d"]
        assert second["more_after"] is None
        everyone = ask(times, command="list")
        assert (len(everyone["guests"]), len(everyone["waiting"]), everyone["more_after"]) == (1, 3, None)
        assert "most" in ask(times, command="list", most=0)["error"]
        assert [each["name"] for each in ask(times, command="list", most=4)["guests"]] == ["c"]
        with attach(times, tmp_path / "a.sock"):
            everyone = ask(times, command="list", most=4)
            assert [each["name"] for each in everyone["guests"]] == ["a", "c"], "who has come, and not who has left"
            assert [each["name"] for each in everyone["waiting"]] == ["b", "d"]


def test_what_waits_in_a_queue_is_told(times: ServerAtTimes, tmp_path: Path) -> None:
    """Reports of a paused guest wait, and no more once it goes on; a driver that lies of them claims a full queue."""
    times.server.listen(tmp_path / "a.sock")
    with attach(times, tmp_path / "a.sock") as guest:
        ask(times, command="pause", guest="a")

        def submit() -> None:
            for page in range(3):
                guest.submit([(RING_PAGES + page, 1)])
            guest.channel.call(Request.GET_FEATURES)

        times.serving(submit)
        assert ask(times, command="show", guest="a")["guests"][0]["waiting"] == {"reporting": 3}
        ask(times, command="resume", guest="a")
        times.serving(guest.wait_used)
        (shown,) = ask(times, command="show", guest="a")["guests"]
        assert (shown["waiting"], shown["ledger"]["returned_bytes"]) == ({"reporting": 0}, 3 * PAGE)
        avail = int(guest.ring.driver.state[AVAIL_ADDRESS]) - guest.ring.ram.address
        guest.ring.ram.words.view("u2")[avail // 2 + 1] += 1000
        assert ask(times, command="show", guest="a")["guests"][0]["waiting"] == {"reporting": SIZE}


def test_a_broken_ring_is_counted_and_who_is_given_up_as_well(times: ServerAtTimes, tmp_path: Path) -> None:
    """The first until the account begins anew; the second at the socket, also for the guest that comes next."""
    times.server.listen(tmp_path / "a.sock")
    with attach(times, tmp_path / "a.sock") as guest:
        avail = int(guest.ring.driver.state[AVAIL_ADDRESS]) - guest.ring.ram.address
        guest.ring.add([(RING_PAGES, 1)])
        guest.ring.ram.words.view("u2")[(avail + RING_ENTRIES) // 2] = SIZE
        guest.ring.driver.publish()

        def kick() -> None:
            os.eventfd_write(guest.kick_fd, 1)
            wait_readable(guest.err_fd)

        times.serving(kick)
        (broken,) = ask(times, command="list")["guests"]
        assert broken["errors"] == {"ring": 1, "discard": 0, "malformed": 0}
        assert broken["allowance_spent_s"] > 0
        assert not broken["resting"]

        def break_protocol() -> None:
            os.write(guest.channel.fileno(), b"\xff" * 12)
            wait_readable(guest.channel.fileno())

        times.serving(break_protocol)
    (waiting,) = ask(times, command="list")["waiting"]
    assert waiting["given_up"] == 1
    with attach(times, tmp_path / "a.sock"):
        (again,) = ask(times, command="list")["guests"]
        assert (again["given_up"], again["errors"]["ring"]) == (1, 0)
        assert again["account"] != broken["account"]
    times.serving(lambda: None)
    assert ask(times, command="list")["waiting"][0]["given_up"] == 1, "who goes by itself is not given up"


@pytest.mark.parametrize("asked", [HEADER + HEADER, HEADER[:7]], ids=["replies unread", "half a message"])
def test_who_is_killed_has_left_and_is_not_given_up(times: ServerAtTimes, tmp_path: Path, asked: bytes) -> None:
    """Whatever it was about to send or to read: a VM that was killed lacks no balloon."""
    times.server.listen(tmp_path / "a.sock")
    guest = attach(times, tmp_path / "a.sock")
    os.write(guest.channel.fileno(), asked)
    guest.close()
    times.serving(lambda: None)
    (waiting,) = ask(times, command="list")["waiting"]
    assert waiting["given_up"] == 0


def test_how_many_reports_waited_how_long_is_told(times: ServerAtTimes, tmp_path: Path) -> None:
    """All of them are in the histogram, with the round times beside the counts."""
    times.server.listen(tmp_path / "a.sock")
    with attach(times, tmp_path / "a.sock") as guest:
        for page in range(4):
            times.serving(lambda page=page: guest.report([(RING_PAGES + page, 1)]))  # type: ignore[misc]
        (shown,) = ask(times, command="list")["guests"]
        attached: AttachedGuest = times.server.guests[0]
        assert [bound_us for bound_us, _ in shown["lag_within"]] == list(ROUND_US)
        assert shown["lag_within"][-1][1] == shown["lag"]["count"] == 4
        assert shown["lag"]["sum_us"] == -(-attached.lag.sum_ns // 1000) > 0


def test_figures_are_those_of_a_list(times: ServerAtTimes, tmp_path: Path) -> None:
    """With the words that are asked for, in their order; what reads them in the metrics finds each in its place."""
    times.server.listen(tmp_path / "a.sock")
    times.server.listen(tmp_path / "b.sock")
    with attach(times, tmp_path / "a.sock") as guest:
        times.serving(lambda: guest.report([(RING_PAGES, 1)]))
        words = ["returned_bytes", "reports"]
        answer = ask(times, command="figures", most=1, words=words)
        (told,) = msgspec.convert(answer["figures"], list[GuestFigures])
        (shown,) = ask(times, command="list")["guests"]
        assert answer["more_after"] == "a"
        assert ask(times, command="figures", after="a")["waiting"][0]["name"] == "b"
        same = set(GuestFigures.__struct_fields__) & shown.keys()
        assert {name: getattr(told, name) for name in same} == {name: shown[name] for name in same}
        assert len(same) == len(GuestFigures.__struct_fields__) - 4
        assert told.words == [shown["ledger"][name] for name in words] != [0, 0]
        assert told.waited == (shown["lag"]["count"], shown["lag"]["sum_us"])
        assert told.within == [count for _, count in shown["lag_within"]]
        assert told.wrong == tuple(shown["errors"].values())
    assert "the ledger has no moons" in ask(times, command="figures", words=["moons", "reports"])["error"]
