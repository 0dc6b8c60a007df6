"""Cells of a grid: their keys, their seeds, and the command line that replays one."""

import shlex
import subprocess
import sys

import msgspec
import pytest

from pagetide.compare.results.cells import Cell, condition_of, repeats_of, without_duplicates
from pagetide.compare.results.columns import CONDITION_COLUMNS, FIGURES, RUN_COLUMNS
from pagetide.machine.config import RunConfig
from pagetide.machine.settings.file import SETTINGS, make_config
from pagetide.machine.settings.fits import FITS


def test_a_key_is_the_same_in_every_process() -> None:
    """Another process, with another hash seed, finds the same 16 digits."""
    cell = Cell(RunConfig(design="cursor", faults=("stop@1:2",)), "simulated")
    script = (
        "from pagetide.compare.results.cells import Cell; from pagetide.machine.config import RunConfig;"
        "print(Cell(RunConfig(faults=('stop@1:2',), design='cursor'), 'simulated', 7).key)"
    )
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == cell.key
    assert len(cell.key) == 16
    assert int(cell.key, 16) >= 0


def test_a_key_changes_with_every_setting_and_the_machine() -> None:
    """Two runs that can differ have two keys."""
    other = {
        "workload": "web", "design": "cursor", "ram_bytes": 1 << 30, "bursts": 2, "eat_share": 0.5, "hold_s": 2.0,
        "rest_s": 3.0, "duration_s": 7.0, "rate_per_s": 3.0, "mix": "9=1", "stream": "a.parquet", "faults": ("ring=8",),
        "migratetypes": True, "order": 8,
        "delay_s": 0.5, "capacity": 16, "pace": "linux", "cool_s": 1.0, "wake": "timer", "wake_blocks": 3, "oom": "cap",
        "in_flight_max_bytes": 8 << 20, "hints_max": 16, "drop_share": 0.1, "keep_s": 9.0, "vcpus": 3,
        "backing": "hugetmpfs", "verify_share": 0.5, "device": "qemu", "pcp_max_bytes": 1 << 20,
        "split": False, "seed": 2,
    }  # fmt: skip
    assert set(other) == set(RunConfig.__struct_fields__)
    cells = [Cell(RunConfig(**{name: value}), "live") for name, value in other.items()]  # type: ignore[arg-type]
    keys = {cell.key for cell in [*cells, Cell(RunConfig(), "live"), Cell(RunConfig(), "simulated")]}
    assert len(keys) == len(other) + 2


def test_a_whole_number_of_seconds_is_the_same_written_either_way() -> None:
    """1 s and 1.0 s are one run."""
    assert Cell(RunConfig(hold_s=1), "live").key == Cell(RunConfig(hold_s=1.0), "live").key


def test_repeats_differ_by_seed_and_designs_share_it() -> None:
    """The seed of repeat r is the first one plus r, whatever the design."""
    first, second = (repeats_of(RunConfig(design=name, seed=5), "live", 3) for name in ("scan", "cursor"))
    assert [cell.config.seed for cell in first] == [5, 6, 7]
    assert [cell.config.seed for cell in second] == [5, 6, 7]
    assert [cell.repeat for cell in first] == [0, 1, 2]


def test_duplicates_are_run_once() -> None:
    """Of cells with one key the first one stays, in its place."""
    a, b = Cell(RunConfig(), "live"), Cell(RunConfig(seed=2), "live")
    assert without_duplicates([a, b, Cell(RunConfig(), "live"), b]) == [a, b]


@pytest.mark.parametrize(
    ("machine", "settings"),
    [
        ("live", {}),
        ("simulated", {"workload": "small", "oom": "none", "fault": ["stop@1:2", "ring=8"]}),
        ("simulated", {"workload": "small", "design": "pool"}),
        ("simulated", {"stream": "a.parquet", "migratetypes": False}),
        ("live", {"stream": "a.parquet", "migratetypes": True}),
        ("simulated", {"workload": "day", "design": "notify-array", "hints": 16, "hold": 0.5, "delay": 0.1}),
        (
            "live",
            {
                "workload": "churn",
                "ram": "512MiB",
                "mix": "9=1",
                "cool": 1.5,
                "seed": 77,
                "oom": "cap",
                "in-flight": "8MiB",
            },
        ),
    ],
)
def test_the_replay_is_the_same_run(machine: str, settings: dict[str, object]) -> None:
    """The command line that is shown for a cell makes the cell's settings when it is parsed."""
    cell = Cell(make_config(settings), "live" if machine == "live" else "simulated")
    words = shlex.split(cell.replay)
    assert words[:2] == ["pagetide", "run"]
    given: dict[str, object] = {}
    left = iter(words[2:])
    for name in left:
        if name in ("--migratetypes", "--no-migratetypes"):
            given["migratetypes"] = name == "--migratetypes"
            continue
        value = next(left)
        kind = RunConfig.__annotations__[SETTINGS[name[2:]].field] if name != "--machine" else str
        if name == "--fault":
            given["fault"] = [*given.get("fault", []), value]  # type: ignore[misc]
        else:
            given[name[2:]] = value if kind is str else msgspec.convert(value, kind, strict=False)
    assert given.pop("machine", "live") == machine
    assert make_config(given) == cell.config


def test_the_replay_gives_nothing_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no effect on the cell's machine is left out, as `pagetide run` would refuse it."""
    monkeypatch.setitem(FITS, "verify", {"machine": ("live",)})
    config = RunConfig(verify_share=0.5)
    assert "--verify 0.5" in Cell(config, "live").replay
    assert "--verify" not in Cell(config, "simulated").replay


def test_every_condition_has_its_column() -> None:
    """The settings that make a condition are the columns of that name, and no figure hides another column."""
    assert condition_of(RunConfig()).keys() == CONDITION_COLUMNS.keys()
    assert not RUN_COLUMNS.keys() & FIGURES.keys()
    assert {"mean_resident_bytes", "return_lag_s_mean", "false_ooms", "host_cpu_s"} <= FIGURES.keys()
