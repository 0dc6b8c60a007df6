"""Which setting does something for which workload, design and machine."""

from pathlib import Path
from typing import Any, get_args

import pytest

from pagetide import cli
from pagetide.compare.grid.axes import Choice, condition_config, make_grid
from pagetide.compare.results.cells import Cell
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.machine.config import Workload
from pagetide.machine.config_error import ConfigError
from pagetide.machine.faults import FORMS
from pagetide.machine.settings.file import SETTINGS, make_config
from pagetide.machine.settings.fits import FAULTS_FIT, FITS, misfit, refuse_misfits


def test_the_table_is_of_settings_and_faults_that_there_are() -> None:
    """A misspelt name would let its option through."""
    assert FITS.keys() <= {*SETTINGS, "costs"}
    assert FAULTS_FIT.keys() <= FORMS.keys()
    names = {"workload": get_args(Workload), "design": tuple(DESIGNS)}
    for only in (*FITS.values(), *FAULTS_FIT.values()):
        for aspect, needed in only.items():
            assert needed
            assert set(needed) <= set(names.get(aspect, needed))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--hints 16", "--hints has no effect with the design scan: it is for notify-array and hybrid"),
        ("--design hybrid --rate 4", "--rate has no effect with the workload burst: it is for web, churn"),
        ("--duration 9", "--duration has no effect with the workload burst"),
        ("--workload churn --bursts 2", "--bursts has no effect with the workload churn: it is for burst and day"),
        ("--workload day --rest 2", "--rest has no effect with the workload day: it is for burst"),
        ("--stream x.parquet --mix 0=1", "--mix has no effect with --stream: what the guest does is in the file"),
        ("--in-flight 8MiB", "--in-flight has no effect with --oom wait: it is for cap and swap"),
        ("--wake-blocks 3", "--wake-blocks has no effect with --wake merge: it is for threshold"),
        ("--design off --delay 1", "--delay has no effect with the design off: it is for all designs but off"),
        ("--design balloon --capacity 8", "--capacity has no effect with the design balloon"),
        ("--design shared --fault ring=8", "the fault ring has no effect with the design shared: it is for"),
        ("--design balloon --fault ring-full@1:1", "the fault ring-full has no effect with the design balloon"),
        ("--costs x.json", "--costs has no effect with --machine live: it is for simulated"),
        ("--split", "--split has no effect with the design scan: it is for pool"),
        ("--design pool --split", "--split has no effect with --backing memfd: it is for hugetmpfs"),
        ("--device qemu --verify 1", "--verify has no effect with --device qemu: it is for pagetide"),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_refused(options: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence names it, and what it is for; nothing is run."""
    assert cli.main(["run", *options.split()]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


def test_a_file_is_taken_at_its_word_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence says that the setting is in the file."""
    path = tmp_path / "run.toml"
    path.write_text('design = "scan"\ndrop-share = 0.5\n')
    assert cli.main(["run", "--config", str(path)]) == 2
    assert "drop-share in the configuration file has no effect with the design scan" in capsys.readouterr().err


@pytest.mark.parametrize("workload", get_args(Workload))
@pytest.mark.parametrize("design", list(DESIGNS))
def test_defaults_are_never_refused_and_a_replay_is_accepted(workload: str, design: str) -> None:
    """What nobody gave is not refused, and the command line of a cell of a grid gives nothing in vain."""
    refuse_misfits(make_config({"workload": workload, "design": design}), [])
    settings = {"hints": 32, "duration": 7.0, "drop-share": 0.2, "in-flight": "8MiB", "rest": 3.0, "bursts": 2}
    config = condition_config(workload, "stop", "cap" if design not in ("off", "balloon") else "wait", design, settings)
    words = Cell(config, "simulated").replay.split()[4:]
    options = [word.removeprefix("--") for word in words if word.startswith("--")]
    refuse_misfits(config, options, machine="simulated")
    given: dict[str, Any] = dict(zip(options, (word for word in words if not word.startswith("--")), strict=True))
    for name, value in given.items():
        given[name] = [value] if name == "fault" else float(value) if value.replace(".", "").isdigit() else value
    whole = {name: int(value) for name, value in given.items() if isinstance(value, float) and value.is_integer()}
    assert make_config({**given, **whole}) == config


def test_a_grid_takes_what_some_of_it_has_and_leaves_it_from_the_others() -> None:
    """Arrays of hints are for the designs that have them; the others are run as ever, once."""
    grid = make_grid(Choice(designs=("off", "scan", "hybrid"), workloads=("burst",), settings={"hints": 32}, repeat=1))
    hints = {cell.config.design: cell.config.hints_max for cell in grid.cells}
    assert hints == {"off": 256, "scan": 256, "hybrid": 32}
    with pytest.raises(ConfigError, match="--hints has no effect with the design scan"):
        make_grid(Choice(designs=("scan",), workloads=("burst",), settings={"hints": 32}))
    with pytest.raises(ConfigError, match="--oom has no effect with the design off"):
        make_grid(Choice(designs=("off",), workloads=("burst",), oom=("cap",)))


def test_a_fault_of_a_grid_that_fits_no_design_is_left_out_and_named() -> None:
    """With others beside it the grid goes on."""
    grid = make_grid(Choice(designs=("scan", "shared"), workloads=("burst",), faults=("ring=8",), repeat=1))
    assert [cell.config.design for cell in grid.cells] == ["scan"]
    assert "the fault ring has no effect with the design shared" in grid.left_out[0].why


def test_the_effective_wake_decides() -> None:
    """A design that is notified waits for a threshold unless it is told otherwise."""
    assert misfit("wake-blocks", make_config({"design": "notify"})) is None
    found = misfit("wake-blocks", make_config({"design": "notify", "wake": "merge"}))
    assert found is not None
    assert found.found == "merge"
