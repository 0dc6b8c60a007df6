"""The command line, with a machine that runs nothing."""

import functools
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.cli import commands  # noqa: F401 - imported before a test gives up the right to read it
from pagetide.commands import run as run_command
from pagetide.machine.config import RunConfig
from pagetide.machine.observer import Machine, Observer
from pagetide.machine.result import RunResult
from pagetide.machine.settings.file import make_config
from pagetide.memory.guest_ram import GuestRamError
from tests.cli.refusal import assert_refused
from tests.commands.fake_machine import FakeMachine, machine_with

Make = Callable[[RunConfig], Machine]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Make], None]:
    """Makes the command line use another machine."""
    original = run_command.run

    def replace(make: Make) -> None:
        fake = functools.partial(original, make_machine=make)
        monkeypatch.setattr(run_command, "run", fake)

    replace(machine_with())
    return replace


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("run --order 11", "the order must be from 0 to 10, not 11"),
        ("run --capacity 0", "the capacity must be from 1 to 1024 blocks, not 0"),
        ("run --ram 100TiB", "larger than this machine's"),
        ("run --ram much", "'much' is not a size"),
        ("run --bursts 1.5", "'1.5' is not a whole number"),
        ("run --delay soon", "--delay"),
        ("run --pace fast", "pace must be drain or linux"),
        ("run --design best", "design must be off or sync or notify or"),
        ("run --wake timer --delay 0 --design notify", "with the timer notify needs a delay above 0 s"),
        ("run --design sync --wake timer", "with sync"),
        ("run --design hybrid --hints 8", "must have room for the 16 hints"),
        ("run --drop-share 1", "the share dropped must be at least 0 and below 1, not 1.0"),
        ("run --workload web --fault stop@100:1", "s, before the fault stop begins at 100 s"),
        ("run --wake timer --delay 0", "with the timer scan needs a delay above 0 s"),
        ("run --pcp 4KiB", "per-CPU lists need 1 MiB at least, not 4 KiB"),
        ("run --backing paper", "backing must be memfd or hugetmpfs"),
        ("run --frobnicate", "--frobnicate"),
        ("run --bursts", "--bursts requires an argument"),
        ("run stray", "stray"),
        ("run --json /nowhere/at/all.json", "there is no folder /nowhere/at"),
        ("run --json /", "cannot be written to /: it is a folder"),
        ("run --json=", "it is a folder"),
        ("run --eat-share 1e-9", "is not a page for each vCPU"),
        ("run --config /nowhere.toml", "cannot be read"),
        ("run --workload web --rate 0", "the rate must be above 0"),
        ("run --mix 9=2", "each share of a mix is above 0"),
        ("run --fault stop@1", "the fault 'stop@1' is not of the form stop@T:D"),
        ("run --fault stop@1:2 --fault slow@2:1:2", "are both on at 2 s"),
        ("run --stream /nowhere.parquet", "there is no stream in /nowhere.parquet"),
        ("run --save-stream /nowhere/s.parquet", "the stream cannot be written to /nowhere/s.parquet"),
        ("run --device qemu --verify 0.5", "--verify has no effect with --device qemu"),
        ("run --device qemu --fault mmlock", "with QEMU's device there is no such process"),
        ("run --device qemu --fault mmlock-split", "with QEMU's device there is no such process"),
        ("run --eat-share nan", "the share eaten must be above 0 and at most 0.98, not nan"),
        ("run --workload day --bursts 0", "there must be at least 1 burst, not 0"),
        ("run --ram 99999999999999TiB", "is more bytes than can be counted"),
        ("run --hints 16", "--hints has no effect with the design scan: it is for notify-array and hybrid"),
        ("walk", "walk"),
    ],
)
def test_bad_arguments_are_one_sentence_and_status_2(
    use: object, capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    """One line on standard error, nothing on standard output, and nothing is run."""
    assert_refused(capsys, arguments.split(), sentence)


def test_a_device_that_nobody_serves_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`conformance` says at which socket it looked, with status 1, and its help names its statuses."""
    path = str(tmp_path / "vm1.sock")
    assert cli.main(["conformance", "--device", path]) == 1
    assert f"no device answers at '{path}': " in capsys.readouterr().err
    assert cli.main(["conformance", "--help"]) == 0
    assert "Exit status: 0" in capsys.readouterr().out


def test_help_names_every_setting_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """`run --help` describes each option, and the exit statuses."""
    assert cli.main(["run", "--help"]) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name in ("--ram STR: Guest memory", "[default: 2GiB;", "--json STR: Write", "130 Ctrl-C", "--eat-share"):
        assert name in text


def test_ctrl_c_while_modules_are_loaded_is_status_130() -> None:
    """Loading takes most of a second; whoever has changed his mind by then sees no traceback."""
    script = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "cyclopts":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from pagetide.cli import main
sys.exit(main(["--version"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_version_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the installed version and nothing else."""
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_plain_output_has_lines_and_no_escape_codes(use: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Not on a terminal, stages and about one line a second are plain text, and the summary follows."""
    assert cli.main(["run", "--ram", "512MiB"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert "burst 1 of 1: eating" in out
    assert out.count("  guest uses") == 6
    assert "warning: a warning" in out
    assert "After each burst the host had its memory back within 1.50 s." in re.sub(r"\s+", " ", out)
    assert max(map(len, out.splitlines())) <= 110


def test_the_json_has_everything_that_was_measured(use: object, tmp_path: Path) -> None:
    """The file holds the whole result, configuration and samples included."""
    path = tmp_path / "run.json"
    assert cli.main(["run", "--ram", "512MiB", "--seed", "7", "--json", str(path)]) == 0
    written = json.loads(path.read_text())
    assert set(written) == set(RunResult.__struct_fields__)
    assert written["config"]["seed"] == 7
    assert len(written["samples"]["t_s"]) == 60
    assert written["bursts"][0]["return_lag_s"] == 1.5


def test_json_on_standard_output_is_alone_there(use: object, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--json -` everything else goes to standard error."""
    assert cli.main(["run", "--ram", "512MiB", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["outcome"] == "complete"
    assert "After each burst" in err


def test_a_json_that_may_not_be_written_is_found_before_the_run(
    use: object, unprivileged: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that one may not write to is a bad argument."""
    assert cli.main(["run", "--json", "/proc/run.json"]) == 2
    assert capsys.readouterr().err == "pagetide: the JSON cannot be written to /proc/run.json: permission denied\n"


def test_a_json_that_fails_is_a_sentence_after_the_summary(use: object, capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk costs the file and not the figures on the screen."""
    assert cli.main(["run", "--ram", "512MiB", "--json", "/dev/full"]) == 1
    out, err = capsys.readouterr()
    assert "After each burst" in out
    assert err == "pagetide: The JSON could not be written to /dev/full: No space left on device.\n"


_SILENT_RUN = """
import sys
from pagetide.commands.run import run
from pagetide.machine.config import RunConfig
from tests.commands.fake_machine import FakeMachine, result_of

class Silent(FakeMachine):
    def run(self, observer):
        return result_of(self.config)

sys.exit(run(RunConfig(ram_bytes=512 << 20), sys.argv[1], make_machine=Silent))
"""


def test_a_reader_that_hangs_up_does_not_cost_the_file(tmp_path: Path) -> None:
    """With `| head` the summary has nowhere to go; the JSON is written, and nobody complains."""
    path = tmp_path / "run.json"
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-c", _SILENT_RUN, str(path)],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert json.loads(path.read_text())["outcome"] == "complete"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_locale_without_our_characters_gets_similar_ones(
    use: object, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """The chart's two curves still differ, and microseconds are not questions."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["run", "--ram", "512MiB"]) == 0
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    text = stream.buffer.getvalue().decode(encoding)
    assert "== the guest uses   ## the host holds" in text
    assert "|####" in text.replace("=", "#")
    assert re.search("120 [uµ]s", text)
    assert "?" not in text


def test_a_file_is_no_terminal_though_colour_is_forced(
    use: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With FORCE_COLOR, as continuous integration sets it, the cursor stays where it is."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert cli.main(["run", "--ram", "512MiB"]) == 0
    out = capsys.readouterr().out
    assert out.count("  guest uses") == 6
    assert not re.search(r"\x1b\[[0-9;?]*[^0-9;?m]", out)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 0),
        ({"stamp_errors": 1}, 1),
        ({"verified_bytes": 0}, 1),
        ({"outcome": "the guest's process was killed by SIGKILL"}, 1),
        ({"outcome": "interrupted"}, 130),
        ({"outcome": "interrupted", "stamp_errors": 1}, 1),
    ],
)
def test_the_exit_status_says_how_it_went(
    use: Callable[[Make], None], capsys: pytest.CaptureFixture[str], changes: dict[str, object], status: int
) -> None:
    """A failure is 1 and its sentence is on standard error; Ctrl-C is 130; all well is 0."""
    use(machine_with(**changes))
    assert cli.main(["run", "--ram", "512MiB"]) == status
    assert bool(capsys.readouterr().err) == (status == 1)


def test_no_memory_is_a_sentence_and_status_1(use: Callable[[Make], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Memory that cannot be had ends the run with the reason, without a traceback."""

    class Poor(FakeMachine):
        def run(self, observer: Observer) -> RunResult:
            raise GuestRamError("512 MiB of guest RAM do not fit: only 3 MiB of memory is available")

    use(Poor)
    assert cli.main(["run", "--ram", "512MiB"]) == 1
    assert capsys.readouterr().err == "pagetide: 512 MiB of guest RAM do not fit: only 3 MiB of memory is available\n"


def test_a_configuration_file_sets_what_the_options_do_not(use: Callable[[Make], None], tmp_path: Path) -> None:
    """`--config` gives settings by the options' names, and an option on the command line wins."""
    made: list[RunConfig] = []

    def make(config: RunConfig) -> FakeMachine:
        made.append(config)
        return FakeMachine(config)

    use(make)
    path = tmp_path / "run.toml"
    path.write_text('ram = "64MiB"\norder = 3\n')
    assert cli.main(["run", "--config", str(path), "--order", "4"]) == 0
    assert made == [make_config({"ram": 64 << 20, "order": 4})]


def test_a_saved_stream_is_what_another_run_runs(
    use: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--save-stream writes what --stream reads; a guest that is too small for it is told before anything runs."""
    path = str(tmp_path / "stream.parquet")
    assert cli.main(["run", "--ram", "64MiB", "--bursts", "1", "--save-stream", path]) == 0
    assert cli.main(["run", "--ram", "64MiB", "--stream", path]) == 0
    capsys.readouterr()
    assert cli.main(["run", "--ram", "32MiB", "--stream", path]) == 2
    assert "holds up to 48 MiB, and the guest has 32 MiB" in capsys.readouterr().err


def test_a_workload_brings_its_own_defaults(use: Callable[[Make], None]) -> None:
    """What is given overrides them; faults may be given more than once."""
    seen: list[RunConfig] = []

    def make(config: RunConfig) -> FakeMachine:
        seen.append(config)
        return FakeMachine(config)

    use(make)
    assert cli.main(["run", "--workload", "small", "--rate", "2", "--fault", "ring=8", "--fault", "stop@1:2"]) == 0
    assert cli.main(["run"]) == 0
    small, plain = seen
    assert (small.ram_bytes, small.eat_share, small.rate_per_s) == (512 << 20, 0.975, 2.0)
    assert small.faults == ("ring=8", "stop@1:2")
    assert plain == make_config()


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "run --help",
        "--version",
        "run --machine simulated --ram 64MiB --bursts 1",
        "run --machine simulated --ram 64MiB --bursts 1 --json -",
        "run --ram 64MiB --bursts 1 --hold 0.1 --rest 0.1 --delay 0",
        "explore --design off --scenario start",
    ],
)
def test_a_full_disk_on_standard_output_is_one_sentence(arguments: str) -> None:
    """No traceback, status 1, and no word on standard error but that and what belongs there."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pagetide.cli", *arguments.split()],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "loading" not in line]  # which a slow start may say late
    assert lines[-1] == "pagetide: standard output cannot be written: No space left on device"
    assert "Traceback" not in done.stderr


def test_after_a_failed_write_nobody_is_told_to_replay(capsys: pytest.CaptureFixture[str]) -> None:
    """The run was well; it is the file that could not be written."""
    assert cli.main(["run", "--machine", "simulated", "--ram", "64MiB", "--bursts", "1", "--json", "/dev/full"]) == 1
    err = capsys.readouterr().err
    assert "could not be written to /dev/full: No space left on device" in err
    assert "replay" not in err
