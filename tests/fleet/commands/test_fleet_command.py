"""`pagetide fleet`, from its arguments to what is printed."""

import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from pagetide import cli
from pagetide.commands.fleet import hosts
from pagetide.machine.costs import read_costs
from pagetide.units import GIB

TABLE = """host;t;ram;active
a;0;4;1
a;300;4;3
a;600;4;2
b;0;2;1
b;300;2;3
b;600;0;0
b;600;2;1
"""
NAMED = "--vm-column host --time-column t --capacity-column ram --used-column active --memory-unit GiB"


def fleet(capsys: pytest.CaptureFixture[str], arguments: str) -> tuple[int, str, str]:
    """Status, standard output and standard error."""
    status = cli.main(["fleet", *arguments.split()])
    return status, *capsys.readouterr()


def test_a_table_becomes_bounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What returns nothing holds the most used so far, what returns all what is used; both to the byte, as JSON."""
    path = tmp_path / "usage.csv"
    path.write_text(TABLE)
    assert fleet(capsys, f"--usage {path} {NAMED}")[:2] == (1, "")  # two of seven are odd
    path.write_text(TABLE + "".join(f"c;{300 * step};1;0.5\n" for step in range(3)))
    status, out, _ = fleet(capsys, f"--usage {path} {NAMED} --json")
    answer = json.loads(out)
    nothing, *learned, everything = answer["settings"]
    assert status == 0
    assert (nothing["mean_bytes"], nothing["most_bytes"]) == ((2.5 + 5.5 + 5.5) / 3 * GIB, 5.5 * GIB)
    assert (everything["mean_bytes"], everything["most_at_s"]) == ((2.5 + 5.5 + 3.5) / 3 * GIB, 300)
    assert everything["mosts_bytes"] == 5.5 * GIB
    assert {one["name"].split(",")[0] for one in learned} == {"linux-9", "linux-0", "pool-0"}
    for one in learned:
        assert everything["mean_bytes"] <= one["mean_bytes"] <= nothing["mean_bytes"]
    assert answer["provisioned_bytes"] == 7 * GIB
    assert {name: odd["samples"] for name, odd in answer["oddities"].items()} == {"off": 1, "over": 1, "repeated": 1}


def test_what_is_odd_is_told_with_its_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As text: where it came from, every oddity, the bounds, and what they are."""
    path = tmp_path / "usage.csv"
    path.write_text(TABLE + "".join(f"c;{300 * step};1;0.5\n" for step in range(3)))
    status, out, err = fleet(capsys, f"--usage {path} {NAMED}")
    assert status == 0
    assert f"{path}: 3 VMs over 0.01042 days in steps of 300 s" in out
    assert "odd: 1 samples with more used than there is (of VM b): cut to the capacity" in out
    assert "4.5 GiB" in out
    assert "bounds that need no model" in out
    assert "linux-9, anywhere" in out
    assert "3 of 3 VMs read" in err


def test_one_kind_of_guest_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """With --guests a setting is one column between the bounds, with the figures that it has beside the other."""
    both = json.loads(fleet(capsys, "--vms 20 --days 1 --settings linux-9 --json")[1])["settings"]
    one = json.loads(fleet(capsys, "--vms 20 --days 1 --settings linux-9 --guests anywhere --json")[1])["settings"]
    assert [found["name"] for found in one[1:-1]] == ["linux-9, anywhere"]
    assert one == [found for found in both if found["name"] != "linux-9, last"]


def test_without_usage_a_fleet_is_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    """It is said that it is, and the seed decides what is printed."""
    first = fleet(capsys, "--vms 20 --days 2 --seed 5")
    assert first[0] == 0
    assert "a made-up fleet, 20 VMs, seed 5" in first[1]
    assert fleet(capsys, "--vms 20 --days 2 --seed 5")[1] == first[1]
    assert fleet(capsys, "--vms 20 --days 2 --seed 6")[1] != first[1]


