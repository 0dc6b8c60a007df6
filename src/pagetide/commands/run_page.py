"""A run on a page: while it goes on, by a process of its own, or one that was saved."""

import contextlib
import datetime as dt
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from pagetide.commands.daemon.endpoints import own_address
from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.machine.observer import Observer
from pagetide.machine.result import RunResult, Sample
from pagetide.operate.endpoint_process import Address, Endpoint, EndpointProcess, listen
from pagetide.operate.web.run_shown import RunBegun, Samples, Stage, Told

_ENDPOINT = Endpoint("pagetide.operate.web.run_endpoint", "the page", "/")
_TELL_S = 0.5
_SAMPLES_MAX = 25  # as many as fit into a line that a pipe takes at once


def listen_for_page(text: str) -> socket.socket:
    """A socket that listens at an address of this machine's own.

    Raises:
        ConfigError: it is no such address, it cannot be had, or what the page needs is not installed.
    """
    address = own_address("web", text)
    try:
        return listen(address, beside_another=False)
    except OSError as error:
        raise ConfigError(f"the page cannot be shown at {address}: {error.strerror}") from None


def tell_address(listener: socket.socket) -> None:
    """Say where the page is, on standard error."""
    host, port = listener.getsockname()[:2]
    print(f"the page is at http://{Address(host, port)}/", file=sys.stderr, flush=True)


def words_of(config: RunConfig) -> str:
    """What is run, in a few words."""
    return f"{config.design} on {config.workload}"


class _NoLoop:
    """Nobody watches the page's process: a run goes on without it."""

    def wake_by(self, fd: int, then: Callable[[], None]) -> None:
        """Do nothing."""

    def no_wake_by(self, fd: int) -> None:
        """Do nothing."""


class RunPage:
    """An observer that tells a page, too, what another is told. What the page does not take at once is lost."""

    def __init__(self, listener: socket.socket, config: RunConfig, observer: Observer) -> None:
        """Start the page's process, and say there what is run.

        Raises:
            OSError: it cannot be started.
        """
        self._observer = observer
        self._process = EndpointProcess(_ENDPOINT, listener, Path(), _NoLoop())
        tell_address(listener)
        self._waiting: list[Sample] = []
        self._told_s = time.monotonic()
        self._tell(RunBegun(words_of(config), config.ram_bytes, time.time()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.close()

    def stage(self, text: str) -> None:
        """Something new begins."""
        self._observer.stage(text)
        self._flush()
        self._tell(Stage("info", text))

    def sample(self, sample: Sample) -> None:
        """The state of things."""
        self._observer.sample(sample)
        self._waiting.append(sample)
        if len(self._waiting) >= _SAMPLES_MAX or time.monotonic() - self._told_s >= _TELL_S:
            self._flush()

    def warning(self, text: str) -> None:
        """Something is not as it should be."""
        self._observer.warning(text)
        self._tell(Stage("warning", text))

    def _flush(self) -> None:
        if self._waiting:
            self._tell(Samples(self._waiting))
            self._waiting, self._told_s = [], time.monotonic()

    def _tell(self, told: Told) -> None:
        self._process.tell(msgspec.json.encode(told) + b"\n")


def show_saved(result: RunResult, listener: socket.socket) -> None:
    """Show a run that was saved, until Ctrl-C."""
    from pagetide.operate.web.answers import Looks
    from pagetide.operate.web.run_shown import RunShown
    from pagetide.operate.web.serving import serve_beside

    looks = Looks()
    shown = RunShown(looks.tell)
    began_s = 0.0 if result.started is None else dt.datetime.fromisoformat(result.started).timestamp()
    shown.hear(RunBegun(words_of(result.config), result.config.ram_bytes, began_s))
    shown.hear(Samples(result.samples.rows()))
    shown.hear(Stage("info", result.outcome))
    serve_beside(listener, shown, looks)
    tell_address(listener)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
