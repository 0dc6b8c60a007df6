"""The table at the end: what was tried, what broke, and which paths were reached, as text or as Markdown."""

import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from soak.part import Part
from soak.state import Failure, State, StateError

_AGAIN = (
    "Made by `make soak ARGS='--minutes 60 --markdown docs/soak.md'`; `--table` makes it of what was done before, in "
    "one soak or several, and `--again` first tries what broke. Another commit may make "
    "something else of a seed."
)
_BROKE, _NOTHING = "## What broke", "Nothing."


def _count(number: int) -> str:
    return f"{number:,}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def _rows(state: State, parts: Sequence[Part]) -> Iterator[tuple[str, str, str, str, str, str]]:
    yield "part", "a trial is", "trials", "minutes", "broke", "paths reached"
    for part in parts:
        done, paths = state.parts.get(part.name), part.paths()
        broke = sum(failure.part == part.name for failure in state.failures)
        if done is None:
            yield part.name, part.what, "0", "0.0", "0", f"0 of {len(paths)}"
        else:
            reached = len(paths & done.reached.keys())
            counts = (_count(done.trials), _minutes(done.seconds), _count(broke), f"{reached} of {len(paths)}")
            yield part.name, part.what, *counts


def _reached(state: State, part: Part) -> tuple[list[str], list[str], list[str]]:
    """What was reached of what should be, what was not, and what else was counted."""
    counts = state.parts[part.name].reached if part.name in state.parts else {}
    paths = part.paths()
    reached = [f"{path} ({_count(counts[path])})" for path in sorted(paths) if path in counts]
    never = sorted(paths - counts.keys())
    return reached, never, [f"{name}: {_count(counts[name])}" for name in sorted(counts.keys() - paths)]


def _about(state: State) -> str:
    commits = ", ".join(state.commits)
    seeds = ", ".join(map(str, (state.first_seed, *state.other_seeds)))
    return f"Linux {platform.release()} on {platform.machine()}, commit {commits}, first seed {seeds}"


def as_text(state: State, parts: Sequence[Part]) -> str:
    """For a terminal: of what was reached only how much, of what was not every path."""
    rows = list(_rows(state, parts))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [_about(state), ""]
    for row in rows:
        cells = [
            cell.ljust(width) if n in {0, 1} else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells))
    for part in parts:
        _, never, others = _reached(state, part)
        if part.name in state.parts and state.parts[part.name].told:
            lines += ["", state.parts[part.name].told]
        lines += ["", f"{part.name}: {'; '.join(others)}"] if others else []
        lines += ["", f"{part.name}, never reached:", *[f"  {path}" for path in never]] if never else []
    for failure in state.failures:
        lines += ["", f"BROKE: {failure.part}, seed {failure.seed}: {failure.what}", f"  replay: {failure.replay}"]
        lines += [f"  tried again: {failure.again}"] if failure.again else []
    return "\n".join(lines)


def as_markdown(state: State, parts: Sequence[Part]) -> str:
    """For docs/soak.md: everything."""
    seconds = sum(done.seconds for done in state.parts.values())
    head, *rows = _rows(state, parts)
    lines = ["# Soak", "", f"What `make soak` tried in {_minutes(seconds)} minutes: {_about(state)}. {_AGAIN}", ""]
    lines += [
        _line(head),
        _line(["---", "---", "--:", "--:", "--:", "--:"]),
        *map(_line, rows),
        *("", _BROKE, ""),
        *(_failures(state.failures) or [_NOTHING]),
    ]
    for part in parts:
        lines += _sections(state, part)
    return "\n".join(lines).rstrip() + "\n"


def _failures(failures: Sequence[Failure]) -> list[str]:
    """A table of them; without any, no line."""
    rows = [
        _line([one.part, str(one.seed), one.what, one.commit, f"`{one.replay}`", one.again or "no"]) for one in failures
    ]
    head = [_line(["part", "seed", "what", "commit", "replay", "tried again"]), _line(["---"] * 6)]
    return [*head, *rows] if rows else []


def _sections(state: State, part: Part, about: str = "") -> list[str]:
    """A part's, each after an empty line: what its last trial found, and which paths it reached."""
    reached, never, others = _reached(state, part)
    told = state.parts[part.name].told if part.name in state.parts else ""
    lines = ["", f"## {part.name}: what the last trial found", "", *([about, ""] if about else []), told]
    lines = lines if told else []
    lines += ["", f"## {part.name}: paths", ""]
    lines += [f"Counted: {'; '.join(others)}.", ""] if others else []
    if reached:
        lines += [f"Reached (how often), {len(reached)}:", "", *[f"- {_plain(path)}" for path in reached], ""]
    lines += [f"Never reached, {len(never)}:", "", *[f"- {_plain(path)}" for path in never]] if never else []
    return lines


def page_to_fold_into(path: Path) -> str:
    """What a page of another soak says.

    Raises:
        StateError: it cannot be read, or has no table of parts.
    """
    try:
        page = path.read_text()
    except (OSError, UnicodeError) as error:
        raise StateError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not any(line.startswith("| ") for line in _parted(page)[0].splitlines()):
        raise StateError(f"{path} has no table of parts; --markdown makes such a page")
    return page


def folded(page: str, state: State, parts: Sequence[Part]) -> str:
    """A page of another soak with what these parts have done, in the place of what it has of them, or at its ends."""
    _, *rows = _rows(state, parts)
    for part, row in zip(parts, rows, strict=True):
        if part.name in state.parts:
            text, *sections = _parted(page)
            if not any(section.startswith(_BROKE) for section in sections):
                sections.insert(0, f"{_BROKE}\n\n{_NOTHING}\n\n")
            others = "".join(
                _with_failures(section, state, part.name) if section.startswith(_BROKE) else section
                for section in sections
                if not section.startswith(f"## {part.name}: ")
            )
            mine = "\n".join(_sections(state, part, f"A soak of its own: {_about(state)}."))
            page = _with_row(text, _line(row), part.name) + others.rstrip() + f"\n{mine}".rstrip() + "\n"
    return page


def _parted(page: str) -> list[str]:
    """What is before its sections, and each of them."""
    return re.split(r"(?m)^(?=## )", page)


def _with_row(text: str, row: str, name: str) -> str:
    """The text with this row in the place of the part's, or behind the last row."""
    lines = text.splitlines()
    rows = [place for place, line in enumerate(lines) if line.startswith("| ")]
    mine = [place for place in rows if lines[place].startswith(f"| {name} |")]
    if mine:
        lines[mine[0]] = row
    else:
        lines.insert(rows[-1] + 1, row)
    return "\n".join(lines).rstrip() + "\n\n"


def _with_failures(section: str, state: State, name: str) -> str:
    """What broke, with a part's failures in the place of those that are there; the other parts' stay."""
    head, *new = _failures([one for one in state.failures if one.part == name]) or [""]
    lines = [line for line in section.splitlines() if not line.startswith(f"| {name} |")]
    rows = [place for place, line in enumerate(lines) if line.startswith("| ")]
    if len(rows) == 2 and not new:  # of the table only its head is left
        lines[rows[0] : rows[1] + 1] = [_NOTHING]
    elif rows:
        lines[rows[-1] + 1 : rows[-1] + 1] = new[1:]
    elif new:
        place = lines.index(_NOTHING) if _NOTHING in lines else 2
        lines[place : place + (_NOTHING in lines)] = [head, *new]
    return "\n".join(lines).rstrip() + "\n\n"


def _plain(text: str) -> str:
    """As Markdown shows it as it is."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"
