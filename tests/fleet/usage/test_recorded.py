"""Recorded usage: the archive's folder, one file, and what is refused with which sentence."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from pagetide.fleet.usage.canonical import Grid, Usage, UsageError
from pagetide.fleet.usage.oddities import Oddities
from pagetide.fleet.usage.source import recorded, refuse_odd
from pagetide.fleet.usage.table import Columns

HEADING = (
    "Timestamp [ms];\tCPU cores;\tCPU capacity provisioned [MHZ];\tCPU usage [MHZ];\tCPU usage [%];\t"
    "Memory capacity provisioned [KB];\tMemory usage [KB];\tDisk read throughput [KB/s];\t"
    "Disk write throughput [KB/s];\tNetwork received throughput [KB/s];\tNetwork transmitted throughput [KB/s]"
)
START_S = 1_375_308_000


def archive_line(time_s: int, capacity_kb: float, used_kb: float) -> str:
    """A line as the archive has it."""
    return ";\t".join(map(str, (time_s, 2, 5200.0, 26.0, 0.5, capacity_kb, used_kb, 0.0, 1.5, 0.1, 0.2)))


def archive(folder: Path, **files: Sequence[str]) -> Path:
    """A folder of such files, by the VMs' names."""
    for name, lines in files.items():
        (folder / f"{name.removeprefix('vm')}.csv").write_text("\n".join([HEADING, *lines]) + "\n")
    return folder


def steady(vm_kb: float, count: int = 4) -> list[str]:
    """Lines of a VM of 4096 KB that always uses the same."""
    return [archive_line(START_S + 300 * step, 4096.0, vm_kb) for step in range(count)]


def read(path: Path, **columns: Any) -> tuple[Usage, Oddities]:
    """All of it."""
    with recorded(path, Columns(**columns)) as source:
        return source.read(0, len(source.vms))


def sentence(path: Path, **columns: Any) -> str:
    """What is said when it is refused."""
    with pytest.raises(UsageError) as refused:
        read(path, **columns)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_archives_folder_is_read_as_published(tmp_path: Path) -> None:
    """A file a VM, in the order of their numbers; KB are KiB; times are seconds whatever the heading says."""
    usage, odd = read(archive(tmp_path, vm10=steady(1024.0), vm2=steady(2048.5, count=3)))
    assert usage.grid == Grid(START_S, 300, 4)
    assert usage.vms == ("2", "10")
    assert usage.capacity_bytes[1].tolist() == [4 << 20] * 4
    assert usage.used_bytes.tolist() == [[2048.5 * 1024] * 3 + [0.0], [1 << 20] * 4]
    assert usage.valid.tolist() == [[True] * 3 + [False], [True] * 4]
    assert (list(odd.counts), odd.counts["unit"].samples, odd.odd_share) == (["unit"], 7, 0.0)


def test_a_part_of_the_vms_is_read_alone(tmp_path: Path) -> None:
    """What is read in parts is what is read at once; what is odd in the whole is told once."""
    folder = archive(tmp_path, vm1=steady(1.0), vm2=steady(2.0), vm3=steady(3.0))
    with recorded(folder, Columns()) as source:
        parts = [source.read(first, first + 1) for first in range(3)]
        whole, odd = source.read(0, 3)
    assert np.array_equal(np.concatenate([part.used_bytes for part, _ in parts]), whole.used_bytes)
    assert [part.counts for _, part in parts] == [odd.counts, {}, {}]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([archive_line(START_S, -4096.0, 1.0)], "1.csv, line 6 has a negative capacity"),
        ([archive_line(START_S, 4096.0, -1.0)], "1.csv, line 6 has negative memory in use"),
        (["", "1375308900;\t2;\t52"], "1.csv, line 7 has not as many columns as its heading"),
        ([archive_line(START_S, 4096.0, 1.0) + ";\t7"], "1.csv, line 6 has not as many columns as its heading"),
        ([archive_line(START_S, 4096.0, 1.0).replace("1.0;", "none;")], "1.csv, line 6 has no use that can be read"),
        ([archive_line(START_S, 4096.0, float("nan"))], "1.csv, line 6 has no use that can be read"),
        ([archive_line(-5, 4096.0, 1.0)], "1.csv, line 6 has a time before 0"),
        (["2013-08-01 00:00:00+02" + archive_line(0, 1.0, 1.0)[1:]], "1.csv, line 6 has a time with a time zone"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, lines: list[str], said: str) -> None:
    """One sentence with file and line, though there are other files and the lines before it are good."""
    folder = archive(tmp_path, vm0=steady(1.0), vm1=[*steady(1.0), *lines], vm2=steady(1.0))
    assert said in sentence(folder)


