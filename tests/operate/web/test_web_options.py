"""Where `pagetide serve` shows its page, and where it refuses to."""

import contextlib
import importlib.util
import sys
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.commands.daemon.endpoints import EndpointOptions, check_endpoints, listen_for, start_all
from pagetide.machine.config_error import ConfigError
from pagetide.operate.endpoint_process import Then


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--web", "0.0.0.0:8080"], "give --web-any if that is meant"),
        (["--web", "8080"], "such as 127.0.0.1:9464, not '8080'"),
        (["--web-any"], "there is none"),
        (["--web-control"], "--web-control is about the page of --web, and there is none"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    """Before anything is served."""
    serve = ["serve", "--socket", str(tmp_path / "a.sock"), "--control", str(tmp_path / "control")]
    assert cli.main([*serve, *words]) == 2
    assert sentence in capsys.readouterr().err


def test_each_start_has_a_token_of_its_own_and_only_if_control_is_wanted() -> None:
    """It is in the address that the log has, and in the greeting that the process gets, and nowhere else."""
    ((first,), (second,)) = (check_endpoints(EndpointOptions(web="127.0.0.1:8080", web_control=True)) for _ in range(2))
    token = first.endpoint.place.removeprefix("/#token=")
    assert len(token) >= 32
    assert token.encode() in first.endpoint.greeting
    assert first.endpoint != second.endpoint
    (plain,) = check_endpoints(EndpointOptions(web="[::1]:8080"))
    assert plain.endpoint.place == "/"


def test_a_token_that_others_may_hear_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """At an address of another machine's reach, and only where there is a token."""
    for address, control, count in (("0.0.0.0:0", False, 0), ("127.0.0.1:0", True, 0), ("0.0.0.0:0", True, 1)):
        asked = check_endpoints(EndpointOptions(web=address, web_any=True, web_control=control))
        for _, sock in listen_for(asked, beside_another=False, has_guests=False):
            sock.close()
        assert len(caplog.records) == count
    assert caplog.messages == ["the page is at 0.0.0.0:0: its token crosses the network in clear"]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that some module is missing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install '.\[web\]'"):
        check_endpoints(EndpointOptions(web="127.0.0.1:8080"))


def test_guests_are_served_without_a_page_rather_than_not_at_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A daemon that has them says what is missing, or why the page's process cannot be started, and goes on."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    options = EndpointOptions(web="127.0.0.1:0", metrics="127.0.0.1:0")
    asked = check_endpoints(options, has_guests=True)
    ((metrics, sock),) = listen_for(asked, beside_another=False, has_guests=True)
    assert metrics.option == "--metrics"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    with contextlib.ExitStack() as resources:
        start_all(resources, [(metrics, sock)], tmp_path / "control", Loop())
    assert sock.fileno() == -1
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "no page: --web needs Starlette and uvicorn; in pagetide's source folder: pip install '.[web]'"
    assert second.startswith("no metrics: [Errno 2] No such file or directory")


class Loop:
    """One that is never told of anything."""

    def wake_by(self, fd: int, then: Then) -> None:
        raise AssertionError

    def no_wake_by(self, fd: int) -> None:
        raise AssertionError
