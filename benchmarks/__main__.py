"""`python -m benchmarks`: measure everything, print a table, and say which targets were missed."""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterable, Sequence

from benchmarks import (
    against_qemu,
    bad_neighbours,
    fidelity,
    find_next,
    guest_allocator,
    host_discard,
    many_guests,
    shared,
    simulated,
)
from benchmarks.rows import Row

_PARTS: dict[str, Callable[[], Iterable[Row]]] = {
    "allocator": guest_allocator.run,
    "next": find_next.run,
    "host": lambda: host_discard.run() + against_qemu.run(),
    "guests": lambda: many_guests.run() + bad_neighbours.run(),
    "shared": shared.run,
    "simulated": simulated.run,
    "fidelity": fidelity.run,
}


def _target(row: Row) -> str:
    if row.at_most is not None:
        return f"at most {row.at_most:g}"
    return f"at least {row.at_least:g}" if row.at_least is not None else ""


def _line(row: Row) -> str:
    value = "–" if row.value is None else f"{row.value:.4g} {row.unit}"  # noqa: RUF001 - no figure
    verdict = {None: "", True: "reached", False: "MISSED"}[row.ok]
    return f"{row.name:<58} {value:>16}  {_target(row):<14} {verdict:<8} {row.note}".rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks named on the command line, or all; 0, whatever they show."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    names = ", ".join(_PARTS)
    parser.add_argument(
        "parts", nargs="*", choices=[[], *_PARTS], metavar="PART", help=f"any of {names}; all if none is named"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(argv)
    print(f"{platform.processor() or platform.machine()}, Linux {platform.release()}", file=sys.stderr)
    rows: list[Row] = []
    for name in arguments.parts or _PARTS:
        print(f"measuring: {name}", file=sys.stderr)
        for row in _PARTS[name]():
            rows.append(row)
            if not arguments.json:
                print(_line(row), flush=True)
    if arguments.json:
        print(json.dumps([row._asdict() | {"ok": row.ok} for row in rows], indent=2))
    missed = [row.name for row in rows if row.ok is False]
    if missed:
        print(f"missed: {'; '.join(missed)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
