"""What a run measured, for people: two tables, and one sentence that says whether all is well."""

from collections.abc import Iterator

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pagetide.machine.config import RunConfig
from pagetide.machine.measure import EATEN_SHARE, still_used_bytes
from pagetide.machine.rest import rest_bytes, why_it_rests
from pagetide.machine.result import Burst, RunResult
from pagetide.units import HUGE_PAGE_BYTES, block_bytes, format_size

_NONE = "–"  # noqa: RUF001 - the dash that stands for a figure that there is not


def problems(result: RunResult) -> list[str]:
    """What is wrong with a run, a sentence each; empty if nothing is."""
    found = []
    if result.outcome not in {"complete", "interrupted"}:
        found.append(result.outcome[:1].upper() + result.outcome[1:] + ".")
    if result.stamp_errors:
        found.append(f"{result.stamp_errors} stamps were wrong: memory in use was discarded or handed out twice.")
    if result.verified_disagrees:
        assert result.checked_bytes is not None
        assert result.verified_bytes is not None
        still_bytes = result.checked_bytes - result.verified_bytes
        why = ""
        if result.config.backing == "hugetmpfs" and block_bytes(result.config.order) < HUGE_PAGE_BYTES:
            why = ": the kernel did not split a 2 MiB page of which a part was free; --order 9 reports whole ones"
        found.append(f"{format_size(still_bytes)} were still there after the host had discarded them{why}.")
    if result.skipped_bytes and result.skipped_bytes.get("failed"):
        found.append(f"{format_size(result.skipped_bytes['failed'])} could not be discarded.")
    return found


def verdict(result: RunResult) -> str:
    """One or more sentences in plain words, made from the figures."""
    found = problems(result)
    if found:
        return " ".join(found)
    sentences = []
    if result.outcome == "interrupted":
        sentences.append("The run was interrupted; this is what it had measured.")
    sentences += _what_came_back(result)
    if result.checked_bytes and result.discarded_bytes:
        share = result.checked_bytes / result.discarded_bytes
        which = "Every discarded byte" if share == 1 else f"{share:.0%} of the discarded was checked, and all of that"
        sentences.append(f"{which} was verified to be gone.")
    if result.stamp_errors == 0:
        sentences.append("No stamp was wrong.")
    return " ".join(sentences) or "Nothing was measured."


def _what_came_back(result: RunResult) -> Iterator[str]:
    lags = [burst.return_lag_s for burst in result.bursts]
    stayed_bytes = _stayed(result)
    if lags and all(lag is not None for lag in lags):
        worst_s = max(lag for lag in lags if lag is not None)
        rest = max(map(_rest, result.bursts, stayed_bytes))
        but = f", but for up to {format_size(rest)}{_by_design(result.config, rest)}" if rest else ""
        when = f"within {_seconds(worst_s)}" if worst_s else "by the time that it was freed"
        yield f"After each burst the host had its memory back {when}{but}."
    elif lags:
        pairs = zip(stayed_bytes, result.bursts, strict=True)
        most, eaten = max((stayed, burst.eaten_bytes) for stayed, burst in pairs if burst.return_lag_s is None)
        why = _by_design(result.config, most)
        held = f"up to {format_size(most)} of a burst of {format_size(eaten)} stayed{why}"
        never = sum(lag is None for lag in lags)
        if result.config.design == "off":
            yield f"Nothing was reported, so the host kept what the guest freed: {held}."
        elif never == len(lags):
            yield f"The host did not get its memory back: {held}."
        else:
            yield f"The host had its memory back after {len(lags) - never} of {len(lags)} bursts; {held}."
    elif result.mean_resident_bytes is not None and result.mean_used_bytes is not None:
        held, used = format_size(result.mean_resident_bytes), format_size(result.mean_used_bytes)
        yield f"On average the host held {held} while the guest used {used}."
    if result.false_ooms:
        yield f"{result.false_ooms} allocations failed falsely, for want of what was out for reporting."
    if result.dropped_bytes:
        yield f"Hints of {format_size(result.dropped_bytes)} were dropped."


def _stayed(result: RunResult) -> list[int]:
    """What of each burst was not returned although it was free."""
    used = still_used_bytes(result.samples, result.bursts)
    pairs = zip(result.bursts, used, strict=True)
    return [max(0, burst.eaten_bytes - burst.returned_bytes - used_bytes) for burst, used_bytes in pairs]


def _rest(burst: Burst, stayed_bytes: int) -> int:
    """What of a burst that came back stayed nevertheless, if it is worth a word."""
    return stayed_bytes if stayed_bytes > EATEN_SHARE * burst.eaten_bytes else 0


