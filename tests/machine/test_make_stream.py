"""From settings to streams."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pagetide.machine.config import RunConfig, Workload, workload_defaults
from pagetide.machine.config_error import ConfigError
from pagetide.machine.workloads import make_stream
from pagetide.workload.stream import StreamError
from pagetide.workload.stream_file import save_stream

pytestmark = pytest.mark.jit  # no kernel is called

MIB = 1 << 20
NAMES = get_args(Workload)


@pytest.mark.parametrize("name", NAMES)
def test_every_workload_fits_into_its_guest(name: str) -> None:
    """With its defaults, a workload leaves free what a guest cannot hand out, at two seeds."""
    for seed in (1, 2):
        config = RunConfig(**workload_defaults(name) | {"seed": seed})
        config.check()
        stream = make_stream(config)
        assert 0 < stream.peak_bytes <= 0.98 * config.ram_bytes


@given(
    name=st.sampled_from(NAMES),
    changes=st.fixed_dictionaries(
        {},
        optional={
            "ram_bytes": st.integers(4, 16).map(lambda blocks: blocks * 4 * MIB),
            "eat_share": st.floats(1e-4, 0.98),
            "bursts": st.integers(1, 4),
            "hold_s": st.floats(0, 5),
            "duration_s": st.floats(1e-3, 20),
            "rate_per_s": st.floats(1e-3, 500),
            "mix": st.sampled_from(["0=1", "10=1", "10=0.9,0=0.1"]),
            "vcpus": st.integers(1, 4),
            "seed": st.integers(0, 3),
        },
    ),
)
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.filter_too_much])
def test_settings_that_pass_the_check_make_a_stream(name: str, changes: dict[str, Any]) -> None:
    """Whatever the settings, as long as `check` has no objection, and twice the same."""
    config = RunConfig(**workload_defaults(name) | {"ram_bytes": 64 * MIB} | changes)
    try:
        config.check()
    except ConfigError:
        assume(False)
    stream = make_stream(config)
    stream.check()
    assert stream.vcpus <= config.vcpus
    assert np.array_equal(stream.slot, make_stream(config).slot)


def test_a_stream_from_a_file_is_run_in_place_of_the_workload(tmp_path: Path) -> None:
    """The same operations, also in a larger guest; one that is too small for them is told so."""
    config = RunConfig(ram_bytes=64 * MIB, bursts=1)
    path = tmp_path / "stream.parquet"
    stream = make_stream(config)
    save_stream(stream, path)
    again = make_stream(RunConfig(ram_bytes=128 * MIB, vcpus=4, stream=str(path)))
    assert all(np.array_equal(column, again.columns[name]) for name, column in stream.columns.items())
    with pytest.raises(StreamError, match="takes 2 vCPUs, and the guest has 1"):
        make_stream(RunConfig(ram_bytes=64 * MIB, vcpus=1, stream=str(path)))
    with pytest.raises(StreamError, match="holds up to 48 MiB, and the guest has 32 MiB"):
        make_stream(RunConfig(ram_bytes=32 * MIB, stream=str(path)))


def test_a_fault_after_the_end_is_refused() -> None:
    """A fault may begin as the clock ends, and not later."""
    config = RunConfig(ram_bytes=64 * MIB, bursts=1, hold_s=1.0, rest_s=2.0, faults=("stop@3:1",))
    assert make_stream(config).end_s == 3.0
    with pytest.raises(StreamError, match=r"clock ends at 3 s, before the fault stop begins at 3\.5 s"):
        make_stream(msgspec.structs.replace(config, faults=("stop@3.5:1",)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"workload": "day", "hold_s": 10.0}, "4 bursts of 10.0 s do not fit into a day of 30.0 s"),
        ({"workload": "small", "eat_share": 0.1}, "must hold more than a wave"),
        ({"workload": "small", "rate_per_s": 200.0}, "at most 100 waves"),
        ({"workload": "churn", "rate_per_s": 1e9}, "the rate must be"),
        ({"duration_s": 0.0}, "the duration must be"),
        ({"mix": "9=2"}, "each share of a mix"),
        ({"faults": ("stop",)}, "not of the form stop@T:D"),
    ],
)
def test_settings_that_make_no_stream_are_refused(changes: dict[str, Any], sentence: str) -> None:
    """One sentence that says what does not fit."""
    config = RunConfig(**workload_defaults(changes.get("workload", "burst")) | changes)
    with pytest.raises(ConfigError, match=sentence):
        config.check()
