"""`pagetide why` as a command: what it prints, saves and refuses."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from pagetide import cli
from pagetide.commands import why as why_command
from pagetide.commands.why import Output, Sources
from pagetide.operate.evidence import Evidence, load_evidence, save_evidence
from pagetide.operate.gather import GatherError
from pagetide.operate.guest.script import GUEST_SCRIPT
from pagetide.units import GIB, MIB
from tests.cli.refusal import assert_refused
from tests.operate.test_balance import make_evidence, make_guest, make_vm


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


def test_no_line_but_a_command_is_wider_than_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Free blocks of all orders are told on several lines, and nothing is left over at the end."""
    path = tmp_path / "vm.json"
    save_evidence(make_evidence(GIB - 200 * MIB, make_guest({order: 9000 >> order for order in range(9)})), path)
    assert why_command.why(Sources(load=path), Output(columns=80)) == 0
    out = capsys.readouterr().out
    assert "by order" in out
    assert [line for line in out.splitlines() if len(line) > 80 and ": " not in line[:20]] == []
    assert not out.endswith("\n\n")


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
        ("--watch 5", 2, "name the VM"),
        ("1 --guest /dev/null --agent /qga", 2, "give one"),
        ("1 --watch 5 --json", 2, "goes with no file and no --json"),
        ("1 --watch 0.1", 2, "looks every 0.5 to 86400 s"),
        ("1 --watch nan", 2, "looks every 0.5 to 86400 s"),
        ("1 --html /nowhere/at/all.html", 2, "there is no folder /nowhere/at"),
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
    assert_refused(capsys, ["why", *arguments.split()], sentence, status)


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


def test_a_page_needs_nothing_else_and_takes_nothing_for_markup(saved: Path, tmp_path: Path) -> None:
    """What a guest says stays text, there is no script and no address, and every class and finding is there."""
    evidence = json.loads(saved.read_bytes())
    evidence["gaps"] = ["<script>alert(1)</script> & more"]
    saved.write_text(json.dumps(evidence))
    path = tmp_path / "vm.html"
    assert cli.main(["why", "--from", str(saved), "--html", str(path)]) == 0
    text = path.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert not re.search(r"<script|https?:|src=|@import|url\(", text)
    assert '<th scope="row">free, could be reported</th><td class="size">300 MiB</td>' in text
    assert "300 MiB: no-balloon-device" in text
    assert "<pre>device_add {&#34;driver&#34;:&#34;virtio-balloon-pci&#34;" in text


def test_watching_shows_what_changes(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Look after look, with the difference at the head, until Ctrl-C or until the VM is gone."""
    first = load_evidence(saved)
    second = msgspec.structs.replace(first, vm=make_vm(GIB - 300 * MIB), taken="2026-11-29T12:00:05+00:00")
    looks: list[Evidence | GatherError] = [first, second, GatherError("there is no process 1")]

    def gather_next(*_: object) -> Evidence:
        look = looks.pop(0)
        if isinstance(look, GatherError):
            raise look
        return look

    monkeypatch.setattr(why_command, "gather", gather_next)
    waits: list[float] = []
    assert why_command.why(Sources("1"), Output(watch_s=5.0), wait=waits.append) == 1
    out, err = capsys.readouterr()
    assert waits == [5.0, 5.0]
    assert err == "pagetide: there is no process 1\n"
    assert "since 2026-11-29T12:00:00+00:00: -100 MiB (free, could be reported -100 MiB)" in out
    assert (
        out.index("300 MiB  The VM has no balloon") < out.index("since ") < out.index("200 MiB  The VM has no balloon")
    )


def test_the_guests_agent_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody there is one sentence, before the VM is looked at."""
    assert cli.main(["why", "1", "--agent", str(tmp_path / "qga")]) == 1
    assert "qga cannot be reached: No such file" in capsys.readouterr().err
