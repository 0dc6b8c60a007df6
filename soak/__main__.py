"""Try what is too long for every change, for a set time: hostile rings and messages, kills, stamps, the explorer.

What was done is kept in a folder, from which the next soak goes on. The part with the least time so far is next.
Ctrl-C ends it with the table so far. Each failure is shown with the command that tries its seed again.
"""

import argparse
import math
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pagetide.whole_file import write_whole
from soak.abandoned import Abandoned
from soak.explored import Explored
from soak.kills import Kills
from soak.messages import Messages
from soak.operators.part import Operators
from soak.part import CutShortError, Part, reason
from soak.rings import Rings
from soak.stamps import Stamps
from soak.state import Done, Failure, State, StateError, load, save
from soak.table import as_markdown, as_text, folded, page_to_fold_into

PARTS: dict[str, type[Part]] = {
    part.name: part for part in (Explored, Rings, Messages, Kills, Abandoned, Stamps, Operators)
}
STATUS_BROKE, STATUS_USAGE, STATUS_INTERRUPTED = 1, 2, 130
_FAILURES_MAX = 20
"""Of one part in one soak: one that always fails is not tried for ever."""
_PASSED = "nothing broke"
_SHOW_S = 1.0
_MINUTES = 10.0
_REPLAY_MAX_S = 3600.0


