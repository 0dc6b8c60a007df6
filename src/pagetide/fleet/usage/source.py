"""Where usage comes from, by what was asked for."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb

from pagetide.fleet.usage.archive import take_archive
from pagetide.fleet.usage.canonical import Source, UsageError
from pagetide.fleet.usage.oddities import ODD_SHARE_MAX, RULES, Oddities
from pagetide.fleet.usage.store import Store
from pagetide.fleet.usage.table import Columns, take_table


@contextlib.contextmanager
def recorded(path: Path, columns: Columns) -> Iterator[Source]:
    """Usage that was recorded: the archive's folder, or one file.

    Args:
        path: a folder or a file.
        columns: what the file's columns are called; a folder's are the archive's.

    Raises:
        UsageError: it cannot be read.
    """
    with Store() as store:
        try:
            if path.is_dir():
                take_archive(store, path)
            elif path.is_file():
                take_table(store, path, columns)
            else:
                raise UsageError(f"there is no usage in {path}: it is neither a folder nor a file")
        except duckdb.Error as error:
            raise UsageError(f"{path} cannot be read: {str(error).strip().splitlines()[0]}") from error
        yield store


def refuse_odd(about: str, found: Oddities) -> None:
    """Raise UsageError if too much of what was read is odd."""
    if found.odd_share > ODD_SHARE_MAX:
        counted = {name: count.samples for name, count in found.counts.items() if RULES[name].counts}
        most = max(counted, key=lambda name: counted[name])
        raise UsageError(
            f"{about}: {found.odd_share:.0%} of the samples are odd, and with more than {ODD_SHARE_MAX:.0%} the result "
            f"would be of what is done about them; the most, {counted[most]:,}, are {RULES[most].what}"
        )
