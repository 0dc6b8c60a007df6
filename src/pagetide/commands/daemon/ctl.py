"""`pagetide ctl`: one request to a running daemon, and its answer for a person or as JSON."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pagetide.commands.daemon.control_path import default_control_path
from pagetide.commands.status import STATUS_FAILED, STATUS_OK
from pagetide.machine.config_error import ConfigError
from pagetide.operate.host.control import ask
from pagetide.units import format_size, parse_size

COMMANDS = ("list", "show", "set", "pause", "resume", "inhibit", "uninhibit", "hint", "add", "remove", "check")
"""What can be asked."""

_OF_ALL = ("list", "check")
_HINTS_MAX_S = 30.0
_HINTS_LOOK_S = 0.05
_COUNT_MAX_S = 30.0
_COUNT_LOOK_S = 0.05
_STATISTICS_IN_BYTES = {"swap_in", "swap_out", "memfree", "memtot", "avail", "caches"}  # virtio 1.2, 5.5.6.4


def make_request(command: str, guest: str | None, settings: tuple[str, ...], *, force: bool = False) -> dict[str, Any]:
    """A request from the words of the command line.

    Raises:
        ConfigError: they make none.
    """
    if command not in COMMANDS:
        raise ConfigError(f"ctl knows {', '.join(COMMANDS)}, not {command!r}")
    if (command in _OF_ALL) != (guest is None):
        raise ConfigError(f"{command} takes no guest" if guest else f"{command} needs the name of a guest")
    if force and command != "set":
        raise ConfigError(f"--force is for set, not for {command}")
    if command != "set":
        if settings:
            raise ConfigError(f"{command} takes no settings, not {settings[0]!r}")
        return {"command": "kept" if command == "check" else command, "guest": guest}
    if len(settings) != 1 or not settings[0].startswith("target="):
        raise ConfigError("set needs one setting such as target=512MiB")
    wanted = settings[0].removeprefix("target=")
    if wanted == "none":
        return {"command": command, "guest": guest, "no_target": True}
    try:
        target_bytes = parse_size(wanted)
    except ValueError as error:
        raise ConfigError(f"target: {error}, or target=none") from None
    return {"command": command, "guest": guest, "target_bytes": target_bytes, "force": force}


def ctl_command(
    command: str,
    guest: str | None,
    settings: tuple[str, ...],
    control: Path | None,
    *,
    json: bool,
    force: bool = False,
) -> int:
    """Ask once and print the answer; the exit status.

    Raises:
        ConfigError: the arguments are wrong.
    """
    request = make_request(command, guest, settings, force=force)
    path = default_control_path() if control is None else control
    try:
        answer = ask(path, request)
        if command == "hint" and answer["error"] is None:
            answer = _await_hints(path, answer)
        if command == "show":
            answer = _await_count(path, request, answer)
    except (OSError, msgspec.DecodeError) as error:
        print(f"pagetide: no daemon answers at {path}: {error}", file=sys.stderr)
        return STATUS_FAILED
    if answer["error"] is not None:
        print(f"pagetide: {answer['error']}", file=sys.stderr)
        return STATUS_FAILED
    if command == "check":
        return _check(answer["kept"], json=json)
    if answer["socket"] is not None:
        print(msgspec.json.encode({"socket": answer["socket"]}).decode() if json else answer["socket"])
        return STATUS_OK
    if json:
        every = answer["guests"] + answer["waiting"]
        print(msgspec.json.format(msgspec.json.encode(every if command == "list" else every[0]), indent=2).decode())
    elif command == "show" and answer["guests"]:
        print(describe(answer["guests"]))
    else:
        print(table(answer["guests"], answer["waiting"]))
    if answer["note"] is not None:
        print(f"pagetide: {answer['note']}", file=sys.stderr)
    return STATUS_OK


def _check(kept: list[dict[str, Any]], *, json: bool) -> int:
    """Say which guests of the daemon this release would lose if it took its place; the exit status."""
    from pagetide.host.device.kept_head import lack_of

    lost: dict[str, str] = {}
    for guest in kept:
        lack = lack_of(guest["version"], guest["words"], has_names=guest["has_names"])
        if lack and not guest["comes_back"]:
            lost[guest["name"]] = lack if guest["version"] else "it could not be kept, which the daemon's log says"
    if json:
        print(msgspec.json.format(msgspec.json.encode({"guests": len(kept), "lost": lost}), indent=2).decode())
    elif not lost:
        print(f"this release goes on with all guests of the running daemon: {len(kept)}")
    for name, lack in lost.items():
        print(f"pagetide: this release cannot go on with {name}: {lack}", file=sys.stderr)
    return STATUS_FAILED if lost else STATUS_OK


def _await_hints(path: Path, begun: dict[str, Any]) -> dict[str, Any]:
    """Wait until a round of free page hints is over; the guest's state then, with a note of what came."""
    (guest,) = begun["guests"]
    before = guest["ledger"]
    give_up_s = time.monotonic() + _HINTS_MAX_S
    while True:
        answer = ask(path, {"command": "show", "guest": guest["name"]})
        if answer["error"] is not None:
            return answer
        if not answer["guests"]:
            return answer | {"error": f"{guest['name']} has gone before the round was over"}
        (now,) = answer["guests"]
        if not now["hinting"]:
            hints, hinted_bytes = (now["ledger"][name] - before[name] for name in ("hints", "hinted_bytes"))
            return answer | {"note": f"{now['name']} hinted {format_size(hinted_bytes)} in {hints} hints"}
        if time.monotonic() >= give_up_s:
            return answer | {"error": f"{now['name']} has not ended the round of hints after {_HINTS_MAX_S:g} s"}
        time.sleep(_HINTS_LOOK_S)


