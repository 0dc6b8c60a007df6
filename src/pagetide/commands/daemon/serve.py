"""`pagetide serve`: from arguments to a daemon."""

import contextlib
import dataclasses
import functools
import gc
import logging
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pagetide.commands.daemon.control_path import default_control_path, make_private
from pagetide.commands.status import STATUS_FAILED, STATUS_OK
from pagetide.machine.config_error import ConfigError

if TYPE_CHECKING:
    from pagetide.commands.daemon.endpoints import AskedFor, EndpointOptions
    from pagetide.host.daemon.service_manager import ServiceManager

_SOCKET_PATH_MAX = 107
"""Bytes in a Unix socket's path (unix(7))."""


def check_paths(
    sockets: Sequence[Path], socket_dir: Path | None, control: Path | None, *, given: bool = False
) -> tuple[list[Path], Path]:
    """The sockets to listen at, and the control socket; none need be named if some are `given` by another process.

    Raises:
        ConfigError: there is none, or one too many, or a folder is missing.
    """
    if bool(sockets) == (socket_dir is not None) and (sockets or not given):
        raise ConfigError("give either --socket, once or more, or --socket-dir")
    if socket_dir is not None and not socket_dir.is_dir():
        raise ConfigError(f"there is no folder {socket_dir} for sockets")
    chosen = list(sockets)
    place = default_control_path() if control is None else control
    for path in (*chosen, *([] if control is None else [control])):
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"there is no folder {path.absolute().parent} for the socket {path.name}")
    for path in (*chosen, place):
        if len(bytes(path)) > _SOCKET_PATH_MAX:
            raise ConfigError(f"the path of a socket has at most {_SOCKET_PATH_MAX} bytes: {path}")
    if len({path.absolute() for path in (*chosen, place)}) <= len(chosen):
        raise ConfigError("two sockets have the same path")
    names = [path.stem for path in chosen]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"a guest is called after its socket, and two would be called {name}")
    return chosen, place


def _reason(error: OSError) -> str:
    return f": {error}" if error.filename is None else f" at {error.filename}: {error.strerror}"


def _offered(without: frozenset[str], *, device_init: bool) -> int:
    """The features that are offered."""
    from pagetide.host.device.balloon import FEATURES
    from pagetide.virtio.balloon import Feature

    features = FEATURES
    for name in without:
        features &= ~Feature[name]
    if device_init:
        features |= Feature.DEVICE_INIT_REPORTED
    return int(features)