def test_a_fleet_that_is_never_on_is_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of its VMs are switched off: nothing is held, no plan is the densest, and the report says so."""
    path = tmp_path / "usage.csv"
    path.write_text("vm,at,capacity_bytes,used_bytes\n" + "".join(f"a,{300 * step},0,0\n" for step in range(8)))
    status, out, _ = fleet(capsys, f"--usage {path} --out {tmp_path}/plan --vm-column vm --time-column at --json")
    assert status == 0
    for one in json.loads(out)["settings"]:
        assert (one["most_bytes"], one["densest"], one["density"]) == (0, "", None)
    assert "No VM used anything at any time" in (tmp_path / "plan" / "report.html").read_text()


def test_only_the_very_same_usage_and_code_are_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another unit, another column, other samples under the same name, or other sources of ours: each is refused."""
    path = tmp_path / "usage.csv"
    rows = [f"a,{300 * step},8,{step % 4 + 1},{step % 3 + 1}" for step in range(12)]

    def again(more: str = "", active: str = "active") -> tuple[int, str]:
        named = f"--usage {path} --out {tmp_path}/plan --vm-column vm --time-column at --capacity-column ram"
        quick = "--settings linux-9 --place reservation --draws 0"
        return fleet(capsys, f"{named} --used-column {active} {quick} {more}")[::2]

    def write(*lines: str) -> None:
        path.write_text("\n".join(["vm,at,ram,active,other", *rows, *lines, ""]))

    write()
    assert again()[0] == 0
    assert again("--resume")[0] == 0
    for more, active in (("--memory-unit KiB", "active"), ("", "other")):
        assert again(f"--resume {more}", active) == (1, again("--resume --seed 9")[1])
    write("b,0,8,1,1")
    status, err = again("--resume")
    assert status == 1
    assert "are of another fleet, question or version" in err
    write()
    assert again("--resume")[0] == 0
    monkeypatch.setattr(hosts, "sources_digest", lambda: "of tomorrow")
    assert again("--resume")[0] == 1


def test_costs_that_are_missing_are_named_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of taking frames, which `shared` does: status 2, and no results."""
    path = tmp_path / "costs.json"
    path.write_bytes(msgspec.json.encode(replace(read_costs(), taking=None)))
    status, out, err = fleet(capsys, f"--vms 2 --days 1 --settings shared --costs {path} --out {tmp_path}/plan")
    assert (status, out) == (2, "")
    assert "these costs have none of the design shared" in err
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ("--vms 0", 2, "--vms must be from 1 to 1,000,000, not 0"),
        ("--days 1.5", 2, "'1.5' is not a whole number"),
        ("--seed -1", 2, "the seed must be from 0"),
        ("--usage /nowhere --vms 5", 2, "--vms makes a fleet up"),
        ("--drawn 5", 2, "--drawn is for recorded usage"),
        ("--resume", 2, "--resume needs --out"),
        ("--workers 0", 2, "--workers must be from 1 to 256, not 0"),
        ("--workers 2 --cluster tcp://h:1", 2, "--workers are processes of this machine"),
        ("--cluster somewhere", 2, "a Dask scheduler has an address such as"),
        ("--host-ram 1GiB --host-reserve 2GiB", 2, "a host's reserve must be below its 1 GiB"),
        ("--host-ram 0", 2, "a host needs memory: --host-ram is 0 B"),
        ("--host-ram much", 2, "'much' is not a size"),
        ("--place best-fit", 2, "there is no placement 'best-fit'"),
        ("--on-pressure pray", 2, "there is no answer 'pray' to pressure; choose from swap"),
        ("--risk-hours 1000", 2, "--risk-hours must be from 0 to the 720"),
        ("--draws -1", 2, "--draws must be from 0"),
        ("--vm-column host", 2, "columns and units are named for a file"),
        ("--usage /nowhere --memory-unit stones", 2, "there is no unit 'stones'; choose from B, KB"),
        ("--usage /nowhere", 1, "there is no usage in /nowhere"),
    ],
)
def test_bad_arguments_are_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: str, status: int, sentence: str
) -> None:
    """With status 2, or 1 for usage that cannot be read; nothing on standard output."""
    found, out, err = fleet(capsys, arguments)
    assert (found, out) == (status, "")
    assert sentence in err
    assert err.count("\n") == 1
