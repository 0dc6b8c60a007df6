"""`pagetide report`: the report of a folder of results again, or their tables for other programs."""

import sys
from pathlib import Path

import msgspec

from pagetide.commands.status import STATUS_OK
from pagetide.compare.report.tables import configurations_table, runs_table, write_csv_folder
from pagetide.compare.results.store import Store
from pagetide.machine.config_error import ConfigError
from pagetide.whole_file import write_whole, written_whole


def report(folder: Path, json_path: str | None, csv_path: str | None, markdown_path: str | None = None) -> int:
    """Write the report of a folder, or with a path the tables or the conclusions instead; an exit status.

    Args:
        folder: where `pagetide compare` wrote its results.
        json_path: a file for all tables as JSON, `-` for standard output, or None.
        csv_path: a file for the table of runs as CSV if it ends in `.csv`, `-` for standard output, otherwise a folder
            for all tables; or None.
        markdown_path: a file for findings and advice as Markdown, `-` for standard output, or None.

    Raises:
        ResultsError: there are no results, or they cannot be read.
        OSError: a file cannot be written; its filename says which.
    """
    if json_path is None and csv_path is None and markdown_path is None:
        from pagetide.commands.compare import write_report

        Store.open(folder, read_only=True).close()
        write_report(folder)
        return STATUS_OK
    with Store.open(folder, read_only=True) as store:
        if json_path is not None:
            _write_json(store, json_path)
        if csv_path is not None:
            _write_csv(store, csv_path)
        if markdown_path is not None:
            from pagetide.compare.report.documents import markdown

            _write_text(markdown(store), markdown_path)
    return STATUS_OK


def _write_json(store: Store, path: str) -> None:
    runs = store.runs()
    tables = {
        "runs": runs_table(runs).dicts(),
        "configurations": configurations_table(runs).dicts(),
        "left_out": [one._asdict() for one in store.left_out()],
        "planned": len(store.planned()),
    }
    written = msgspec.json.format(msgspec.json.encode(tables), indent=2) + b"\n"
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(written)
        sys.stdout.flush()
    else:
        write_whole(Path(path), written)


def _write_text(text: str, path: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_whole(Path(path), text.encode())


def _write_csv(store: Store, path: str) -> None:
    if path == "-":
        runs_table(store.runs()).write_csv(sys.stdout)
        sys.stdout.flush()
    elif path.endswith(".csv"):
        with written_whole(Path(path)) as file:
            runs_table(store.runs()).write_csv(file)
    elif Path(path).exists() and not Path(path).is_dir():
        raise ConfigError(f"{path} is no folder for the tables: give one, or a file *.csv for the table of runs alone")
    else:
        write_csv_folder(store, Path(path))
