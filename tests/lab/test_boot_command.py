"""`pagetide boot`, with a machine that boots nothing."""

import json
import re
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.lab import boot_command
from pagetide.machine.boot_config import BootConfig
from pagetide.machine.config import ConfigError
from pagetide.machine.packages import UmlParts
from pagetide.machine.result import RunResult
from tests.lab.fake_machine import FakeMachine, result_of

UNTOLD = {
    "isolated_blocks_max": None,
    "vcpu_wait_host_s_max": None,
    "vcpu_wait_host_s": None,
    "vcpu_waits_host": None,
    "false_ooms": None,
    "dropped_hints": None,
    "dropped_bytes": None,
    "zone_lock_wait_s_max": None,
    "stamp_errors": None,
    "refaulted_bytes": None,
}


class FakeUml(FakeMachine):
    """Plays a run of a guest that does not tell all."""

    made: list[BootConfig] = []  # noqa: RUF012 - for the one test that reads it

    def __init__(self, config: BootConfig, parts: UmlParts) -> None:
        self.made.append(config)
        samples = result_of().samples
        samples.reported_bytes = [None] * len(samples.t_s)
        super().__init__(config.run_config(), guest="Linux 6.1", samples=samples, **UNTOLD)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[BootConfig]:
    """Replaces the machine; the settings with which it was made."""
    FakeUml.made.clear()
    monkeypatch.setattr(boot_command, "find_uml", lambda: UmlParts(Path(), "6.1", Path(), Path()))
    monkeypatch.setattr(boot_command, "UmlMachine", FakeUml)
    return FakeUml.made


def test_options_become_settings(fake: list[BootConfig]) -> None:
    """Each option is its setting; what is not given keeps its default."""
    arguments = "boot uml --ram 512MiB --fill 300MiB --bursts 2 --hold 0.5 --order 7 --verify 0.5"
    assert cli.main(arguments.split()) == 0
    assert fake == [
        BootConfig(ram_bytes=512 << 20, fill_bytes=300 << 20, bursts=2, hold_s=0.5, order=7, verify_share=0.5)
    ]
    fake.clear()
    assert cli.main(["boot", "uml"]) == 0
    assert fake == [BootConfig()]


def test_what_a_guest_does_not_tell_is_null_and_a_dash(
    fake: list[BootConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The JSON has the same keys as that of `run`, and the summary a dash where there is no figure."""
    path = tmp_path / "boot.json"
    assert cli.main(["boot", "uml", "--json", str(path)]) == 0
    written = json.loads(path.read_text())
    assert set(written) == set(RunResult.__struct_fields__)
    assert written["guest"] == "Linux 6.1"
    assert {name: written[name] for name in UNTOLD} == UNTOLD
    assert set(written["samples"]["reported_bytes"]) == {None}
    out = capsys.readouterr().out
    assert re.search(r"wrong stamps +–", out)  # noqa: RUF001
    assert "(reported" not in out
    assert "stamp was wrong" not in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("boot", "requires an argument"),
        ("boot xen", "xen"),
        ("boot uml --order 11", "the order must be from 0 to 10, not 11"),
        ("boot uml --ram much", "ram: 'much' is not a size"),
        ("boot uml --fill 2GiB", "a guest of 1 GiB has room for a file of 1 MiB to 870 MiB, not 2 GiB"),
        ("boot uml --ram 100TiB", "larger than this machine's"),
        ("boot uml --bursts 1.5", "'1.5' is not a whole number"),
        ("boot uml --json /nowhere/at/all.json", "there is no folder /nowhere/at"),
    ],
)
def test_bad_arguments_are_one_sentence_and_status_2(
    fake: list[BootConfig], capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    """One line on standard error, and nothing is booted."""
    assert cli.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pagetide: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert fake == []


def test_a_missing_package_is_one_sentence_and_status_2(
    fake: list[BootConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What installs it is on standard error, and nothing is booted."""

    def find_nothing() -> UmlParts:
        raise ConfigError("the program linux.uml is missing: as root, apt-get install user-mode-linux")

    monkeypatch.setattr(boot_command, "find_uml", find_nothing)
    assert cli.main(["boot", "uml"]) == 2
    expected = "pagetide: the program linux.uml is missing: as root, apt-get install user-mode-linux\n"
    assert capsys.readouterr().err == expected
    assert fake == []