def test_a_folder_without_such_files_is_refused(tmp_path: Path) -> None:
    """It is said that there are none, where there are some, and what another file is instead."""
    assert "has no CSV files" in sentence(tmp_path)
    (tmp_path / "2013-8").mkdir()
    archive(tmp_path / "2013-8", vm1=steady(1.0))
    assert "give one of its folders 2013-8" in sentence(tmp_path)
    (tmp_path / "a.csv").write_text("time;vm\n1;2\n")
    assert "a.csv, line 1 is no heading of the archive's Bitbrains traces: it has no column" in sentence(tmp_path)
    (tmp_path / "a.csv").write_text("")
    assert "a.csv, line 1 is no heading" in sentence(tmp_path)
    assert "neither a folder nor a file" in sentence(tmp_path / "none")


def test_an_archive_whose_lines_are_out_of_order_is_sorted(tmp_path: Path) -> None:
    """The values are those of the sorted file, and it is counted."""
    lines = [*steady(1.0)[:2], archive_line(START_S + 900, 4096.0, 4.0), archive_line(START_S + 600, 4096.0, 3.0)]
    usage, odd = read(archive(tmp_path, vm1=lines))
    assert usage.used_bytes[0].tolist() == [1024.0, 1024.0, 3072.0, 4096.0]
    assert odd.counts["backwards"].samples == 1


def parquet(path: Path, query: str) -> Path:
    """What a query gives, as a Parquet file."""
    with duckdb.connect() as database:
        database.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path


ROWS = "SELECT 'a' AS vm, i * 60 AS time_s, 8 AS capacity_bytes, i AS used_bytes FROM range(5) t(i)"


def test_one_file_has_its_columns_named(tmp_path: Path) -> None:
    """The same from Parquet and CSV, with names and units of their own; the step is the data's."""
    query = "SELECT 'a' AS host, to_timestamp(i * 60)::TIMESTAMP AS at, 8 AS ram, i AS active FROM range(5) t(i)"
    named = {"vm": "host", "time": "at", "capacity": "ram", "used": "active", "memory_unit": "MiB"}
    usage, odd = read(parquet(tmp_path / "a.parquet", query), **named)
    assert (usage.grid, usage.vms, odd) == (Grid(0, 60, 5), ("a",), Oddities(5))
    assert usage.used_bytes[0].tolist() == [float(step << 20) for step in range(5)]
    text = "at,host,ram,active\n" + "".join(f'1970-01-01 00:0{i}:00,"a", 8 ,{i}\n' for i in range(5))
    (tmp_path / "a.csv").write_text(text)
    again, _ = read(tmp_path / "a.csv", **named)
    assert again.grid == usage.grid
    assert np.array_equal(again.used_bytes, usage.used_bytes)


