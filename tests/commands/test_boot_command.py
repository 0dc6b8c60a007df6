"""`pagetide boot`, with a machine that boots nothing."""

import json
import re
import socket
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.commands import boot as boot_command
from pagetide.machine.config_error import ConfigError
from pagetide.machine.linux.architectures import ARCHITECTURES
from pagetide.machine.linux.balloon_host import BalloonHost, HypervisorHost, OwnHost
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.daemon_host import DaemonHost
from pagetide.machine.linux.guest import Hypervisor
from pagetide.machine.linux.packages import GuestParts, QemuProgram
from pagetide.machine.linux.qemu import Qemu
from pagetide.machine.linux.uml import UserModeLinux
from pagetide.machine.result import RunResult
from tests.cli.refusal import assert_refused
from tests.commands.fake_machine import FakeMachine, result_of

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


HOST_UNTOLD = {
    "reports": None,
    "reported_bytes": None,
    "discarded_bytes": None,
    "returned_bytes": None,
    "checked_bytes": None,
    "verified_bytes": None,
    "skipped_bytes": None,
    "host_cpu_s": None,
}

NAMES = ", ".join(ARCHITECTURES)

Made = tuple[BootConfig, Hypervisor, BalloonHost]


class FakeLinux(FakeMachine):
    """Plays a run of a guest that does not tell all."""

    made: list[Made] = []  # noqa: RUF012 - for the tests that read it

    def __init__(self, config: BootConfig, hypervisor: Hypervisor, host: BalloonHost) -> None:
        self.made.append((config, hypervisor, host))
        samples = result_of().samples
        samples.reported_bytes = [None] * len(samples.t_s)
        changes = UNTOLD | (HOST_UNTOLD if isinstance(host, HypervisorHost) else {})
        super().__init__(config.run_config(), guest="Linux 6.1", samples=samples, **changes)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[Made]:
    """Replaces the machine and what is installed; with what it was made."""
    FakeLinux.made.clear()
    parts = GuestParts(Path(), "6.1", [], Path())
    monkeypatch.setattr(boot_command, "find_uml", lambda kernel: parts)
    monkeypatch.setattr(boot_command, "find_linux", lambda kernel, architecture: parts)
    monkeypatch.setattr(
        boot_command,
        "find_qemu",
        lambda program, generic, architecture: QemuProgram(program or Path(architecture.program), "7.2"),
    )
    monkeypatch.setattr(boot_command, "LinuxMachine", FakeLinux)
    return FakeLinux.made


def test_options_become_settings(fake: list[Made]) -> None:
    """Each option is its setting; what is not given keeps its default."""
    arguments = "boot uml --ram 512MiB --fill 300MiB --bursts 2 --hold 0.5 --order 7 --verify 0.5"
    assert cli.main(arguments.split()) == 0
    assert [made[0] for made in fake] == [
        BootConfig(ram_bytes=512 << 20, fill_bytes=300 << 20, bursts=2, hold_s=0.5, order=7, verify_share=0.5)
    ]
    fake.clear()
    assert cli.main(["boot", "uml"]) == 0
    assert [made[0] for made in fake] == [BootConfig()]


def test_what_a_guest_does_not_tell_is_null_and_a_dash(
    fake: list[Made], capsys: pytest.CaptureFixture[str], tmp_path: Path
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


def test_who_serves_the_balloon_is_chosen(fake: list[Made], tmp_path: Path) -> None:
    """A host of ours, a running daemon, or QEMU itself; and QEMU's guest has the balloon to match."""
    path = tmp_path / "vm1.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        for arguments, hypervisor, host, is_balloon in (
            ("uml", UserModeLinux, OwnHost, False),
            (f"uml --socket {path}", UserModeLinux, DaemonHost, False),
            ("qemu", Qemu, OwnHost, False),
            (f"qemu --socket {path} --control {tmp_path}/c", Qemu, DaemonHost, False),
            ("qemu --peer --qemu /some/qemu", Qemu, HypervisorHost, True),
        ):
            fake.clear()
            assert cli.main(["boot", *arguments.split()]) == 0
            ((_, made_hypervisor, made_host),) = fake
            assert (type(made_hypervisor), type(made_host)) == (hypervisor, host)
            assert made_hypervisor.is_balloon is is_balloon