def _by_design(config: RunConfig, stayed_bytes: int) -> str:
    """Why it stayed, where that is the design's way."""
    return f", which {why_it_rests(config)}" if stayed_bytes <= rest_bytes(config) else ""


def _back_after(burst: Burst, stayed_bytes: int) -> str:
    if burst.return_lag_s is None:
        return "never"
    lag = _seconds(burst.return_lag_s) if burst.return_lag_s else "at once"
    return f"{lag}, but {format_size(rest)}" if (rest := _rest(burst, stayed_bytes)) else lag


def summarise(result: RunResult) -> Group:
    """The tables and the closing sentence."""
    style = "bold red" if problems(result) else "bold"
    bursts = [_bursts(result)] if result.bursts else [Text()]
    return Group(*bursts, _totals(result), Text(), Text(verdict(result), style=style))


def _bursts(result: RunResult) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("burst", "eaten", "returned", "back after"):
        table.add_column(heading, justify="right")
    for number, (burst, stayed_bytes) in enumerate(zip(result.bursts, _stayed(result), strict=True), 1):
        sizes = (burst.eaten_bytes, burst.returned_bytes)
        table.add_row(str(number), *map(format_size, sizes), _back_after(burst, stayed_bytes))
    return table


def _totals(result: RunResult) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    rows = list(_rows(result))
    half = -(-len(rows) // 2)
    for index in range(half):
        right = rows[half + index] if half + index < len(rows) else ("", "")
        table.add_row(*rows[index], *right)
    for column in (1, 3):
        table.columns[column].justify = "right"
    return table


def _rows(result: RunResult) -> Iterator[tuple[str, str]]:
    if result.machine != "live":
        yield "machine", result.machine
    yield "returned", _size(result.returned_bytes)
    yield "host held at most", format_size(result.peak_resident_bytes)
    yield "host held at least", format_size(result.floor_resident_bytes)
    if result.mean_resident_bytes is not None and result.mean_used_bytes is not None:
        yield "host held on average", format_size(result.mean_resident_bytes)
        yield "guest used on average", format_size(result.mean_used_bytes)
    if result.return_lag_s_mean is not None:
        yield "a freed byte was back after", _seconds(result.return_lag_s_mean)
    if result.behind_s_max is not None:
        yield "operations late at most", _seconds(result.behind_s_max)
    yield "reports", _count(result.reports)
    yield "reported", _size(result.reported_bytes)
    yield "discarded", _size(result.discarded_bytes)
    yield "verified gone", _size(result.verified_bytes)
    for reason, skipped_bytes in (result.skipped_bytes or {}).items():
        if skipped_bytes:
            yield f"skipped, {reason.replace('_', ' ')}", format_size(skipped_bytes)
    yield "refaulted", _size(result.refaulted_bytes)
    yield "blocks isolated at most", _count(result.isolated_blocks_max)
    yield "vCPU waited for host at most", _optional_seconds(result.vcpu_wait_host_s_max)
    yield from _rare_rows(result)
    yield "zone lock waited for at most", _optional_seconds(result.zone_lock_wait_s_max)
    yield "wrong stamps", _count(result.stamp_errors)
    yield "guest CPU time", _optional_seconds(result.guest_cpu_s)
    if result.reporting_cpu_s is not None:
        yield "of that for reporting", _optional_seconds(result.reporting_cpu_s)
    yield "host CPU time", _optional_seconds(result.host_cpu_s)


def _rare_rows(result: RunResult) -> Iterator[tuple[str, str]]:
    """What most runs have nothing of."""
    if result.repeated_bytes:
        yield "reported again untouched", format_size(result.repeated_bytes)
    if result.false_ooms:
        yield "false OOMs", str(result.false_ooms)
    if result.dropped_bytes:
        yield "dropped hints, of", format_size(result.dropped_bytes)
    if result.zone_lock_hold_s_max:
        yield "reporting held lock at most", _seconds(result.zone_lock_hold_s_max)


def _size(value_bytes: int | None) -> str:
    return _NONE if value_bytes is None else format_size(value_bytes)


def _count(value: int | None) -> str:
    return _NONE if value is None else str(value)


def _optional_seconds(value_s: float | None) -> str:
    return _NONE if value_s is None else _seconds(value_s)


def _seconds(value_s: float) -> str:
    if value_s >= 1:
        return f"{value_s:.2f} s"
    return f"{value_s * 1e3:.1f} ms" if value_s >= 1e-3 else f"{value_s * 1e6:.0f} µs"
