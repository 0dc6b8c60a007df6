"""`pagetide why` as a command: what it prints, saves and refuses."""

import json
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.operate.evidence import save_evidence
from pagetide.operate.guest.script import GUEST_SCRIPT
from pagetide.units import GIB, MIB
from tests.operate.test_balance import make_evidence, make_guest


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Evidence of a VM without a balloon device, 500 MiB free and 300 of that held."""
    guest = make_guest({9: 250}, balloons=())
    path = tmp_path / "vm.json"
    save_evidence(make_evidence(GIB - 200 * MIB, guest), path)
    return path


def test_the_script_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """To be piped to a file, or to a guest."""
    assert cli.main(["why", "--guest-script"]) == 0
    assert capsys.readouterr() == (GUEST_SCRIPT, "")


def test_an_answer_says_what_is_held_why_and_what_to_do(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Balance first, then the cause with its evidence, remedy, return and cost; no line of prose is too long."""
    assert cli.main(["why", "--from", str(saved)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "The host holds 834 MiB for this VM of 1 GiB:" in out
    assert "free, could be reported                      300 MiB" in out
    assert "1. 300 MiB  The VM has no balloon device" in out
    assert "because  the guest has no virtio device of type 5" in out
    assert 'QEMU: device_add {"driver":"virtio-balloon-pci"' in out
    assert "returns  about 300 MiB" in out
    assert "costs    " in out


def test_json_has_all_of_it(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes add up, and findings have their figures as numbers."""
    assert cli.main(["why", "--from", str(saved), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert sum(answer["balance"]["classes"].values()) == answer["balance"]["held_bytes"] == 834 * MIB
    (finding,) = answer["findings"]
    assert (finding["cause"], finding["size_bytes"]) == ("no-balloon-device", 300 * MIB)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ("--guest-script --json", 2, "--guest-script only prints the script"),
        ("--guest /dev/null", 2, "name the VM"),
        ("1 --from /dev/null", 2, "--from has all there is to answer from"),
        ("--from /dev/null", 1, "/dev/null is no evidence that `pagetide why --save` wrote"),
        ("--from /nowhere", 1, "/nowhere cannot be read: No such file"),
        ("1 --guest /dev/null", 1, "this is no text of the guest script"),
        ("1 --guest /nowhere", 1, "the guest's text cannot be read from /nowhere"),
        ("4194305", 1, "there is no process 4194305"),
        ("/nowhere/qmp", 1, "/nowhere/qmp is no socket"),
        ("vm1 --control /nowhere/c", 1, "no daemon that could have a guest of this name answers at /nowhere/c"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(
    arguments: str, status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing on standard output, one line on standard error, and a status."""
    assert cli.main(["why", *arguments.split()]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pagetide: ")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("damage", [("held_bytes", '"x"'), ("format", "2"), ("own_bytes", "-1"), ("pid", "1e400")])
def test_a_damaged_file_is_refused(saved: Path, damage: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A figure that cannot be is said where it stands."""
    name, value = damage
    lines = saved.read_text().splitlines()
    place = next(at for at, line in enumerate(lines) if f'"{name}"' in line)
    comma = "," if lines[place].endswith(",") else ""
    lines[place] = f'"{name}": {value}{comma}'
    saved.write_text("\n".join(lines))
    assert cli.main(["why", "--from", str(saved)]) == 1
    assert "is no evidence that `pagetide why --save` wrote" in capsys.readouterr().err


def test_vms_on_this_host_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """As a table or JSON; a host without any says so."""
    assert cli.main(["why"]) == 0
    assert "process  VMM" in (out := capsys.readouterr().out) or "no VM is found" in out
    assert cli.main(["why", "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)