def test_another_architecture_has_its_own_machine_and_memory(fake: list[Made]) -> None:
    """QEMU's program, machine, processor and console are the architecture's, and so is the default of RAM."""
    assert cli.main(["boot", "qemu", "--arch", "arm64-16k"]) == 0
    assert cli.main(["boot", "qemu", "--arch", "arm64-16k", "--ram", "1GiB"]) == 0
    assert cli.main(["boot", "qemu", "--arch", "s390x", "--peer"]) == 0
    (config, arm, _), (smaller, _, _), (_, s390x, _) = fake
    assert (config.ram_bytes, smaller.ram_bytes) == (3 << 30, 1 << 30)
    assert arm.name == "QEMU 7.2 arm64-16k"
    ours = arm.command(config, Path(), Path("initrd"), Path("vm1.sock"))
    assert ours[0] == "qemu-system-aarch64"
    assert "virt,memory-backend=ram" in ours
    assert "console=ttyAMA0 quiet panic=-1" in ours
    theirs = s390x.command(config, Path(), Path("initrd"), None)
    assert "virtio-balloon-ccw,free-page-reporting=on" in theirs


def test_what_no_ledger_tells_is_null_and_a_dash(
    fake: list[Made], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With QEMU's own balloon nobody says what was reported: null in the JSON, a dash in the summary."""
    path = tmp_path / "boot.json"
    assert cli.main(["boot", "qemu", "--peer", "--json", str(path)]) == 0
    written = json.loads(path.read_text())
    assert set(written) == set(RunResult.__struct_fields__)
    assert {name: written[name] for name in HOST_UNTOLD} == HOST_UNTOLD
    out = capsys.readouterr().out
    for name in ("reports", "reported", "discarded", "verified gone", "host CPU time"):
        assert re.search(rf"{name} +–", out)  # noqa: RUF001
    assert "verified to be gone" not in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("boot uml --peer", "--peer is QEMU's own balloon"),
        ("boot uml --qemu /some/qemu", "--qemu is for pagetide boot qemu"),
        ("boot qemu --peer --socket /tmp", "--peer and --socket exclude each other"),
        ("boot qemu --peer --verify 1", "QEMU reads nothing back"),
        ("boot qemu --ram 64MiB --fill 8MiB", "a guest under QEMU 7.2 needs at least 128 MiB of RAM, not 64 MiB"),
        ("boot uml --arch arm64", "--arch is for pagetide boot qemu"),
        (
            "boot qemu --arch vax",
            f"'vax' is no architecture that can be booted: it is one of {', '.join(ARCHITECTURES)}",
        ),
        ("boot qemu --arch s390x", "one MSI-X vector and no other interrupt"),
        ("boot qemu --arch arm64 --ram 128MiB --fill 8MiB", "a guest under QEMU 7.2 arm64 needs at least 256 MiB"),
        ("boot uml --control /tmp/c", "--control is for --socket"),
        ("boot uml --socket /nowhere", "no socket /nowhere: pagetide serve --socket /nowhere makes one"),
        ("boot uml --socket /nowhere/vm1.sock", "or pagetide ctl add vm1, if a daemon serves that folder"),
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
    fake: list[Made], capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    """One line on standard error, and nothing is booted."""
    assert_refused(capsys, arguments.split(), sentence)
    assert fake == []


def test_a_missing_package_is_one_sentence_and_status_2(
    fake: list[Made], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What installs it is on standard error, and nothing is booted."""

    def find_nothing(_: Path | None) -> GuestParts:
        raise ConfigError("the program linux.uml is missing: as root, apt-get install user-mode-linux")

    monkeypatch.setattr(boot_command, "find_uml", find_nothing)
    assert cli.main(["boot", "uml"]) == 2
    expected = "pagetide: the program linux.uml is missing: as root, apt-get install user-mode-linux\n"
    assert capsys.readouterr().err == expected
    assert fake == []