def _commit() -> str:
    """The tree that is run, with a + if it has been changed."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return found.stdout.strip() or "unknown"


class Soak:
    """Parts that take turns, and what they have done.

    Attributes:
        state: all that is kept.
        broke: failures that this soak has seen.
    """

    def __init__(self, parts: Sequence[Part], folder: Path, slice_s: float) -> None:
        """Go on from what the folder has."""
        self.parts, self.state, self.broke = parts, load(folder), 0
        self._folder, self._slice_s, self._commit = folder, slice_s, _commit()
        self._failed: Counter[str] = Counter()
        self._out_of_time: set[str] = set()
        if self._commit not in self.state.commits:
            self.state.commits.append(self._commit)

    def run(self, until_s: float) -> None:
        """Give the part with the least time a slice, until the time is over."""
        save(self.state, self._folder)
        while time.monotonic() < until_s:
            able = [part for part in self.parts if self._is_able(part)]
            if not able:
                break
            part = min(able, key=lambda part: self._done(part).seconds)
            self._slice(part, until_s)

    def _is_able(self, part: Part) -> bool:
        return part.name not in self._out_of_time and self._failed[part.name] < _FAILURES_MAX

    def _done(self, part: Part) -> Done:
        return self.state.parts.setdefault(part.name, Done())

    def _slice(self, part: Part, until_s: float) -> None:
        """Trials for as long as a slice is, or up to the first that fails."""
        done, reached = self._done(part), Counter[str]()
        start_s = time.monotonic()
        trials = done.trials
        first = seed = self.state.first_seed + trials
        end_s, shown_s, left_s = min(start_s + self._slice_s, until_s), 0.0, until_s - start_s
        try:
            with part.session(reached, until_s) as trial:
                while (now_s := time.monotonic()) < end_s or (seed == first and now_s < until_s):
                    if now_s - shown_s > _SHOW_S:
                        self._show(part, seed, until_s - now_s)
                        shown_s = now_s
                    left_s = until_s - now_s
                    trial(seed)
                    done.trials += 1
                    seed += 1
        except CutShortError:
            self._out_of_time.add(part.name)  # there will be no more of it
        except Exception as error:
            done.trials += 1
            self._fail(part, seed, reason(error), left_s)
        finally:
            done.seconds += time.monotonic() - start_s
            done.count(reached)
            done.told = part.told() or done.told
            save(self.state, self._folder)
        self._say(
            f"{part.name}: {done.trials - trials} trials up to seed {seed - 1} in {time.monotonic() - start_s:.0f} s"
        )

    def _fail(self, part: Part, seed: int, what: str, left_s: float) -> None:
        self.broke += 1
        self._failed[part.name] += 1
        minutes = math.ceil(left_s / 60 * 100) / 100 if part.takes_all else None
        command = part.replay(seed) + (f" --minutes {minutes:.2f}" if minutes is not None else "")
        failure = Failure(part.name, seed, what, command, self._commit, minutes=minutes)
        self.state.failures.append(failure)
        self._say(f"BROKE: {part.name}, seed {seed}: {what}\n  replay: {failure.replay}")

    def _show(self, part: Part, seed: int, left_s: float) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{part.name}: seed {seed}, {left_s / 60:.1f} min left", end="", file=sys.stderr, flush=True)

    def _say(self, line: str) -> None:
        print(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def replay(part: Part, seed: int, reached: Counter[str], max_s: float = _REPLAY_MAX_S) -> str | None:
    """Try one seed, for so long at most; what that broke."""
    try:
        with part.session(reached, time.monotonic() + max_s) as trial:
            trial(seed)
    except Exception as error:
        return reason(error)
    return None


def _check(parts: Sequence[Part]) -> None:
    """Raise StateError if this machine has not what they need."""
    for part in parts:
        if lacking := part.lacking():
            raise StateError(lacking)


def _try_one(part: Part, seed: int, max_s: float) -> int:
    """Try one seed and say what came of it; 1 if that broke something."""
    reached: Counter[str] = Counter()
    broke = replay(part, seed, reached, max_s)
    if part.told():
        print(part.told(), end="\n\n")
    print(f"{part.name}, seed {seed}: {broke or _PASSED}; reached {', '.join(sorted(reached)) or 'nothing'}")
    return STATUS_BROKE if broke else 0


def _try_again(folders: Sequence[Path], parts: Sequence[Part]) -> None:
    """Try all failures again, and keep what came of it."""
    commit = _commit()
    for folder in folders:
        state = load(folder)
        for failure in state.failures:
            for part in parts:
                if part.name == failure.part:
                    _check([part])
                    max_s = _REPLAY_MAX_S if failure.minutes is None else 60 * failure.minutes
                    broke = replay(part, failure.seed, Counter(), max_s)
                    failure.again = f"at {commit}: {broke or _PASSED}"
                    print(f"{failure.part}, seed {failure.seed}: {failure.again}", file=sys.stderr, flush=True)
        save(state, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, help=f"how long ({_MINUTES:g}; with --seed, at most: {_REPLAY_MAX_S / 60:g})")
    add("--part", action="append", choices=list(PARTS), help="only this part; may be given more than once")
    add("--seed", type=int, help="with one --part: try only this seed")
    add(
        "--state",
        type=Path,
        action="append",
        metavar="FOLDER",
        help="what was done so far (.soak); several for --table",
    )
    add("--slice", type=float, default=60.0, metavar="SECONDS", help="how long a part goes on at a time (%(default)g)")
    add("--markdown", type=Path, metavar="FILE", help="write the table to this file, too")
    add("--into", type=Path, metavar="FILE", help="put the rows and sections of these parts into this page of others")
    add("--again", action="store_true", help="try only what has broken, again, and make the table with what came of it")
    add(
        "--table",
        action="store_true",
        help="try nothing; make the table of what was done so far, in all folders of --state",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Soak; 0 if nothing broke, 1 if something did, 2 for bad arguments, 130 after Ctrl-C."""
    parser = _parser()
    chosen = parser.parse_args(argv)
    only_shown = chosen.table or chosen.again
    usual = [name for name, part in PARTS.items() if only_shown or not part.takes_all]
    names = list(dict.fromkeys(chosen.part or usual))
    if chosen.seed is not None and len(names) != 1:
        parser.error("--seed wants one --part")
    folders = chosen.state or [Path(".soak")]
    if len(folders) > 1 and not only_shown:
        parser.error("several --state are for --table and --again")
    parts = [PARTS[name]() for name in names]
    max_s = _REPLAY_MAX_S if chosen.minutes is None else 60 * chosen.minutes
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if chosen.seed is not None:
            _check(parts)
            return _try_one(parts[0], chosen.seed, max_s)
        if chosen.into is not None:
            page_to_fold_into(chosen.into)  # that it cannot be is not to be found out after the soak
        if chosen.again:
            _try_again(folders, parts)
        if only_shown:
            state = load(folders[0])
            for folder in folders[1:]:
                state.add(load(folder))
            _show_table(state, parts, chosen.markdown, chosen.into)
            now = [failure for failure in state.failures if not failure.again.endswith(_PASSED)]
            return STATUS_BROKE if now else 0
        _check(parts)
        soak = Soak(parts, folders[0], chosen.slice)
        interrupted = _soak_for(soak, _MINUTES if chosen.minutes is None else chosen.minutes)
        _show_table(soak.state, parts, chosen.markdown, chosen.into)
    except StateError as error:
        print(f"soak: {error}", file=sys.stderr)
        return STATUS_USAGE
    return STATUS_BROKE if soak.broke else STATUS_INTERRUPTED if interrupted else 0


def _soak_for(soak: Soak, minutes: float) -> bool:
    """Soak; whether Ctrl-C ended it."""
    print(f"soak: {minutes:g} min, first seed {soak.state.first_seed}", file=sys.stderr, flush=True)
    try:
        soak.run(time.monotonic() + 60 * minutes)
    except KeyboardInterrupt:
        return True
    return False


def _show_table(state: State, parts: Sequence[Part], markdown: Path | None, into: Path | None) -> None:
    print(as_text(state, parts))
    if markdown is not None:
        _write(markdown, as_markdown(state, parts))
    if into is not None:
        _write(into, folded(page_to_fold_into(into), state, parts))


def _write(path: Path, page: str) -> None:
    try:
        write_whole(path, page.encode())
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
