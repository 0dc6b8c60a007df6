"""`pagetide fleet learn` and `fleet check`, from their arguments to what is printed."""

import json
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.commands.fleet import model
from pagetide.fleet.learning.check import Checked, verdicts


def fleet(capsys: pytest.CaptureFixture[str], arguments: str) -> tuple[int, str, str]:
    """Status, standard output and standard error."""
    status = cli.main(["fleet", *arguments.split()])
    return status, *capsys.readouterr()


@pytest.mark.slow
def test_what_is_learned_is_used_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One setting learned into a file: it is in the fleet's table, holds in the check, and a spoilt one does not."""
    path = tmp_path / "responses.json"
    status, out, err = fleet(capsys, f"learn --settings linux-9 --out {path}")
    assert status == 0
    assert out.count("leaves at most") == 2
    assert "2 of 2 responses" in err
    named = f"--vms 30 --days 2 --seed 7 --settings linux-9 --responses {path}"
    status, out, _ = fleet(capsys, f"{named} --json")
    settings = {one["name"]: one["mean_bytes"] for one in json.loads(out)["settings"]}
    names = ["all returns at once", "linux-9, last", "linux-9, anywhere", "nothing returns"]
    assert status == 0
    assert sorted(settings, key=lambda name: settings[name]) == names
    status, out, err = fleet(capsys, f"check --vm-days 1 {named}")
    assert status == 0
    assert "1 days of VMs, of a made-up fleet, 30 VMs, seed 7," in out
    assert "each simulated with 256 MiB of RAM" in out
    assert "2 of 2 days" in err
    learned = json.loads(path.read_text())
    for one in learned["learned"]:
        one["left"] = [0.4] * len(one["left"])
    path.write_text(json.dumps(learned))
    status, out, _ = fleet(capsys, f"check --vm-days 1 {named} --json")
    answer = json.loads(out)
    assert status == 1
    assert answer["verdicts"][0]["most_off"] > 0.06
    assert answer["days"][0]["modelled"] > answer["days"][0]["simulated"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("learn --settings best", "there is no setting 'best'; choose from off, linux-9"),
        ("learn --settings linux-9", "with --settings the file has only those: name one of its own with --out"),
        ("learn --seed -1", "the seed must be from 0 to 2^62 - 1, not -1"),
        ("learn --out /", "it is a folder"),
        ("learn --costs /nowhere.json", "the costs /nowhere.json cannot be read"),
        ("check --vm-days 0", "--vm-days must be from 1 to 10,000, not 0"),
        ("check --settings best", "there is no setting 'best'"),
        ("learn --settings off:0.5+linux-9:0.5 --out a.json", "learn its parts by their names, and mix them with"),
        ("learn --settings linux-9:1 --out a.json", "learn its parts by their names, and mix them with"),
        ("check --responses /nowhere.json", "the responses /nowhere.json cannot be read"),
        ("--settings best", "there is no setting 'best'"),
        ("--settings off:0.5+best:0.5", "there is no setting 'best'"),
        ("--settings off:half+linux-9:0.5", "is not a mix of settings; write it like linux-9:0.3+off:0.7"),
        ("--settings off+linux-9", "is not a mix of settings; write it like linux-9:0.3+off:0.7"),
        ("--settings off:0.5+off:0.5", "a mix has each setting once, with a share above 0 and at most 1"),
        ("--settings off:1.5+linux-9:-0.5", "a mix has each setting once, with a share above 0 and at most 1"),
        ("--settings off:0.5+linux-9:0.6", "the shares of a mix add up to 1, unlike those of"),
        ("--settings off:nan+linux-9:0.6", "a mix has each setting once, with a share above 0 and at most 1"),
        ("--responses /nowhere.json", "the responses /nowhere.json cannot be read"),
    ],
)
def test_bad_arguments_are_one_sentence(capsys: pytest.CaptureFixture[str], arguments: str, sentence: str) -> None:
    """With status 2, and nothing on standard output."""
    status, out, err = fleet(capsys, arguments)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_long_mixture_stands_apart_in_the_table() -> None:
    """Of its name and the kind of guest neither runs into the other."""
    name = "linux-9:0.25+off:0.25+balloon:0.5"
    checked = [Checked(vm="a", day=0, setting=name, guest="last", used=0.1, simulated=0.2, modelled=0.2)]
    assert f"{name} last " in model._table("made up", verdicts(checked), checked)


def test_a_response_that_was_not_learned_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what to do."""
    path = tmp_path / "none.json"
    path.write_text('{"ram_bytes": 1, "mix": "0=1", "seed": 1, "costs": "", "learned": []}')
    assert fleet(capsys, f"--settings pool --responses {path}")[::2] == (
        2,
        "pagetide: no response of pool was learned: `pagetide fleet learn` does it\n",
    )
