"""`pagetide record`: what a real kernel allocates."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from pagetide.cli.app import GUEST, OUTPUT, command, whole
from pagetide.machine.config_error import ConfigError

HERE = Group("This kernel", sort_key=1)

_RECORD_EXAMPLES = """
Examples:

    pagetide record --seconds 60 --out machine.parquet
    pagetide record --rest 30 --out build.parquet -- make -j4
    pagetide record --guest qemu --out guest.parquet
    pagetide run --stream build.parquet --ram 4GiB --design pool

Exit status: 0 recorded; 1 not root, no tracefs, or the recording is refused; 2 bad arguments.
"""


@command(_RECORD_EXAMPLES)
def record(
    *words: Annotated[str, Parameter(name="COMMAND", allow_leading_hyphen=True, group=HERE)],
    seconds: Annotated[float | None, Parameter(group=HERE)] = None,
    rest: Annotated[float | None, Parameter(group=HERE)] = None,
    everything: Annotated[bool, Parameter(negative="", group=HERE)] = False,
    room: Annotated[str | None, Parameter(group=HERE)] = None,
    guest: Annotated[Literal["uml", "qemu"] | None, Parameter(group=GUEST)] = None,
    kernel: Annotated[Path | None, Parameter(group=GUEST)] = None,
    qemu: Annotated[Path | None, Parameter(group=GUEST)] = None,
    ram: Annotated[str | None, Parameter(group=GUEST)] = None,
    fill: Annotated[str | None, Parameter(group=GUEST)] = None,
    bursts: Annotated[int | None, Parameter(converter=whole, group=GUEST)] = None,
    accept: Annotated[float, Parameter(group=OUTPUT)] = 0.05,
    out: Annotated[Path, Parameter(group=OUTPUT)] = Path("trace.parquet"),
    json: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
) -> int:
    """Record what a real kernel allocates and frees, as a stream for `pagetide run --stream`.

    As root, with the kernel's own trace events, in an instance of tracefs that nobody else uses and that is removed in
    the end. Ctrl-C ends the recording and keeps it. It is set against the kernel's own counters; where too much of it
    does not fit together, as it may under memory pressure, it is refused.

    Args:
        words: What to run after `--`; only what it and its children allocate is in the stream.
        seconds: How long to record, without a command. [default: 10]
        rest: How much longer than the command runs to record. [default: 0]
        everything: Put into the stream what all processes and the kernel allocate while the command runs.
        room: How much memory the recording may take, some 40 bytes an event. [default: an eighth of what is available]
        guest: Record a guest of `pagetide boot` that fills and empties a tmpfs, instead of this kernel. Debian's
            User-Mode Linux has no trace events, and is refused.
        kernel: As for `pagetide boot`.
        qemu: As for `pagetide boot`.
        ram: Its memory. [default: 256MiB]
        fill: Size of its file. [default: 100MiB]
        bursts: How many times it writes and removes it. [default: 1]
        accept: What share may be lost, or not fit together, before the recording is refused.
        out: The file for the stream.
        json: Write the account of the recording, with what the kernel said at both ends, to this file.
    """
    from pagetide.commands.boot import BootChoice, make_boot_config
    from pagetide.commands.record import Output, record_guest, record_here
    from pagetide.units import parse_size

    of_guest = {"kernel": kernel, "qemu": qemu, "ram": ram, "fill": fill, "bursts": bursts}
    of_here = {
        "seconds": seconds,
        "rest": rest,
        "room": room,
        "everything": everything or None,
        "COMMAND": words or None,
    }
    for name, value in (of_guest if guest is None else of_here).items():
        if value is not None:
            raise ConfigError(f"{name} {'is for --guest' if guest is None else 'does not go with --guest'}")
    output = Output(out, json, accept)
    if guest is not None:
        boot = {"ram": ram or "256MiB", "fill": fill or "100MiB", "bursts": 1 if bursts is None else bursts}
        choice = BootChoice(guest, peer=guest == "qemu", kernel=kernel, qemu=qemu)
        return record_guest(choice, make_boot_config(boot), output)
    if words and seconds is not None:
        raise ConfigError("a command is recorded to its end: --seconds is for none, --rest for how much longer")
    if not words and (rest is not None or everything):
        raise ConfigError("--rest and --everything go with a command")
    for_s = (10.0 if seconds is None else seconds) if not words else rest or 0.0
    if not 0 <= for_s <= 86400:
        raise ConfigError(f"a recording takes 0 to 86400 s, not {for_s:g}")
    try:
        room_bytes = None if room is None else parse_size(room)
    except ValueError as error:
        raise ConfigError(f"room: {error}") from error
    return record_here(words, for_s, room_bytes, "others" if everything or not words else "family", output)
