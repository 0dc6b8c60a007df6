"""`pagetide serve`: from arguments to a daemon."""

import logging
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from pagetide.lab.control_path import default_control_path, make_private
from pagetide.lab.run_command import STATUS_FAILED, STATUS_OK
from pagetide.machine.config import ConfigError

_SOCKET_PATH_MAX = 107
"""Bytes in a Unix socket's path (unix(7))."""


def check_paths(sockets: Sequence[Path], socket_dir: Path | None, control: Path | None) -> tuple[list[Path], Path]:
    """The sockets to listen at, and the control socket.

    Raises:
        ConfigError: there is none, or one too many, or a folder is missing.
    """
    if bool(sockets) == (socket_dir is not None):
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


def serve_command(
    sockets: Sequence[Path],
    socket_dir: Path | None,
    control: Path | None,
    *,
    verify_share: float,
    stats_interval_s: float,
    without: frozenset[str],
) -> int:
    """Serve until told to stop; the exit status.

    Args:
        sockets: where guests connect.
        socket_dir: or a folder in which sockets are made when `pagetide ctl add` asks for them.
        control: the control socket; None for the default.
        verify_share: share of the elements whose discarding is read back.
        stats_interval_s: seconds between requests for statistics; 0 for never.
        without: names of the balloon's features that are not offered.

    Raises:
        ConfigError: the arguments are wrong.
    """
    if not 0 <= verify_share <= 1:
        raise ConfigError(f"verify must be from 0 to 1, not {verify_share}")
    if not 0 <= stats_interval_s <= 1e6:
        raise ConfigError(f"stats-interval must be from 0 to 1000000 seconds, not {stats_interval_s}")
    paths, control_path = check_paths(sockets, socket_dir, control)
    from pagetide import bus_error
    from pagetide.host.daemon import LineFormatter, serve
    from pagetide.host.device import FEATURES
    from pagetide.host.interruption import Interruption
    from pagetide.host.server import Server
    from pagetide.machine.host_warm_up import warm_up_host
    from pagetide.virtio.balloon import Feature

    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[lines])
    features = FEATURES
    for name in without:
        features &= ~Feature[name]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a guest takes up to some fifteen
    try:
        bus_error.install()
        warm_up_host()
        if control is None:
            make_private(control_path.parent)
        with (
            Interruption() as interruption,
            Server(
                verify_share=verify_share,
                features=int(features),
                on_busy=interruption.busy,
                on_idle=interruption.idle,
            ) as server,
        ):
            serve(server, paths, control_path, folder=socket_dir, stats_interval_s=stats_interval_s)
    except OSError as error:
        hint = "; --control says where else" if control is None and error.filename == str(control_path) else ""
        print(f"pagetide: cannot serve{_reason(error)}{hint}", file=sys.stderr)
        return STATUS_FAILED
    return STATUS_OK
