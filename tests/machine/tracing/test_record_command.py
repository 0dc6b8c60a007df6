"""`pagetide record` as a person runs it."""

import json
import re
import sys
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.workload.stream_file import load_stream

EATS = [sys.executable, "-I", "-S", "-c", "x = bytearray(20 << 20)"]


@pytest.mark.usefixtures("tracefs")
def test_a_command_is_recorded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file with its stream, in at most three bytes an operation; an account for people, and one for programs."""
    out, account = tmp_path / "trace.parquet", tmp_path / "account.json"
    given = ["record", "--out", str(out), "--json", str(account), "--room", "64MiB", "--accept", "1", "--", *EATS]
    assert cli.main(given) == 0
    stream = load_stream(out)
    assert stream.allocated_bytes(0, stream.nr_operations) > 20 << 20
    text = capfd.readouterr().out
    each = re.search(r"(\d+) operations of .* in .*trace.parquet, ([\d.]+) bytes each", text)
    assert each is not None
    assert int(each[1]) == stream.nr_operations
    if stream.nr_operations > 5000:  # otherwise most of the file is what any file has
        assert float(each[2]) <= 3
    told = json.loads(account.read_text())
    assert told["fit"]["allocations"] > 0
    assert told["lost"] == 0
    assert set(told["before"]) == set(told["after"]) >= {"free_blocks", "listed_pages", "free_by_type"}


@pytest.mark.usefixtures("tracefs")
def test_a_recording_that_does_not_fit_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With nothing accepted, what the recorder's own snapshots take is too much: status 1, and no stream."""
    out = tmp_path / "trace.parquet"
    assert cli.main(["record", "--out", str(out), "--room", "64MiB", "--accept", "0", "--", "true"]) == 1
    error = capfd.readouterr().err
    assert re.search(r"^pagetide: the recording is refused: .*% of the pages that the kernel counts as", error)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--seconds 5 -- true", "a command is recorded to its end: --seconds is for none, --rest for how much longer"),
        ("--rest 5", "--rest and --everything go with a command"),
        ("--seconds -1", "a recording takes 0 to 86400 s, not -1"),
        ("--accept 2", "--accept is a share, 0 to 1, not 2"),
        ("--room much", "'much' is not a size"),
        ("--ram 1GiB", "ram is for --guest"),
        ("--guest qemu --seconds 5", "seconds does not go with --guest"),
        ("--guest qemu -- true", "COMMAND does not go with --guest"),
        ("--guest uml", "kernels for User-Mode Linux are built without trace events: --guest qemu has them"),
        ("--out /nowhere/trace.parquet", "there is no folder /nowhere to write the stream to"),
    ],
)
def test_bad_arguments_are_a_sentence(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, and nothing is recorded."""
    assert cli.main(["record", *arguments.split()]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("folder_for_guests")
def test_a_guest_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the defaults: the file of 100 MiB is there, page by page, and all fits together."""
    out = tmp_path / "guest.parquet"
    assert cli.main(["record", "--guest", "qemu", "--out", str(out)]) == 0
    stream = load_stream(out)
    assert stream.nr_operations > 2 * (100 << 20 >> 12)
    assert stream.peak_bytes > 100 << 20
    assert "0.00% of the events were lost" in capsys.readouterr().out
