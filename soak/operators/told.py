"""What a shift found, as Markdown."""

from collections.abc import Iterable, Sequence

from pagetide.units import format_size
from soak.operators.alarms import Judged
from soak.operators.books import Account, Books
from soak.operators.growth import Growth, in_bytes
from soak.operators.shift import Found

_GROWTH = ("figure", "begins at", "ends at", "grows in an hour by")
_ALERT = ("guest", "fault", "alert", "fired after", "went on for")
_BOOKS = (
    *("guest", "boots", "reported", "discarded", "skipped", "inflated"),
    *("free in it", "held", "blocks", "in vain"),
)
_FALSE = "fired without a fault"
_NO_OTHER = "No other alert fired."
_TABLES = {
    "growth": (
        "Growth by itself: a linear fit over time and over how many guests are attached, to means of 24 blocks after "
        "the first 15 % of the time, with its interval at 95 %. RssAnon, RssFile and RssShmem are parts of RSS: a "
        "process's own memory, what it has read of programs and libraries, and guests' memory that it has looked at."
    ),
    "alerts": (
        "Alerts: after how long each began to fire, and for how long it went on once the fault was mended. A stranger "
        "is a played front-end, a vm a real guest."
    ),
    "books": (
        "Books, of each guest's last boot: what it reported is what was discarded and what was skipped, and what the "
        "host holds is what the guest uses and a rest (*in vain*). *Blocks* are its memory file's own."
    ),
}


def as_markdown(found: Found) -> str:
    """Slopes, alerts, books and what was done, each as a table."""
    kinds = sorted({books.kind for books in found.books})
    guests = ", ".join(f"{sum(books.kind == kind for books in found.books)} {kind}" for kind in kinds)
    rules = "as they are" if found.scale == 1 else f"with all their times divided by {found.scale:.1f}"
    head = (
        f"Seed {found.seed}: {guests}, for {found.minutes:.0f} minutes, with the rules of `deploy/prometheus` {rules}. "
        f"What was not as it must be: {'; '.join(found.wrong) or 'nothing'}."
    )
    alerts = _TABLES["alerts"] if any(_FALSE in wrong for wrong in found.wrong) else f"{_TABLES['alerts']} {_NO_OTHER}"
    lines = [
        *(head, "", _TABLES["growth"], "", *_table(_GROWTH, map(_growth, found.growths.items()))),
        *("", alerts, "", *_table(_ALERT, map(_alert, found.judged))),
        *("", _TABLES["books"], "", *_table(_BOOKS, map(_books, found.books))),
        *("", f"Done: {'; '.join(f'{what}: {times:,}' for what, times in sorted(found.done.items()))}."),
    ]
    return "\n".join(lines)


def _growth(named: tuple[str, Growth]) -> Sequence[str]:
    name, each = named
    if in_bytes(name):
        begin, end = (f"{value / (1 << 20):.1f} MiB" for value in (each.start, each.end))
        return name, begin, end, f"{each.per_hour / 1024:+.0f} ± {each.by_per_hour / 1024:.0f} KiB"
    return name, f"{each.start:.1f}", f"{each.end:.1f}", f"{each.per_hour:+.2f} ± {each.by_per_hour:.2f}"


def _alert(judged: Judged) -> Sequence[str]:
    one, firing = judged
    told = ["never", ""]
    if firing is not None:
        told = [f"{firing.start_s - one.began_s:.0f} s", f"{firing.end_s - one.ended_s:.0f} s"]
    return one.guest, one.fault.name, one.fault.alert, *told


def _books(books: Books) -> Sequence[str]:
    reported, inflated = (books.accounts[name] for name in ("reported", "inflated"))
    return (
        books.guest,
        str(books.boots),
        *(format_size(size) for size in (reported.named, reported.discarded)),
        _skipped(reported),
        format_size(inflated.named),
        *(format_size(size) for size in (books.free, books.held, books.blocks, books.in_vain)),
    )


def _skipped(account: Account) -> str:
    return ", ".join(f"{format_size(size)} {reason}" for reason, size in account.skipped.items()) or "0 B"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