def _await_count(path: Path, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Ask again until what is held of the guest's memory is counted, or for long enough."""
    give_up_s = time.monotonic() + _COUNT_MAX_S
    while answer["error"] is None and answer["guests"] and time.monotonic() < give_up_s:
        held = answer["guests"][0].get("held")
        if held is None or not held["counting"]:
            break
        time.sleep(_COUNT_LOOK_S)
        answer = ask(path, request)
    return answer


def table(guests: list[dict[str, Any]], waiting: Sequence[dict[str, Any]] = ()) -> str:
    """A line a guest, under headings, and a line for each socket that waits for one."""
    rows: list[tuple[str, ...]] = [("guest", "memory", "held", "target", "balloon", "returned", "reported", "state")]
    for guest in guests:
        sizes = (guest["ram_bytes"], guest["held_bytes"], guest["target_bytes"], guest["balloon_bytes"])
        counts = (_returned_bytes(guest["ledger"]), guest["ledger"]["reported_bytes"])
        rows.append((guest["name"], *map(format_size, sizes + counts), _state(guest)))
    for sock in waiting:
        target = "-" if sock["target_bytes"] is None else format_size(sock["target_bytes"])
        rows.append((sock["name"], "-", "-", target, "-", "-", "-", " ".join(["no guest", *_wanted(sock)])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _returned_bytes(ledger: dict[str, int]) -> int:
    """What came back by reports and by the balloon."""
    return ledger["returned_bytes"] + ledger["inflate_returned_bytes"]


def describe(guests: list[dict[str, Any]]) -> str:
    """Everything about a guest that is not zero, a line a figure."""
    (guest,) = guests
    lines = [table(guests), "", f"features: {', '.join(guest['features']) or 'none yet'}"]
    lines += _held(guest["held"])
    lag = guest["lag"]
    if lag["count"]:
        lines.append(f"lag: p50 {lag['p50_us']} µs, p99 {lag['p99_us']} µs, max {lag['max_us']} µs")
    if guest["resting"] or guest["allowance_spent_s"]:
        rests = ", and rests for that now" if guest["resting"] else ""
        lines.append(f"daemon's time used in vain: {guest['allowance_spent_s']:.3f} s{rests}")
    for title in ("waiting", "errors", "ledger", "statistics"):
        lines += [f"{title} {name}: {_figure(name, value)}" for name, value in guest[title].items() if value]
    return "\n".join(lines)


def _held(held: dict[str, Any] | None) -> list[str]:
    """What is in RAM and what in swap, or why that is not known."""
    if held is None:
        return []
    names = ("resident_bytes", "swapped_bytes")
    known = [f"held {name}: {_figure(name, held[name])}" for name in names if held[name] is not None]
    return known if held["why"] is None else [*known, f"held: not all is known: {held['why']}"]


def _figure(name: str, value: int) -> str:
    is_size = name.endswith("_bytes") or name in _STATISTICS_IN_BYTES
    return f"{format_size(value)} ({value})" if is_size else str(value)


def _wanted(guest: dict[str, Any]) -> list[str]:
    return [word for word in ("paused", "inhibited") if guest[word]]


def _state(guest: dict[str, Any]) -> str:
    """The state, and what else is wanted of it."""
    more = [*_wanted(guest), *(["hinting"] if guest["hinting"] else [])]
    if guest["state"] in {"serving", *more}:
        return ", ".join(more) or "serving"
    return ", ".join([guest["state"], *more])
