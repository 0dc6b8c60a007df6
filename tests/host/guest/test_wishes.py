"""What is wanted of a guest outlives the daemon that was told, however it ends."""

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagetide.host.guest.wishes import KEPT_SUFFIX, Wishes
from tests.host.daemon.process import Daemon, show
from tests.host.guest_ring import RING_PAGES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_guest_is_inhibited_at_the_next_daemon(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next daemon at the socket discards nothing, from the first report on, and has the target; others go on."""
    first = Daemon(tmp_path)
    try:
        with first.guest("one"):
            assert first.ctl("inhibit", "one") == 0
            assert first.ctl("set", "one", "target=1MiB") == 0
            first.stop(number)
    finally:
        first.close()
    second = Daemon(tmp_path)
    try:
        with second.guest("one") as one, second.guest("two") as two:
            for guest in (one, two):
                guest.report([(RING_PAGES, 1)])
            assert len(one.ring.resident_pages()) == one.ring.pages
            assert len(two.ring.resident_pages()) == two.ring.pages - 1
            shown = show(second, "one", capsys)
            assert (shown["inhibited"], shown["paused"], shown["target_bytes"]) == (True, False, 1 << 20)
            assert second.ctl("uninhibit", "one") == 0
        _, log = second.stop()
        assert 'guest="one" event="wanted: target 1 MiB"' in log
        assert "as it was left: inhibited, target 1 MiB" in log
        assert log.count('event="attached"') == 1
    finally:
        second.close()


def test_a_file_is_left_only_while_something_is_wanted(tmp_path: Path) -> None:
    """Each wish is found by the next who reads, nobody else may read it, and wanting nothing leaves no file."""
    path = tmp_path / "vm.sock"
    wanted = Wishes(path)
    assert list(tmp_path.iterdir()) == []
    wanted.want(paused=True)
    (kept,) = tmp_path.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    wanted.want(target_bytes=0)
    assert str(Wishes(path)) == "paused, target 0 B"
    wanted.want(paused=False)
    assert (Wishes(path).paused, Wishes(path).target_bytes) == (False, 0)
    wanted.forget()
    wanted.want(inhibited=True)
    assert Wishes(path).inhibited
    wanted.want(inhibited=False)
    assert list(tmp_path.iterdir()) == []


def test_a_wish_that_cannot_be_kept_is_not_granted(tmp_path: Path) -> None:
    """What a successor would not know of is refused in one sentence, and what was wanted before stays."""
    wanted = Wishes(tmp_path / "gone" / "vm.sock")
    with pytest.raises(ValueError, match="so it is not done"):
        wanted.want(inhibited=True)
    assert not wanted.inhibited


@pytest.mark.parametrize("data", [b"", b"{", b'{"inhibited": 1}', b'{"unknown": true}', b"[]", b'{"target_bytes": -1}'])
def test_a_file_of_anything_else_is_refused(data: bytes, tmp_path: Path) -> None:
    """What is no daemon's is not guessed at: inhibited is not to be lost by a damaged file."""
    path = tmp_path / "vm.sock"
    (tmp_path / f"vm.sock{KEPT_SUFFIX}").write_bytes(data)
    with pytest.raises(OSError, match="remove it to begin anew"):
        Wishes(path)


def test_a_writer_that_dies_leaves_the_old_file_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any system call of a change, a process leaves what was wanted before or after it, and never less."""
    path = tmp_path / "vm.sock"
    seen = set()
    for steps in range(1, 20):
        Wishes(path).forget()
        Wishes(path).want(inhibited=True)
        child = os.fork()
        if child == 0:
            try:
                _die_at(monkeypatch, steps)
                Wishes(path).want(paused=True)
            finally:
                os._exit(0)
        died = os.waitpid(child, 0)[1] != 0
        left = Wishes(path)
        assert left.inhibited
        seen.add((died, left.paused))
        if not died:
            break
    Wishes(path).forget()
    assert list(tmp_path.iterdir()) == []
    assert {(True, False), (False, True)} <= seen
    assert (False, False) not in seen


def _die_at(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Kill this process at the given call of those by which a file is written."""
    left = [steps]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return step

    monkeypatch.setattr(os, "open", dying(os.open))
    monkeypatch.setattr(os, "fdopen", dying(os.fdopen))
    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))
