"""`pagetide run --machine simulated` and `pagetide calibrate`, as commands."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pagetide import cli
from pagetide.machine.costs import Costs, read_costs
from pagetide.memory.guest_ram import GuestRamError

RUN = "run --machine simulated --ram 64MiB --bursts 1 --delay 0.1 --order 6"


@pytest.fixture(autouse=True)
def no_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has calibrated here."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_a_simulated_run_shows_what_a_live_one_does(capsys: pytest.CaptureFixture[str]) -> None:
    """The summary on standard error, and on standard output JSON that says that it was simulated; twice the same."""
    outs = []
    for _ in range(2):
        assert cli.main([*RUN.split(), "--json", "-"]) == 0
        out, err = capsys.readouterr()
        assert "After each burst the host had its memory back within" in err
        outs.append(json.loads(out) | {"started": "at any time"})
    assert outs[0] == outs[1]
    assert outs[0]["machine"] == "simulated"


def test_a_guest_larger_than_the_machine_is_no_obstacle(capsys: pytest.CaptureFixture[str]) -> None:
    """What a live machine refuses is only metadata here."""
    arguments = ["--ram", "64GiB", "--eat-share", "0.0005", "--bursts", "1", "--order", "6"]
    assert cli.main(["run", "--machine", "simulated", *arguments]) == 0
    assert "host held at most" in capsys.readouterr().out


def test_a_failed_run_names_the_seed_that_replays_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that breaks has status 1, and the last line says how to see that again."""

    def fails(*_: object) -> None:
        raise AssertionError("a test broke it")

    monkeypatch.setattr("pagetide.guest.reporting.designs.scan.Scan.done", fails)
    assert cli.main([*RUN.split(), "--seed", "77"]) == 1
    err = capsys.readouterr().err
    assert "a test broke it" in err
    assert "--seed 77 replay this run" in err.splitlines()[-1]


def test_the_costs_of_a_file_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Costs given by --costs count: with a processor that is slower, the same run takes longer."""
    slow = msgspec.structs.replace(
        read_costs(), order0=msgspec.structs.replace(read_costs().order0, ns=9e5, high_ns=1e6)
    )
    path = tmp_path / "slow.json"
    path.write_bytes(msgspec.json.encode(slow))
    spent_s = []
    for options in ([], ["--costs", str(path)]):
        assert cli.main([*RUN.split(), "--json", "-", *options]) == 0
        spent_s.append(json.loads(capsys.readouterr().out)["duration_s"])
    assert spent_s[1] > 2 * spent_s[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("run --costs some.json", "--costs has no effect with --machine live: it is for simulated"),
        (f"{RUN} --costs /nowhere.json", "/nowhere.json cannot be read"),
        (f"{RUN} --json /nowhere/at/all.json", "there is no folder"),
        ("run --machine toy", "toy"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, one line, and nothing is run."""
    assert cli.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Costs:
    """What `calibrate` finds at once."""
    costs = msgspec.structs.replace(read_costs(), cpu="a test's")

    def at_once(tell: Callable[[str], None]) -> Costs:
        tell("nothing")
        return costs

    monkeypatch.setattr("pagetide.machine.calibration.calibrate.calibrate", at_once)
    monkeypatch.setattr("pagetide.jit.JIT_DISABLED", False)
    return costs


def test_calibrate_writes_where_run_looks(measured: Costs, capsys: pytest.CaptureFixture[str]) -> None:
    """The table goes to standard output, progress to standard error, and the file is the one that `run` takes."""
    assert cli.main(["calibrate"]) == 0
    out, err = capsys.readouterr()
    assert "a test's" in out
    assert "memfd: fault" in out
    assert err.startswith("measuring nothing\n")
    assert read_costs() == measured


def test_calibrate_prints_what_it_writes(measured: Costs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the very file that --out names."""
    path = tmp_path / "deep" / "costs.json"
    assert cli.main(["calibrate", "--json", "--out", str(path)]) == 0
    assert capsys.readouterr().out == path.read_text()
    assert read_costs(path) == measured


@pytest.mark.usefixtures("measured")
def test_calibrate_says_what_failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A target that cannot be is a bad argument, before anything is measured; no memory is status 1."""

    def fails(_: object) -> Costs:
        raise GuestRamError("there is no memory")

    assert cli.main(["calibrate", "--out", "/dev/null/costs.json"]) == 2
    assert capsys.readouterr().err == "pagetide: there is no folder /dev/null to write the costs to\n"
    assert cli.main(["calibrate", "--out", "/dev/full"]) == 1
    assert capsys.readouterr().err.endswith("pagetide: /dev/full cannot be written: No space left on device\n")
    monkeypatch.setattr("pagetide.machine.calibration.calibrate.calibrate", fails)
    assert cli.main(["calibrate"]) == 1
    assert capsys.readouterr().err == "pagetide: there is no memory\n"


def test_calibrate_needs_compiled_kernels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What plain Python costs would be taken for what a guest costs."""
    monkeypatch.setattr("pagetide.jit.JIT_DISABLED", True)
    assert cli.main(["calibrate"]) == 2
    assert "NUMBA_DISABLE_JIT" in capsys.readouterr().err
