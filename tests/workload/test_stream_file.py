"""Streams in Parquet files."""

from pathlib import Path

import duckdb
import numpy as np
import pytest

from pagetide.guest.allocator.operation import FREE
from pagetide.workload.burst import burst
from pagetide.workload.stream import Mark, Stream, StreamError
from pagetide.workload.stream_file import load_stream, save_stream


def a_stream() -> Stream:
    """A burst of 4 MiB."""
    return burst(eat_bytes=4 << 20, bursts=2, hold_s=1.0, vcpus=2, mix={9: 0.5, 0: 0.5}, seed=3).whole()


def write(path: Path, query: str) -> Path:
    """A Parquet file with the result of this query."""
    with duckdb.connect() as database:
        database.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path


ONE = 'SELECT 0.5 AS at_s, 0 AS kind, 3 AS "order", 0 AS slot, 0 AS vcpu'


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """Columns with their types, marks and end, whatever the file is called."""
    path = tmp_path / "it's a stream.parquet"
    stream = a_stream()
    save_stream(stream, path)
    loaded = load_stream(path)
    for name, column in stream.columns.items():
        assert column.dtype == loaded.columns[name].dtype
        assert np.array_equal(column, loaded.columns[name])
    assert loaded[5:] == stream[5:]


def test_who_frees_is_kept(tmp_path: Path) -> None:
    """The column is there if the stream has it, and a file without it is a stream of which each vCPU frees its own."""
    stream = a_stream()
    save_stream(stream, tmp_path / "own")
    assert load_stream(tmp_path / "own").freed_by is None
    elsewhere = np.where(stream.kind == FREE, 1 - stream.vcpu, stream.vcpu).astype(np.uint16)
    save_stream(stream._replace(freed_by=elsewhere), tmp_path / "elsewhere")
    loaded = load_stream(tmp_path / "elsewhere").freed_by
    assert loaded is not None
    assert loaded.dtype == np.uint16
    assert np.array_equal(loaded, elsewhere)


def test_what_can_be_moved_is_kept(tmp_path: Path) -> None:
    """The column is there if the stream has it, and one that says what there is not is refused."""
    stream = a_stream()
    migratetype = (np.arange(stream.nr_operations) % 3).astype(np.uint8)
    save_stream(stream._replace(migratetype=migratetype), tmp_path / "typed")
    loaded = load_stream(tmp_path / "typed")
    assert loaded.migratetype is not None
    assert np.array_equal(loaded.migratetype, migratetype)
    save_stream(stream._replace(migratetype=migratetype + np.uint8(1)), tmp_path / "wrong")
    with pytest.raises(StreamError, match="a migratetype that is not below 3"):
        load_stream(tmp_path / "wrong")


def test_the_same_stream_gives_the_same_bytes(tmp_path: Path) -> None:
    """A file can be compared with another one."""
    for name in ("a", "b"):
        save_stream(a_stream(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_from_elsewhere_needs_only_the_columns(tmp_path: Path) -> None:
    """It has one stretch, called after the file, and ends with its last operation; other columns are left alone."""
    path = write(tmp_path / "trace.parquet", f"SELECT *, 7 AS extra FROM ({ONE})")
    stream = load_stream(path)
    assert (stream.marks, stream.end_s) == ((Mark(0, "trace"),), 0.5)
    assert stream.order.tolist() == [3]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("SELECT 0.5 AS at_s", "is no stream: it has no column kind"),
        (ONE.replace("0 AS slot", "NULL AS slot"), "a column has an empty entry"),
        (ONE.replace("3 AS", "300 AS"), "cannot be read from"),
        (ONE.replace("0 AS kind", "1 AS kind"), "it frees a slot that holds nothing"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, query: str, sentence: str) -> None:
    """A file that is Parquet but no stream says why, and which file it is."""
    path = write(tmp_path / "bad.parquet", query)
    with pytest.raises(StreamError) as caught:
        load_stream(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    """Nothing there, a folder, something else, marks that are none, a name that stands for several files."""
    text, marked = tmp_path / "text.parquet", tmp_path / "marked.parquet"
    text.write_text("at_s,kind")
    query = ONE
    with duckdb.connect() as database:
        database.execute(f"COPY ({query}) TO '{marked}' (FORMAT parquet, KV_METADATA {{pagetide: '[]'}})")
    starred = write(tmp_path / "a.parquet", query).rename(tmp_path / "*.parquet")
    for path, sentence in (
        (tmp_path / "nowhere.parquet", "it is not a file"),
        (tmp_path, "it is not a file"),
        (text, "cannot be read from"),
        (marked, "its marks cannot be read"),
        (starred, "stands for others"),
    ):
        with pytest.raises(StreamError, match=sentence) as caught:
            load_stream(path)
        assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """The sentence names the file."""
    with pytest.raises(StreamError, match=r"cannot be written to .*nowhere/s\.parquet"):
        save_stream(a_stream(), tmp_path / "nowhere" / "s.parquet")
