"""`python -m benchmarks`: measure, print each figure as soon as there is one, and say which targets were missed."""

import argparse
import functools
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import (
    command_line,
    fidelity,
    find_next,
    guest_allocator,
    shared,
    simulated,
    starting,
    tending,
)
from benchmarks.figures import measured, with_sections
from benchmarks.host import against_qemu, bad_neighbours, discarding, joined, many_guests, scraping, shown
from benchmarks.operators import looking
from benchmarks.planners import model, three_builds, whole
from benchmarks.prize import asked as prize
from benchmarks.rows import Row
from benchmarks.turns import allocator_rows, day_rows
from benchmarks.turns.builds import BEFORE, CommitError
from pagetide.machine.versions import versions
from pagetide.workload.stream import StreamError

_AGAINST_A_COMMIT: dict[str, Callable[[str], Iterable[Row]]] = {"turns": allocator_rows.run, "day": day_rows.run}
_PARTS: dict[str, Callable[[], Iterable[Row]]] = {
    "allocator": guest_allocator.run,
    "next": find_next.run,
    "host": lambda: itertools.chain(discarding.run(), joined.run(), against_qemu.run()),
    "guests": lambda: itertools.chain(many_guests.run(), bad_neighbours.run()),
    "scraping": scraping.run,
    "shown": shown.run,
    "shared": shared.run,
    "simulated": simulated.run,
    "fidelity": fidelity.run,
    "fleet": lambda: itertools.chain(model.run(), three_builds.run(), whole.month(), whole.drawn(whole.MILLION // 10)),
    "cli": command_line.run,
    "why": looking.run,
    "start": starting.run,
    "tend": tending.run,
    **{name: functools.partial(run, BEFORE) for name, run in _AGAINST_A_COMMIT.items()},
}
_ONLY_IF_NAMED: dict[str, Callable[[], Iterable[Row]]] = {"million": lambda: whole.drawn(whole.MILLION)}
_PRIZE = "prize"
_FIGURES = Path(__file__).parent.parent / "docs" / "figures.md"
_EVERY_S = 10.0
_MISSED = 1
_USAGE = 2
_INTERRUPTED = 130


def _line(row: Row) -> str:
    verdict = {None: "", True: "reached", False: "MISSED"}[row.ok]
    return f"{row.name:<58} {row.figure:>16}  {row.target:<14} {verdict:<8} {row.note}".rstrip()


def _duration(since_s: float) -> str:
    minutes, seconds = divmod(round(time.monotonic() - since_s), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _ticking(name: str) -> Iterator[None]:
    """Say every ten seconds that a part is still being measured."""
    start_s, over = time.monotonic(), threading.Event()

    def tick() -> None:
        while not over.wait(_EVERY_S):
            _say(f"measuring: {name}, {_duration(start_s)} so far")

    ticker = threading.Thread(target=tick, name="ticker", daemon=True)
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()


def _measure(name: str, part: Callable[[], Iterable[Row]], print_row: Callable[[str], None], rows: list[Row]) -> None:
    """Measure a part; its rows are printed, and appended, one by one."""
    _say(f"measuring: {name}")
    with _ticking(name):
        for row in part():
            rows.append(row)
            print_row(_line(row))


def _names() -> tuple[str, ...]:
    return (*_PARTS, *_ONLY_IF_NAMED, _PRIZE)


def _known(part: str) -> str:
    if part not in _names():
        raise argparse.ArgumentTypeError(f"there is no part {part!r}, only {', '.join(_names())}")
    return part


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names, asked = ", ".join(_names()), ", ".join(_ONLY_IF_NAMED)
    what = f"what to measure: any of {names}; all but {asked} if none is named"
    parser.add_argument("parts", nargs="*", type=_known, metavar="PART", help=what)
    parser.add_argument(
        "--traces", type=Path, metavar="FOLDER", help=f"page traces for {_PRIZE}, which is left out without them"
    )
    parser.add_argument(
        "--live", metavar="NAME", help=f"replay this one of the traces on real memory, too, in {_PRIZE}"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help=f"draw what came of {_PRIZE} there, as SVG")
    parser.add_argument("--json", action="store_true", help="print JSON at the end; rows go to standard error")
    parser.add_argument(
        "--markdown",
        nargs="?",
        type=Path,
        const=_FIGURES,
        metavar="FILE",
        help="write each part that was measured whole into its section of FILE (docs/figures.md), and keep the others",
    )
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help=f"for {' and '.join(_AGAINST_A_COMMIT)}, what to compare with, instead of the commit of their targets",
    )
    arguments = parser.parse_args(argv)
    if _PRIZE in arguments.parts and arguments.traces is None:
        parser.error(f"{_PRIZE} needs --traces FOLDER, a folder of page traces")
    return arguments


def _write(path: Path, name: str, rows: Sequence[Row]) -> None:
    document = path.read_text() if path.exists() else "# Figures\n"
    path.write_text(with_sections(document, [measured(name, rows)], _names()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks named on the command line, or all.

    Returns:
        0 when no target was missed, otherwise 1; 2 if there is no such commit or no trace; 130 after Ctrl-C, when what
        was measured is told all the same.
    """
    arguments = _parse(argv)
    here, start_s, status = versions(), time.monotonic(), 0
    _say(f"{here['cpu']}, Linux {here['kernel']}")
    rows: list[Row] = []
    parts = _PARTS | _ONLY_IF_NAMED
    if arguments.traces is not None:
        parts[_PRIZE] = lambda: prize.run(arguments.traces, arguments.picture, arguments.live)
    if arguments.against is not None:
        parts |= {name: functools.partial(run, arguments.against) for name, run in _AGAINST_A_COMMIT.items()}
    try:
        for name in dict.fromkeys(arguments.parts) or [name for name in parts if name not in _ONLY_IF_NAMED]:
            begun = len(rows)
            _measure(name, parts[name], _say if arguments.json else lambda line: print(line, flush=True), rows)
            if arguments.markdown is not None:
                _write(arguments.markdown, name, rows[begun:])
    except StreamError as error:
        _say(f"there is no trace to replay: {error}")
        return _USAGE
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except CommitError as error:
        _say(f"there is nothing to compare with: {error}")
        return _USAGE
    if arguments.json:
        print(json.dumps([row._asdict() | {"ok": row.ok} for row in rows], indent=2))
    missed = [row.name for row in rows if row.ok is False]
    ended = "interrupted" if status == _INTERRUPTED else "done"
    _say(f"{ended}: {len(rows)} figures in {_duration(start_s)}; {len(missed)} of their targets missed")
    for name in missed:
        _say(f"  missed: {name}")
    return status or (_MISSED if missed else 0)


if __name__ == "__main__":
    sys.exit(main())
