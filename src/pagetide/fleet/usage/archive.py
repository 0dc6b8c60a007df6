"""The Grid Workloads Archive's Bitbrains traces (GWA-T-12) as published: a folder with a file a VM.

Each file has a heading and eleven columns with `;` and a tab between; memory is in KB of 1024 bytes. The heading says
that times are milliseconds, and they are seconds. Published by TU Delft; S. Shen, V. van Beek, A. Iosup: Statistical
Characterization of Business-Critical Workloads Hosted in Cloud Datacenters, CCGrid 2015. "Memory usage" is what the
hypervisor saw actively used.
"""

from pathlib import Path

from pagetide.fleet.usage.canonical import UsageError
from pagetide.fleet.usage.store import Origin, Store
from pagetide.fleet.usage.text import heading, rows

_WANTED = {
    "time": "Timestamp [ms]",
    "capacity": "Memory capacity provisioned [KB]",
    "used": "Memory usage [KB]",
}
_COLUMNS = 11


def take_archive(store: Store, folder: Path) -> None:
    """Read such a folder.

    Raises:
        UsageError: it has no such files, or one of them is not whole.
    """
    files = sorted(folder.glob("*.csv"))
    if not files:
        below = sorted({path.parent.name for path in folder.glob("*/*.csv")})
        more = f": give one of its folders {', '.join(below)}" if below else ""
        raise UsageError(f"{folder} has no CSV files of the Grid Workloads Archive{more}")
    headings = {path: heading(path) for path in files}
    first = headings[files[0]]
    for path, (separator, columns) in headings.items():
        missing = [name for name in _WANTED.values() if name not in columns]
        if separator != ";" or missing or len(columns) != _COLUMNS:
            what = f"no column {missing[0]!r}" if missing else f"{len(columns)} columns with {separator!r} between"
            raise UsageError(f"{path}, line 1 is no heading of the archive's Bitbrains traces: it has {what}")
        if columns != first[1]:
            raise UsageError(f"{path}, line 1 has other columns than {files[0].name}")
    query = rows(";", first[1], _WANTED, 1024, "parse_filename(filename, true)")
    store.take(
        query,
        [[str(path) for path in files]],
        Origin(f"{folder}, {len(files)} files of the Grid Workloads Archive", is_text=True, heading_unit="ms"),
    )