@pytest.mark.parametrize(("factor", "unit"), [(1, "s"), (1000, "ms"), (10**6, "us"), (10**9, "ns")])
def test_the_unit_of_time_is_told_by_its_size(tmp_path: Path, factor: int, unit: str) -> None:
    """Unix times of any unit are taken for what they are; a unit that is said is believed."""
    query = ROWS.replace("i * 60 AS time_s", f"({START_S} + i * 60) * {factor} AS time_s")
    path = parquet(tmp_path / "a.parquet", query)
    assert read(path)[0].grid == read(path, time_unit=unit)[0].grid == Grid(START_S, 60, 5)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (ROWS.replace("i AS used", "2 - i AS used"), "a.parquet, row 4 has negative memory in use"),
        (ROWS.replace("i * 60", "(4 - i) * 60"), "a.parquet, row 2 is earlier than the line before it"),
        (ROWS.replace("i * 60 AS", "to_timestamp(i * 60) AS"), "the column time_s has a time zone"),
        (ROWS.replace("8 AS", "'8' AS"), "the column capacity_bytes is VARCHAR, and not a number"),
        (ROWS.replace("8 AS capacity", "8 AS ram"), "has no column 'capacity_bytes' but vm, time_s, ram_bytes"),
        (ROWS.replace("'a' AS", "nullif('a', CASE i WHEN 3 THEN 'a' END) AS"), "a.parquet, row 4 has no VM"),
        (ROWS.replace("range(5)", "range(0)"), "has no samples"),
        (ROWS.replace("range(5)", "range(1)"), "has no VM with samples of two instants"),
        (ROWS.replace("i * 60", "CASE i WHEN 4 THEN 10000000000 ELSE i END"), "is the unit of time right?"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, query: str, said: str) -> None:
    """One sentence each, with the row where there is one."""
    assert said in sentence(parquet(tmp_path / "a.parquet", query), is_sorted=True)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """A Parquet file without its end, a CSV file whose last line has none, and a file of something else."""
    path = parquet(tmp_path / "a.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    assert sentence(path).startswith(f"{path} cannot be read: ")
    (tmp_path / "a.csv").write_text("vm,time_s,capacity_bytes,used_bytes\n1,0,8,1\n1,60,8,2\n1,12")
    assert sentence(tmp_path / "a.csv") == f"{tmp_path / 'a.csv'}, line 4 has not as many columns as its heading"
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    assert sentence(tmp_path / "a.csv") == f"{tmp_path / 'a.csv'}, line 1 is not text"


def test_samples_without_a_value_are_left_out_and_counted(tmp_path: Path) -> None:
    """As in tables in which a monitor had nothing to say."""
    usage, odd = read(parquet(tmp_path / "a.parquet", ROWS.replace("i AS used", "nullif(i, 2) AS used")))
    assert usage.used_bytes[0].tolist() == [0.0, 1.0, 1.0, 3.0, 4.0]
    assert {name: count.samples for name, count in odd.counts.items()} == {"empty": 1, "held_over": 1}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (ROWS.replace("i AS used", "CASE i WHEN 0 THEN NULL WHEN 3 THEN -1 ELSE i END AS used"), "row 4 has negative"),
        (
            ROWS.replace("i * 60", "abs(i - 3) * 60").replace("i AS used", "nullif(i, 0) AS used"),
            "row 3 is earlier than the line before it",
        ),
        (ROWS.replace("'a' AS", "nullif('a', 'a') AS").replace("8 AS", "NULL::INT AS"), "row 1 has no VM"),
    ],
)
def test_a_row_is_named_though_empty_ones_are_before_it(tmp_path: Path, query: str, said: str) -> None:
    """Rows that are left out are counted, too; and also one of those has a VM."""
    assert f"a.parquet, {said}" in sentence(parquet(tmp_path / "a.parquet", query), is_sorted=True)


def test_rows_without_a_vm_are_refused(tmp_path: Path) -> None:
    """They are no VM of their own."""
    (tmp_path / "a.csv").write_text("vm,time_s,capacity_bytes,used_bytes\na,0,8,1\n,60,8,1\na,60,8,1\n")
    assert sentence(tmp_path / "a.csv") == f"{tmp_path / 'a.csv'}, line 3 has no VM"


def test_a_unit_of_times_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    """It would be believed, and make an hour a second."""
    dated = parquet(tmp_path / "a.parquet", ROWS.replace("i * 60 AS", "to_timestamp(i * 60)::TIMESTAMP AS"))
    said = "has a time that is no number, and --time-unit says that it is one"
    assert sentence(dated, time_unit="ms") == f"{dated}, row 1 {said}"
    lines = [f"1970-01-01 00:0{i}:00,a,8,{i}" for i in range(3)]
    (tmp_path / "a.csv").write_text("\n".join(["time_s,vm,capacity_bytes,used_bytes", "0,a,8,1", *lines]))
    assert sentence(tmp_path / "a.csv", time_unit="s") == f"{tmp_path / 'a.csv'}, line 3 {said}"


def test_usage_that_is_odd_for_the_most_part_is_refused(tmp_path: Path) -> None:
    """Two of five samples above the capacity are too many; the sentence says how many there were, and what they are."""
    _, odd = read(parquet(tmp_path / "a.parquet", ROWS.replace("i AS used", "i * 3 AS used")))
    with pytest.raises(
        UsageError, match=re.escape("fleet: 40% of the samples are odd, and with more than 20%")
    ) as said:
        refuse_odd("fleet", odd)
    assert str(said.value).endswith("the most, 2, are with more used than there is")
    refuse_odd("fleet", Oddities(5))