def serve_command(
    sockets: Sequence[Path],
    socket_dir: Path | None,
    control: Path | None,
    *,
    verify_share: float,
    stats_interval_s: float,
    without: frozenset[str],
    take_over: bool = False,
    device_init: bool = False,
    endpoints: "EndpointOptions | None" = None,
) -> int:
    """Serve until told to stop; the exit status.

    Args:
        sockets: where guests connect.
        socket_dir: or a folder in which sockets are made when `pagetide ctl add` asks for them.
        control: the control socket; None for the default.
        verify_share: share of the elements whose discarding is read back.
        stats_interval_s: seconds between requests for statistics; 0 for never.
        without: names of the balloon's features that are not offered.
        take_over: whether a running daemon is to give its guests and sockets, and to end.
        device_init: whether to offer the draft feature DEVICE_INIT_REPORTED.
        endpoints: what is to be told by HTTP, and where; None for nothing.

    Raises:
        ConfigError: the arguments are wrong.
    """
    _check_figures(verify_share, stats_interval_s, without, device_init=device_init)
    from pagetide.commands.daemon.endpoints import EndpointOptions, check_endpoints
    from pagetide.host.daemon.service_manager import ServiceManager, forget_environment

    manager = ServiceManager()
    has_guests = take_over or bool(manager.given)
    asked = check_endpoints(EndpointOptions() if endpoints is None else endpoints, has_guests=has_guests)
    paths, control_path = check_paths(sockets, socket_dir, control, given=has_guests)
    forget_environment()
    from pagetide.host.daemon.handover import HandoverError
    from pagetide.host.device.kept_state import UnreadableStateError
    from pagetide.host.guest.gone import GuestGoneError

    wanted = _Wanted(
        tuple(paths),
        socket_dir,
        control_path,
        verify_share=verify_share,
        stats_interval_s=stats_interval_s,
        features=_offered(without, device_init=device_init),
        take_over=take_over,
        endpoints=asked,
    )
    try:
        if control is None:
            make_private(control_path.parent)
        _serve(wanted, manager)
    except (HandoverError, UnreadableStateError, GuestGoneError) as error:
        print(f"pagetide: cannot take over: {error}", file=sys.stderr)
        return STATUS_FAILED
    except OSError as error:
        hint = "; --control says where else" if control is None and error.filename == str(control_path) else ""
        print(f"pagetide: cannot serve{_reason(error)}{hint}", file=sys.stderr)
        return STATUS_FAILED
    return STATUS_OK


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What is to be served, and how."""

    sockets: tuple[Path, ...]
    socket_dir: Path | None
    control: Path
    _: dataclasses.KW_ONLY
    verify_share: float
    stats_interval_s: float
    features: int
    take_over: bool
    endpoints: "tuple[AskedFor, ...]"

    @property
    def options(self) -> dict[str, str]:
        """What a successor compares with its own; sockets and guests are its anyway."""
        from pagetide.virtio.balloon import Feature

        places = {each.option: str(each.address) for each in self.endpoints}
        names = [feature.name for feature in Feature if feature & self.features and feature.name]
        return {
            "--socket-dir": "none" if self.socket_dir is None else str(self.socket_dir.resolve()),
            "--verify": f"{self.verify_share:g}",
            "--stats-interval": f"{self.stats_interval_s:g}",
            "what is offered to guests": " ".join(names),
            **{option: places.get(option, "none") for option in ("--metrics", "--web")},
        }


def _check_figures(verify_share: float, stats_interval_s: float, without: frozenset[str], *, device_init: bool) -> None:
    if not 0 <= verify_share <= 1:
        raise ConfigError(f"verify must be from 0 to 1, not {verify_share}")
    if not 0 <= stats_interval_s <= 1e6:
        raise ConfigError(f"stats-interval must be from 0 to 1000000 seconds, not {stats_interval_s}")
    if stats_interval_s and "STATS_VQ" in without:
        raise ConfigError("stats-interval has no effect with --no-stats, which leaves guests no way to tell them")
    if device_init and ("REPORTING" in without or verify_share == 0):
        raise ConfigError("device-init is about reports that are verified: it needs --reporting, and --verify above 0")


def _prepare_process() -> None:
    """Have the log, room for descriptors, and all that is compiled."""
    from pagetide import bus_error
    from pagetide.commands.daemon.event_log import log_handler
    from pagetide.machine.live.host_warm_up import warm_up_host

    logging.basicConfig(level=logging.INFO, handlers=[log_handler()])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a guest takes up to some fifteen
    bus_error.install()
    warm_up_host()
    gc.collect()
    gc.freeze()  # a full collection among all that the compiler has loaded keeps guests waiting for 0.1 s


def _serve(wanted: _Wanted, manager: "ServiceManager") -> None:
    """Serve until told to stop.

    Raises:
        HandoverError, UnreadableStateError, GuestGoneError, OSError: as `process.serve`.
    """
    from pagetide.commands.daemon.endpoints import listen_for, start_all
    from pagetide.host.daemon.handover import Predecessor
    from pagetide.host.daemon.keeper import Keeper
    from pagetide.host.daemon.process import serve
    from pagetide.host.daemon.server import Server
    from pagetide.host.sharing.hold_ups import HoldUps
    from pagetide.host.sharing.interruption import Interruption

    _prepare_process()
    with contextlib.ExitStack() as resources:
        has_guests = wanted.take_over or bool(manager.given)
        listening = listen_for(wanted.endpoints, beside_another=wanted.take_over, has_guests=has_guests)
        keeper = Keeper(manager)
        predecessor = None
        if wanted.take_over:
            predecessor = Predecessor(wanted.control)
            resources.callback(predecessor.close)
            keeper.take(predecessor.kept)
            keeper.strict = True
        interruption = resources.enter_context(Interruption())
        server = resources.enter_context(
            Server(
                verify_share=wanted.verify_share,
                features=wanted.features,
                interruption=interruption,
                hold_ups=HoldUps(),
                keeper=keeper,
            )
        )
        on_ready = functools.partial(start_all, resources, listening, wanted.control, server)
        serve(
            server,
            wanted.sockets,
            wanted.control,
            folder=wanted.socket_dir,
            stats_interval_s=wanted.stats_interval_s,
            keeper=keeper,
            manager=manager,
            predecessor=predecessor,
            options=wanted.options,
            on_ready=on_ready,
        )
