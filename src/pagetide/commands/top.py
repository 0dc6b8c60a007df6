"""`pagetide top`: all VMs of this host, live in a terminal or once for a file."""

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.console import Console, Group
from rich.live import Live

from pagetide.commands.daemon.control_path import default_control_path
from pagetide.commands.status import STATUS_OK
from pagetide.machine.config_error import ConfigError
from pagetide.operate.top.keys import read_keys
from pagetide.operate.top.lines import TITLES, lines_of, sort_lines
from pagetide.operate.top.model import Model
from pagetide.operate.top.reader import Reader
from pagetide.operate.top.screen import plain_table
from pagetide.operate.watch.all_vms import Look, Watching
from pagetide.operate.watch.host_vms import HostVms
from pagetide.terminal.ascii_fallback import fall_back_to_ascii
from pagetide.terminal.interrupt import Interrupt

_INTERVAL_MIN_S = 0.5
_KEYS_BYTES = 1024


def top_command(
    control: Path | None, *, once: bool, json: bool, interval_s: float, sort: str, daemon_only: bool
) -> int:
    """Show all VMs until the user ends it, or once; the exit status.

    Args:
        control: the daemon's control socket; None for the usual place.
        once: whether to print once; so it is without a terminal.
        json: whether to print once, as JSON.
        interval_s: how often to look.
        sort: the title of the column to sort by.
        daemon_only: whether to leave out VMs that are not the daemon's.

    Raises:
        ConfigError: the arguments are wrong.
    """
    if sort not in TITLES:
        raise ConfigError(f"there is no column {sort!r} to sort by; there are: {', '.join(TITLES)}")
    if not _INTERVAL_MIN_S <= interval_s <= 86400:
        raise ConfigError(f"--interval is from {_INTERVAL_MIN_S:g} to 86400 s, not {interval_s:g} s")
    fall_back_to_ascii(sys.stdout)
    place = default_control_path() if control is None else control
    watching = Watching(place, None if daemon_only else HostVms())
    if once or json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        _print(watching.look(), TITLES.index(sort), json=json)
    else:
        _show(watching, place, interval_s, Model(TITLES.index(sort)))
    return STATUS_OK


def _print(look: Look, column: int, *, json: bool) -> None:
    if json:
        print(msgspec.json.format(msgspec.json.encode(look), indent=2).decode())
        return
    lines = sort_lines(lines_of(look, None), column, reverse=False)
    if lines or look.waiting:
        print(plain_table(lines, look.waiting))
    else:
        print("no VM is found on this host, or none that may be looked at (as root, all are)")
    if look.trouble:
        print(f"pagetide: {look.trouble}", file=sys.stderr)


def _show(watching: Watching, control: Path, interval_s: float, model: Model) -> None:
    """Draw whenever a key is pressed, something was read or the terminal has another size."""
    console = Console(highlight=False)
    with (
        _woken() as (wake_fd, write_fd),
        Interrupt() as interrupt,
        Reader(watching, control, interval_s, lambda: _poke(write_fd)) as reader,
        _keys_at_once(sys.stdin.fileno()),
        Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        while not model.over and not interrupt.happened:
            live.update(Group(*model.screen(console.width, console.height)), refresh=True)
            ready, _, _ = select.select([sys.stdin, wake_fd], [], [])
            if wake_fd in ready:
                os.read(wake_fd, 4096)
            if sys.stdin in ready:
                data = os.read(sys.stdin.fileno(), _KEYS_BYTES)
                model.over = not data  # the terminal has gone
                for key in read_keys(data):
                    model.press(key)
            while not reader.found.empty():
                found = reader.found.get()
                if isinstance(found, Look):
                    model.saw(found)
                else:
                    model.mapped(*found)
            reader.want_map(model.opened_vm)


@contextlib.contextmanager
def _woken() -> Iterator[tuple[int, int]]:
    """A pipe that becomes readable by a signal, as of a terminal that has another size, or by a byte put into it."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before_fd = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    before = signal.signal(signal.SIGWINCH, lambda *_: None)
    try:
        yield read_fd, write_fd
    finally:
        signal.signal(signal.SIGWINCH, before)
        signal.set_wakeup_fd(before_fd)
        os.close(read_fd)
        os.close(write_fd)


def _poke(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):  # it is readable
        os.write(fd, b"\0")


@contextlib.contextmanager
def _keys_at_once(fd: int) -> Iterator[None]:
    """Have keys come as they are pressed, and not be shown."""
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
