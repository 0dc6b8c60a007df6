"""What `pagetide serve` tells by HTTP, metrics and the page: from arguments to processes that answer."""

import contextlib
import importlib.util
import logging
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pagetide.machine.config_error import ConfigError
from pagetide.operate.endpoint_process import (
    METRICS,
    Address,
    Endpoint,
    EndpointProcess,
    Waking,
    listen,
    read_address,
)
from pagetide.operate.web.told_lines import LogLines, greeting

_PAGE_MODULE = "pagetide.operate.web.endpoint"
_NEEDED = ("starlette", "uvicorn")
_CONTROL_PLACE = "/#token="

_log = logging.getLogger(__name__)


class EndpointOptions(NamedTuple):
    """What was asked for.

    Attributes:
        metrics: where to answer scrapes, as `read_address` has it; None for nowhere.
        metrics_any: whether that may be where other machines reach it.
        web: where to show the page; None for nowhere.
        web_any: whether that may be where other machines reach it.
        web_control: whether the page may change what is wanted of guests.
    """

    metrics: str | None = None
    metrics_any: bool = False
    web: str | None = None
    web_any: bool = False
    web_control: bool = False


class AskedFor(NamedTuple):
    """An endpoint that is to be had.

    Attributes:
        option: by which it was asked for.
        address: where.
        endpoint: what.
    """

    option: str
    address: Address
    endpoint: Endpoint

    @property
    def is_overheard(self) -> bool:
        """Whether a token that allows changes is sent where others may hear it."""
        return self.endpoint.place.startswith(_CONTROL_PLACE) and not self.address.is_loopback


def check_endpoints(options: EndpointOptions, *, has_guests: bool = False) -> tuple[AskedFor, ...]:
    """What is to be told where.

    Args:
        options: what was asked for.
        has_guests: whether guests wait for this daemon; what the page needs and lacks is only told then (`listen_for`).

    Raises:
        ConfigError: an address is none, or others reach it, which was not said to be meant, or something is missing.
    """
    asked = []
    metrics = _address("metrics", options.metrics, others_may=options.metrics_any)
    if metrics is not None:
        asked.append(AskedFor("--metrics", metrics, METRICS))
    web = _address("web", options.web, others_may=options.web_any)
    if web is None and options.web_control:
        raise ConfigError("--web-control is about the page of --web, and there is none")
    if web is not None:
        if not has_guests:
            _check_installed()
        token = secrets.token_urlsafe(24) if options.web_control else ""
        place = f"{_CONTROL_PLACE}{token}" if token else "/"
        asked.append(AskedFor("--web", web, Endpoint(_PAGE_MODULE, "the page", place, greeting(token))))
    return tuple(asked)


def own_address(name: str, text: str) -> Address:
    """An address that only this machine reaches, for a page by the option of this name.

    Raises:
        ConfigError: it is none, or what the page needs is not installed.
    """
    _check_installed()
    try:
        address = read_address(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    if not address.is_loopback:
        raise ConfigError(f"others reach {address}: a run is shown on this machine only, as at 127.0.0.1:8080")
    return address


def _check_installed() -> None:
    if not all(importlib.util.find_spec(name) for name in _NEEDED):
        raise ConfigError("--web needs Starlette and uvicorn; in pagetide's source folder: pip install '.[web]'")


def _address(name: str, text: str | None, *, others_may: bool) -> Address | None:
    if text is None:
        if others_may:
            raise ConfigError(f"--{name}-any says that the address of --{name} is meant, and there is none")
        return None
    try:
        address = read_address(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    if not address.is_loopback and not others_may:
        raise ConfigError(f"others reach {address}, and anybody who does may read: give --{name}-any if that is meant")
    return address


Listening = list[tuple[AskedFor, socket.socket]]


def listen_for(asked: Sequence[AskedFor], *, beside_another: bool, has_guests: bool) -> Listening:
    """A socket for each.

    Args:
        asked: what is to be had.
        beside_another: whether a predecessor may listen there still.
        has_guests: whether guests wait for this daemon; what cannot be had is only told then, and they are served.

    Raises:
        OSError: an address cannot be had.
    """
    found: Listening = []
    for each in asked:
        if each.is_overheard:
            _log.warning("%s is at %s: its token crosses the network in clear", each.endpoint.told, each.address)
        try:
            if each.endpoint.module == _PAGE_MODULE:
                _check_installed()
            found.append((each, listen(each.address, beside_another=beside_another)))
        except OSError as error:
            if not has_guests:
                for _, sock in found:
                    sock.close()
                raise OSError(f"{each.endpoint.told} cannot be told at {each.address}: {error.strerror}") from error
            _log.error("no %s at %s: %s", each.endpoint.missed, each.address, error.strerror)
        except ConfigError as error:
            _log.error("no %s: %s", each.endpoint.missed, error)
    return found


def start_all(resources: contextlib.ExitStack, listening: Listening, control: Path, loop: Waking) -> None:
    """Begin to answer, once there is whom to ask; all of it ends with `resources`. Guests are served in any case."""
    for asked, sock in listening:
        try:
            process = EndpointProcess(asked.endpoint, sock, control, loop)
        except OSError as error:
            sock.close()
            _log.error("no %s: %s", asked.endpoint.missed, error)
            continue
        resources.callback(process.close)
        if asked.endpoint.module == _PAGE_MODULE:
            resources.enter_context(LogLines(process.tell))
