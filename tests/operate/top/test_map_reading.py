"""How often `pagetide top` asks for pieces of a page map."""

import socket
from pathlib import Path

import msgspec
import pytest

from pagetide.operate.top.reader import FAILED_S, MapReading
from pagetide.operate.watch.guest_map import DAEMON_SHARE, Pace
from tests.operate.scripted_server import served
from tests.operate.watch.seen_vms import seen

PIECE_S = 0.002


def test_each_piece_is_followed_by_a_rest(tmp_path: Path) -> None:
    """Also amid a map, however many pieces that has; and one that cannot be had is not asked for at once again."""
    clock = [100.0]
    answers = [{"page_map": {"first": 0, "blocks": 9, "states": "hhh", "regions": [[0, 9 << 21, 0]]}}, {"error": "no"}]

    def serve(client: socket.socket) -> None:
        client.recv(4096)
        clock[0] += PIECE_S
        client.sendall(msgspec.json.encode(answers.pop(0)) + b"\n")

    pace = Pace(clock[0])
    while (rest_s := pace.rest_s(seen("b"), PIECE_S, clock[0])) == PIECE_S:
        pass  # what may be asked at once was asked for another's
    clock[0] += rest_s
    reading = MapReading(seen("a"), tmp_path / "control", pace, lambda: clock[0])
    with served(tmp_path / "control", serve):
        name, page_map, trouble = reading.go_on()
        assert page_map is not None
        assert (name, page_map.rounds, trouble) == ("a", 0, "")
        assert reading.due_s - clock[0] == pytest.approx(PIECE_S / DAEMON_SHARE, rel=0.01)
        assert reading.go_on() == ("a", None, "no")
    assert reading.due_s - clock[0] == pytest.approx(FAILED_S)
