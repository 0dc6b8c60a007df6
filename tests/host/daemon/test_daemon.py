"""`pagetide serve` as a real process with real guests, and `pagetide ctl` against it."""

import json
import logging
import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.commands.daemon import serve as serve_command
from pagetide.commands.daemon.event_log import LineFormatter
from pagetide.host.guest.wishes import KEPT_SUFFIX
from pagetide.operate.host.control import ask
from pagetide.units import format_size
from pagetide.virtio.balloon import CONFIG_BYTES, Config
from pagetide.virtio.vhost_user.messages import Request
from tests.host.daemon.process import Daemon, show
from tests.host.guest.served_guest import TIMEOUT_S, wait_readable
from tests.host.guest_ring import PAGE, RING_PAGES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_guests_are_served_until_a_signal(daemon: Daemon, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Each guest's reports reach its own memory; a signal ends the daemon with 0, and its sockets are gone."""
    with daemon.guest("one") as one, daemon.guest("two") as two:
        for page, guest in ((RING_PAGES, one), (RING_PAGES + 1, two)):
            guest.report([(page, 1)])
            assert guest.ring.resident_pages() == set(range(guest.ring.pages)) - {page}
        assert daemon.ctl("list", "--json") == 0
        listed = json.loads(capsys.readouterr().out)
        assert [(guest["name"], guest["ledger"]["verified_bytes"]) for guest in listed] == [
            ("one", PAGE),
            ("two", PAGE),
        ]
        assert {stat.S_IMODE(path.stat().st_mode) for path in daemon.folder.iterdir()} == {0o600}
        status, log = daemon.stop(number)
        assert status == 0
        assert log.count('event="attached"') == 2
        for name in ("one", "two"):
            account = f"reports=1 blocks=1 reported_bytes={PAGE} discarded_bytes={PAGE}"
            assert f'guest="{name}" event="account" {account}' in log
    assert list(daemon.folder.iterdir()) == []


def test_what_is_held_of_a_guest_is_shown(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """In RAM and in swap, to `show` and its JSON; `list` has the sum, and does not tell them apart."""
    with daemon.guest("one") as guest:
        guest.report([(512, 256)])
        held = show(daemon, "one", capsys)["held"]
        assert isinstance(held, dict)
        assert (held["counting"], held["why"]) == (False, None)
        # Some may be in swap if this machine swaps, so the sum is what must be right.
        assert held["resident_bytes"] + held["swapped_bytes"] == (guest.ring.pages - 256) * PAGE
        assert daemon.ctl("show", "one") == 0
        assert "\nheld resident_bytes: " in (text := capsys.readouterr().out)
        assert "\nheld swapped_bytes: " in text
        assert daemon.ctl("list", "--json") == 0
        (listed,) = [each for each in json.loads(capsys.readouterr().out) if each["attached"]]
        assert (listed["held"], listed["held_bytes"]) == (None, (guest.ring.pages - 256) * PAGE)
        assert daemon.ctl("list") == 0
        heading, row, _ = capsys.readouterr().out.splitlines()
        column = heading.index("held")
        assert row[column:].startswith(format_size(listed["held_bytes"]))


def test_what_came_back_is_not_what_was_never_there(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """A page that is reported twice is verified gone twice, and returned once; `list` shows what was returned."""
    with daemon.guest("one") as guest:
        for _ in range(2):
            guest.report([(RING_PAGES, 1)])
        ledger = show(daemon, "one", capsys)["ledger"]
        assert isinstance(ledger, dict)
        assert (ledger["verified_bytes"], ledger["returned_bytes"]) == (2 * PAGE, PAGE)
        assert daemon.ctl("list") == 0
        heading, row, _ = capsys.readouterr().out.splitlines()
        assert row[heading.index("returned") :].startswith("4 KiB ")
        assert row[heading.index("reported") :].startswith("8 KiB ")


def test_a_changed_target_reaches_the_driver(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """The guest is told of the change on its channel, and reads the pages wanted; without a channel ctl says so."""
    ours, theirs = socket.socketpair()
    with ours, daemon.guest("one") as guest:
        assert daemon.ctl("set", "one", "target=3MiB") == 0
        assert "sees it when it looks" in capsys.readouterr().err
        guest.channel.call(Request.SET_BACKEND_REQ_FD, b"", (theirs.fileno(),))
        theirs.close()
        assert daemon.ctl("set", "one", "target=1MiB") == 0
        wait_readable(ours.fileno())
        assert Config.decode(guest.channel.get_config(0, CONFIG_BYTES)).num_pages == guest.ring.pages - 256
        shown = show(daemon, "one", capsys)
        assert (shown["target_bytes"], shown["ram_bytes"]) == (1 << 20, guest.ring.pages * PAGE)
        assert daemon.ctl("set", "one", "target=none") == 0
        assert show(daemon, "one", capsys)["target_bytes"] == guest.ring.pages * PAGE
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bare:
        bare.connect(str(daemon.folder / "two.sock"))
        assert daemon.ctl("set", "two", "target=1MiB") == 0
        assert show(daemon, "two", capsys)["target_bytes"] == 0
    with daemon.guest("two") as guest:
        assert Config.decode(guest.channel.get_config(0, CONFIG_BYTES)).num_pages == guest.ring.pages - 256


def test_pausing_and_resuming_loses_nothing(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Reports of a paused guest wait and are all dealt with once it is resumed; the other guest goes on meanwhile."""
    with daemon.guest("one") as one, daemon.guest("two") as two:
        assert daemon.ctl("pause", "one") == 0
        for n in range(5):
            one.submit([(RING_PAGES + n, 1)])
        two.report([(RING_PAGES, 1)])
        shown = show(daemon, "one", capsys)
        assert shown["paused"] is True
        assert one.ring.driver.take_used() == []
        assert daemon.ctl("resume", "one") == 0
        done = 0
        while done < 5:
            done += len(one.wait_used())
        assert one.ring.resident_pages() == set(range(one.ring.pages)) - set(range(RING_PAGES, RING_PAGES + 5))


def test_an_inhibited_guest_is_acknowledged_and_left_alone(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """While inhibited, reports come back and the memory stays; after that it is discarded again."""
    with daemon.guest("one") as guest:
        assert daemon.ctl("inhibit", "one") == 0
        guest.report([(RING_PAGES, 1)])
        assert len(guest.ring.resident_pages()) == guest.ring.pages
        assert daemon.ctl("uninhibit", "one") == 0
        guest.report([(RING_PAGES, 1)])
        assert len(guest.ring.resident_pages()) == guest.ring.pages - 1
        ledger = show(daemon, "one", capsys)["ledger"]
        assert isinstance(ledger, dict)
        assert (ledger["skipped_inhibited_bytes"], ledger["discarded_bytes"]) == (PAGE, PAGE)


def test_a_guest_is_inhibited_before_it_is_attached(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wanted can be said while nobody is attached; the guest then finds it so from its first report on."""
    assert daemon.ctl("inhibit", "one") == 0
    assert "nobody is attached at" in capsys.readouterr().err
    assert daemon.ctl("set", "two", "target=1MiB") == 0
    capsys.readouterr()
    assert daemon.ctl("list", "--json") == 0
    one, two = json.loads(capsys.readouterr().out)
    wanted = {"target_bytes": None, "paused": False, "inhibited": True}
    assert one == {"name": "one", **wanted, "given_up": 0, "attached": False}
    assert (two["name"], two["target_bytes"], two["attached"]) == ("two", 1 << 20, False)
    assert daemon.ctl("show", "one") == 0
    assert "no guest inhibited" in capsys.readouterr().out
    assert daemon.ctl("hint", "one") == 1
    assert "nobody is attached as 'one'" in capsys.readouterr().err
    with daemon.guest("one") as guest:
        guest.report([(RING_PAGES, 1)])
        assert len(guest.ring.resident_pages()) == guest.ring.pages
        shown = show(daemon, "one", capsys)
        assert (shown["inhibited"], shown["attached"]) == (True, True)
    with daemon.guest("two"):
        assert show(daemon, "two", capsys)["target_bytes"] == 1 << 20


def test_a_signal_answers_what_is_in_the_rings(daemon: Daemon) -> None:
    """Elements that were kicked before the signal are all given back, however many turns they take."""
    with daemon.guest("one") as guest:
        for n in range(60):
            guest.submit([(RING_PAGES + n, 1)])
        status, _ = daemon.stop()
        assert status == 0
        assert len(guest.ring.driver.take_used()) == 60


def test_a_guest_that_comes_back_is_served_again(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """The same socket takes guests one after the other, and several at once under names of their own."""
    for _ in range(2):
        with daemon.guest("one") as guest:
            assert len(guest.report([(RING_PAGES, 1)])) == 1
            with daemon.guest("one") as second:
                second.report([(RING_PAGES, 1)])
                assert show(daemon, "one-2", capsys)["name"] == "one-2"


def test_what_is_wanted_of_a_socket_holds_for_all_who_are_there(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guest that came while an older connection was open is paused and inhibited by either name, or the socket's."""
    with daemon.guest("one") as old, daemon.guest("one") as new:
        assert daemon.ctl("inhibit", "one") == daemon.ctl("pause", "one-2") == 0
        for guest, name in ((old, "one"), (new, "one-2")):
            guest.submit([(RING_PAGES, 1)])
            shown = show(daemon, name, capsys)
            assert (shown["name"], shown["paused"], shown["inhibited"]) == (name, True, True)
        old.channel.close()
        while daemon.ctl("list", "--json") == 0 and len(json.loads(capsys.readouterr().out)) != 2:
            pass  # the old one, the new one, and nobody at the other socket
        assert daemon.ctl("resume", "one") == 0
        new.wait_used()
        assert len(new.ring.resident_pages()) == new.ring.pages
        assert show(daemon, "one", capsys)["name"] == "one-2"


def test_a_target_that_cannot_be_kept_is_not_set(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """What a successor would not know of is refused, and the guest is not told of it."""
    with daemon.guest("one") as guest:
        (daemon.folder / f"one.sock{KEPT_SUFFIX}.new").mkdir()
        assert daemon.ctl("set", "one", "target=1MiB") == 1
        assert "so it is not done" in capsys.readouterr().err
        assert Config.decode(guest.channel.get_config(0, CONFIG_BYTES)).num_pages == 0


def test_a_target_that_cannot_be_is_refused(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing at all, also of a guest that is not there yet, and more than it has; what was wanted before stays."""
    assert daemon.ctl("set", "two", "target=0") == 1
    assert "cannot make do with no memory" in capsys.readouterr().err
    with daemon.guest("one") as guest:
        assert daemon.ctl("set", "one", "target=1MiB") == 0
        assert daemon.ctl("set", "one", "target=1GiB") == daemon.ctl("set", "one", "target=0") == 1
        error = capsys.readouterr().err
        assert f"one has {format_size(guest.ring.pages * PAGE)} and cannot have 1 GiB" in error
        assert show(daemon, "one", capsys)["target_bytes"] == 1 << 20


@pytest.mark.parametrize("target_bytes", [-1, 10**30])
def test_a_target_that_none_can_be_is_refused(
    daemon: Daemon, target_bytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of a guest that is not attached: it would find it so, and be refused."""
    request = {"command": "set", "guest": "one", "target_bytes": target_bytes}
    assert "not a request" in ask(daemon.control, request)["error"]
    with daemon.guest("one"):
        assert show(daemon, "one", capsys)["target_bytes"] == show(daemon, "one", capsys)["ram_bytes"]


def test_features_can_be_left_out(tmp_path: Path) -> None:
    """A feature that was switched off is not offered, and the queues close ranks."""
    daemon = Daemon(tmp_path, "--no-stats", "--no-free-page-hint")
    with daemon.guest("two") as guest:
        assert guest.index == 2
        guest.report([(RING_PAGES, 1)])
    assert daemon.stop()[0] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("dance",), "ctl knows list"),
        (("list", "one"), "list takes no guest"),
        (("show",), "needs the name of a guest"),
        (("set", "one"), "such as target=512MiB"),
        (("set", "one", "target=much"), "is not a size"),
        (("set", "one", "colour=red"), "such as target=512MiB"),
        (("pause", "one", "now"), "takes no settings"),
        (("pause", "one", "--force"), "--force is for set"),
    ],
)
def test_bad_requests_are_one_sentence(
    words: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What makes no request is said without asking any daemon, with status 2."""
    assert cli.main(["ctl", *words, "--control", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "either --socket"),
        ("--socket a --socket-dir .", "either --socket"),
        ("--socket /nowhere/at/all", "there is no folder /nowhere/at"),
        ("--socket a --socket ./a", "same path"),
        ("--socket a --control a", "same path"),
        ("--socket vm.sock --socket ./vm.socket", "two would be called vm"),
        ("--socket-dir nowhere", "there is no folder nowhere"),
        ("--socket a --verify 2", "from 0 to 1"),
        ("--socket a --stats-interval -1", "from 0 to 1000000"),
        ("--socket a --stats-interval nan", "from 0 to 1000000"),
        ("--socket a --stats-interval 5 --no-stats", "no effect with --no-stats"),
        ("--socket a --device-init --no-reporting", "needs --reporting"),
        ("--socket a --device-init --verify 0", "needs --reporting, and --verify above 0"),
        ("--socket " + "a" * 120, "at most 107 bytes"),
    ],
)
def test_a_daemon_with_bad_arguments_does_not_start(
    arguments: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2 and one sentence, and no socket is made."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["serve", *arguments.split()]) == 2
    assert sentence in capsys.readouterr().err
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_path_that_is_taken_is_named(
    daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that cannot have a path says which and why; where it chose the path itself, how to choose another."""
    one, other = daemon.folder / "one.sock", tmp_path / "other.sock"
    (tmp_path / "file.sock").touch()
    monkeypatch.setattr(serve_command, "default_control_path", lambda: daemon.control)
    for words, sentence in (
        (["--socket", str(one), "--control", str(tmp_path / "c")], f"at {one}: another process listens there\n"),
        (["--socket", str(tmp_path / "file.sock"), "--control", str(tmp_path / "c")], "something that is no socket\n"),
        (["--socket", str(other)], f"at {daemon.control}: another process listens there; --control says where else\n"),
    ):
        assert cli.main(["serve", *words]) == 1
        assert sentence in capsys.readouterr().err
        assert not other.exists()
    assert "attached" not in daemon.stop()[1], "who asked whether somebody listens is no guest"


def test_a_socket_of_the_command_line_stays(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """`ctl add` could not make it again, so `ctl remove` says no, and the guest is served as before."""
    assert daemon.ctl("remove", "one") == 1
    assert "was given when the daemon was started and stays as long as it runs" in capsys.readouterr().err
    with daemon.guest("one") as guest:
        guest.report([(RING_PAGES, 1)])


def test_no_daemon_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With nobody at the control socket, ctl says where it looked, with status 1."""
    assert cli.main(["ctl", "list", "--control", str(tmp_path / "none")]) == 1
    assert f"no daemon answers at {tmp_path / 'none'}" in capsys.readouterr().err


def test_the_daemon_says_no(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """A guest that is not there is status 1; nonsense on the socket is answered or ends that connection only."""
    assert daemon.ctl("show", "nobody") == 1
    assert "there is no guest 'nobody'" in capsys.readouterr().err
    for nonsense in (b"{}\n", b'{"command":"dance"}\n', b"\xff\n", b"[" * 5000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(TIMEOUT_S)
            sock.connect(str(daemon.control))
            sock.sendall(nonsense)
            answer = sock.recv(4096)
            assert answer == b"" if len(nonsense) > 100 else b"not a request" in answer
    assert daemon.ctl("list") == 0


def test_an_error_in_pagetide_is_one_line_of_the_log() -> None:
    """A traceback is a field of its event's line."""
    try:
        raise MemoryError("no room")
    except MemoryError as error:
        happened = (type(error), error, error.__traceback__)
    line = LineFormatter().format(logging.LogRecord("host", logging.ERROR, __file__, 1, "met", None, happened))
    assert "\n" not in line
    assert 'event="met" traceback="Traceback' in line
    assert "MemoryError: no room" in line


COLLECTING = """
import gc, sys
from pagetide import cli
from pagetide.host.daemon import process

def freeze_and_watch(freeze=gc.freeze):
    freeze()
    gc.callbacks.append(
        lambda phase, told: phase == "stop" and told["generation"] == 2 and print("all collected", file=sys.stderr)
    )

process._COLLECT_S = {}
gc.freeze = freeze_and_watch
sys.exit(cli.main())
"""


@pytest.mark.parametrize(("interval_s", "is_due"), [(1e-9, True), (600.0, False)])
def test_what_python_keeps_for_reuse_is_given_back_now_and_then(
    tmp_path: Path, interval_s: float, *, is_due: bool
) -> None:
    """By a full collection every ten minutes, and not before."""
    daemon = Daemon(tmp_path, program=("-c", COLLECTING.format(interval_s)))
    try:
        for _ in range(5):
            daemon.ctl("list")
        status, log = daemon.stop()
    finally:
        daemon.close()
    assert status == 0
    assert ("all collected" in log) == is_due
