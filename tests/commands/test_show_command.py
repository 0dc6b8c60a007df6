"""`pagetide show`, and what else is told of runs that are stored."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pagetide import cli
from pagetide.compare.results.store import Store
from pagetide.machine.result import RunResult
from tests.commands.fake_machine import result_of

MIB = 1 << 20


def _key(folder: Path, number: int) -> str:
    with Store.open(folder, read_only=True) as store:
        return store.runs()[number].key


def test_show_has_the_curves_and_figures_of_one_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the beginning of its key; plain where it is no terminal."""
    key = _key(folder, 3)
    assert cli.main(["show", key[:8], "--in", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"{key}: scan on burst, oom wait, order 9, seed 1, simulated" in out
    assert "pagetide run --machine simulated --ram" in out
    assert "━━ the guest uses   ██ the host holds" in out
    assert "After each burst the host had its memory back within 1.50 s." in re.sub(r"\s+", " ", out)
    assert "\x1b" not in out


def test_show_draws_a_run_that_was_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From its JSON, with when and on what it ran; the JSON has that, too."""
    path = tmp_path / "run.json"
    assert cli.main(["run", "--machine", "simulated", "--ram", "64MiB", "--bursts", "1", "--json", str(path)]) == 0
    ran = capsys.readouterr().out
    saved = json.loads(path.read_bytes())
    assert set(saved["versions"]) == {"pagetide", "numpy", "numba", "python", "kernel", "cpu"}
    assert saved["started"].endswith("+00:00")
    assert cli.main(["show", str(path)]) == 0
    shown = capsys.readouterr().out
    head, _, rest = shown.partition("\n")
    assert head == "pagetide: scan on burst, oom wait, order 9, seed 1, simulated"
    assert saved["started"] in rest
    assert saved["versions"]["kernel"] in rest
    assert ran[ran.index("━━ the guest uses") :] in rest


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda data: data[:-20], "is no run as --json saves it"),
        (lambda data: data.replace(b'"vcpus": 2', b'"vcpus": -2'), "is no run as --json saves it: "),
        (lambda data: data.replace(b'"t_s": [', b'"t_s": [0.0, '), "samples are not of one length"),
    ],
)
def test_show_refuses_what_is_no_run(
    spoil: Callable[[bytes], bytes], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is cut short, has settings that no run has, or curves that do not fit: one sentence, status 2."""
    path = tmp_path / "run.json"
    data = msgspec.json.format(msgspec.json.encode(result_of()), indent=2)
    assert spoil(data) != data
    path.write_bytes(spoil(data))
    assert cli.main(["show", str(path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert cli.main(["show", str(tmp_path / "none.json")]) == 2
    assert "none.json cannot be read: No such file" in capsys.readouterr().err


def test_show_says_why_a_run_failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With status 1, whether it left figures or not."""
    assert cli.main(["show", _key(folder, 4), "--in", str(folder)]) == 1
    assert "The host stopped." in capsys.readouterr().out
    assert cli.main(["show", _key(folder, 5), "--in", str(folder)]) == 1
    assert capsys.readouterr().out.endswith("its worker was lost\n")


def test_show_lists_the_runs_of_the_newest_comparison(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a run and a folder."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["show"]) == 2
    assert "say where with --in DIR" in capsys.readouterr().err
    folder.rename(tmp_path / "compare-20261123-0410")
    assert cli.main(["show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert [line.endswith("  failed") for line in lines] == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [("xyz", "has a key that begins with 'xyz'"), ("", "6 runs in .* have keys that begin with ''")],
)
def test_a_run_that_is_not_one_is_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], prefix: str, sentence: str
) -> None:
    """None with this prefix, or several."""
    assert cli.main(["show", prefix, "--in", str(folder)]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_a_stored_run_is_the_json_of_a_run(folder: Path) -> None:
    """Nothing that `pagetide run --json` has is lost in the database."""
    with Store.open(folder, read_only=True) as store:
        run = store.runs()[0]
        result = store.result(run)
    expected = result_of(run.cell.config, mean_resident_bytes=10 * MIB)
    expected.machine, expected.started, expected.versions = "simulated", run.started, run.versions
    assert msgspec.json.decode(msgspec.json.encode(result), type=RunResult) == expected
