"""Settings from files and from the command line."""

import contextlib
from pathlib import Path

import pytest

from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.machine.settings.file import SETTINGS, make_config, read_file


def test_every_field_has_a_setting() -> None:
    """Whatever a run can be given, a file and the command line can give."""
    assert {setting.field for setting in SETTINGS.values()} == set(RunConfig.__struct_fields__)


def test_the_command_line_overrides_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    """A setting that is given nowhere has its default."""
    path = tmp_path / "run.toml"
    path.write_text('ram = "1GiB"\ndelay = 1\nbursts = 2\n')
    config = make_config(read_file(path), {"bursts": 5, "order": None})
    assert config == RunConfig(ram_bytes=1 << 30, delay_s=1.0, bursts=5, split=False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ramm = 5", "'ramm', which is no setting; there are workload, design, ram,"),
        ("ram = ", "is not TOML"),
        ("bursts = 'many'", "bursts must be a whole number, not 'many'"),
        ("delay = true", "delay must be a number, not True"),
        ("pace = 'fast'", "pace must be drain or linux, not 'fast'"),
        ("ram = '12 parsecs'", "'12 parsecs' is not a size"),
        ("ram = 1000000000", "multiple of 4 MiB"),
        (f"ram = '{'9' * 400}'", "more bytes than can be counted"),
        ("eat-share = 1e-9", "is not a page for each vCPU"),
        ("ram = '1MiB'", "at least 16 MiB"),
        ("order = 11", "from 0 to 10, not 11"),
        ("rest = 0", "the rest must be above 0 s"),
        ("capacity = 0", "from 1 to 1024 blocks, not 0"),
        ("eat-share = 1.5", "at most 0.98"),
        ("vcpus = 0", "from 1 to 64 vCPUs"),
        ("bursts = 0", "at least 1 burst"),
        ("hold = -1", "hold must be"),
        ("delay = -1", "delay must be"),
        ("verify = 2", "share verified"),
        ("seed = -1", "seed must be"),
    ],
)
def test_a_bad_setting_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    """Names, types and ranges are checked, and the sentence names the setting."""
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        make_config(read_file(path))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    """As TOML demands; other bytes are one sentence."""
    path = tmp_path / "run.toml"
    path.write_bytes("bursts = 2  # zweimal für alle".encode())
    assert read_file(path) == {"bursts": 2}
    path.write_bytes("bursts = 2  # zweimal für alle".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not TOML"):
        read_file(path)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """The sentence names the file and the reason."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read: No such file"):
        read_file(tmp_path / "nowhere.toml")


def test_a_workload_has_no_delay_that_its_design_cannot_have() -> None:
    """The small guest reports at once, and with `pool` as soon as that may begin; whoever asks for less is told."""
    assert [make_config({"workload": "small", "design": name}).delay_s for name in ("scan", "pool")] == [0.0, 0.1]
    assert make_config({"workload": "small", "design": "pool", "delay": 0.5}).delay_s == 0.5
    with pytest.raises(ConfigError, match=r"with pool .* must be at least 0.1 s, not 0.0 s"):
        make_config({"workload": "small", "design": "pool", "delay": 0.0})


_ODD = (
    "nan", "inf", "-inf", "-1", "0", "1e308", "1e-320", f"1{'0' * 400}", f"1{'0' * 5000}", "99999999999999999999",
    '""', '"x"', '"nan"', f'"{"9" * 400}"', "true", "[]", '["x"]', "{}", "1979-05-27",
)  # fmt: skip


@pytest.mark.parametrize("workload", ["burst", "small", "day"])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_no_value_is_more_than_a_sentence(name: str, workload: str, tmp_path: Path) -> None:
    """Numbers that are none, or too many digits, or of another kind: a setting is read, or refused in a sentence."""
    path = tmp_path / "odd.toml"
    for value in _ODD:
        other = "" if name == "workload" else f'workload = "{workload}"\n'
        path.write_text(f"{other}{name} = {value}\n")
        with contextlib.suppress(ConfigError):
            make_config(read_file(path))
            continue
        with pytest.raises(ConfigError, match=r"^[^\n]{10,800}$"):
            make_config(read_file(path))
