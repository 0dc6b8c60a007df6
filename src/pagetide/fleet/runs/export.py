"""What came of a fleet as files for other programs: Parquet, by DuckDB, and CSV."""

from pathlib import Path

import duckdb

from pagetide.fleet.runs.store import FIGURE_COLUMNS, Results
from pagetide.workers.database import not_written

_FIGURES = ", ".join(FIGURE_COLUMNS)

_QUERIES = {
    "held": "SELECT name AS setting, step, sum(held_bytes)::DOUBLE AS held_bytes FROM steps JOIN jobs USING (job) "
    "GROUP BY jobs.setting, name, step ORDER BY jobs.setting, step",
    "vms": f"SELECT name AS setting, vm, part, reserved_bytes, {_FIGURES} FROM vms JOIN jobs USING (job) "  # noqa: S608 - our own names
    "ORDER BY jobs.setting, job, vms.rowid",
    "plans": "SELECT name AS setting, plan, draw, sum(vms)::BIGINT AS vms, sum(hosts)::BIGINT AS hosts, "
    "sum(host_steps)::BIGINT AS host_steps, sum(pressed_steps)::BIGINT AS pressed_steps, sum(begun)::BIGINT AS begun, "
    "sum(over_byte_steps)::DOUBLE AS over_byte_steps, max(over_most_bytes) AS over_most_bytes "
    "FROM placed JOIN jobs USING (job) GROUP BY jobs.setting, name, plan, draw ORDER BY jobs.setting, plan, draw",
    "hosts": "SELECT name AS setting, plan, host, span, share FROM heat JOIN jobs USING (job) "
    "ORDER BY jobs.setting, plan, host, span",
}
"""Each file's rows."""

_FORMATS = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv, HEADER"}


def export(results: Results) -> list[Path]:
    """Write the tables beside the database, each as Parquet and as CSV; their paths.

    Raises:
        ResultsError: they cannot be written.
    """
    paths = []
    for name, query in _QUERIES.items():
        for suffix, options in _FORMATS.items():
            path = results.folder / f"{name}.{suffix}"
            quoted = str(path).replace("'", "''")
            try:
                results.database.execute(f"COPY ({query}) TO '{quoted}' ({options})")
            except duckdb.Error as error:
                raise not_written(results.folder, error) from error
            paths.append(path)
    return paths
