"""`pagetide boot`: a real Linux guest, seen live and summed up as `run` does it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pagetide.commands.daemon.control_path import default_control_path
from pagetide.commands.run import run
from pagetide.machine.config_error import ConfigError
from pagetide.machine.linux.architectures import AMD64, Architecture, find_architecture
from pagetide.machine.linux.balloon_host import BalloonHost, HypervisorHost, OwnHost
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.daemon_host import DaemonHost
from pagetide.machine.linux.guest import Hypervisor
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.linux.packages import find_linux, find_qemu, find_uml
from pagetide.machine.linux.qemu import Qemu
from pagetide.machine.linux.uml import UserModeLinux
from pagetide.units import format_size, parse_size

_FIELDS = {
    "ram": "ram_bytes",
    "fill": "fill_bytes",
    "bursts": "bursts",
    "hold": "hold_s",
    "order": "order",
    "sieve": "sieve",
    "build": "build",
    "tend": "tend",
    "verify": "verify_share",
}


class BootChoice(NamedTuple):
    """What is booted, and who serves its balloon.

    Attributes:
        kind: what runs the guest.
        peer: whether the balloon is QEMU's own.
        socket: where a running daemon serves, instead of a host's process of ours.
        control: where that daemon answers questions.
        qemu: the QEMU to take.
        kernel: the kernel to boot.
        arch: the guest's architecture and flavour, if another than amd64.
    """

    kind: Literal["uml", "qemu"]
    peer: bool = False
    socket: Path | None = None
    control: Path | None = None
    qemu: Path | None = None
    kernel: Path | None = None
    arch: str | None = None

    @property
    def architecture(self) -> Architecture:
        """The guest's.

        Raises:
            ConfigError: there is none of this name.
        """
        return AMD64 if self.arch is None else find_architecture(self.arch)

    def check(self, given: Mapping[str, Any]) -> None:
        """Raise ConfigError for options that do not go together; `given` are the others."""
        no_ours = (
            f"a guest of {self.arch} cannot have our balloon: QEMU's generic device has one MSI-X vector and no other "
            "interrupt, and Linux's driver needs one more there; --peer gives it QEMU's own"
        )
        checks = (
            (self.peer and self.kind != "qemu", "--peer is QEMU's own balloon: pagetide boot qemu --peer"),
            (self.qemu is not None and self.kind != "qemu", "--qemu is for pagetide boot qemu"),
            (self.arch is not None and self.kind != "qemu", "--arch is for pagetide boot qemu"),
            (not self.peer and not self.architecture.serves_generic, no_ours),
            (
                self.peer and self.socket is not None,
                "--peer and --socket exclude each other: whose balloon is it to be?",
            ),
            (self.control is not None and self.socket is None, "--control is for --socket, a daemon that runs already"),
            (
                given["verify"] is not None and (self.peer or self.socket is not None),
                "--verify is for a host of our own: a running daemon has its own, and QEMU reads nothing back",
            ),
        )
        for wrong, sentence in checks:
            if wrong:
                raise ConfigError(sentence)
        if self.socket is not None and not self.socket.is_socket():
            raise ConfigError(
                f"there is no socket {self.socket}: pagetide serve --socket {self.socket} makes one, "
                f"or pagetide ctl add {self.socket.stem}, if a daemon serves that folder"
            )


def make_boot_config(given: Mapping[str, Any], architecture: Architecture = AMD64) -> BootConfig:
    """The settings of one boot: defaults, overridden by what is given.

    Args:
        given: settings by the names of their options; sizes as text. A value of None is not given.
        architecture: the guest's, which has its own default of RAM.

    Raises:
        ConfigError: a size cannot be read, or a value is out of its range.
    """
    fields: dict[str, Any] = {"ram_bytes": architecture.ram_bytes}
    for name, value in given.items():
        if value is None:
            continue
        try:
            fields[_FIELDS[name]] = parse_size(value) if isinstance(value, str) else value
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error
    config = BootConfig(**fields)
    config.check()
    return config


def boot(choice: BootChoice, config: BootConfig, json_path: str | None) -> int:
    """Boot a guest once, show it, and say how it ended as an exit status.

    Args:
        choice: what is booted, checked.
        config: the settings, checked.
        json_path: as for `run`.

    Raises:
        ConfigError: this machine cannot do it, or a package is missing; nothing was run.
    """
    hypervisor, host = find_hypervisor(choice), _host(choice, config)
    if config.ram_bytes < hypervisor.ram_bytes_min:
        least, asked = format_size(hypervisor.ram_bytes_min), format_size(config.ram_bytes)
        raise ConfigError(f"a guest under {hypervisor.name} needs at least {least} of RAM, not {asked}")
    return run(config.run_config(), json_path, make_machine=lambda _: LinuxMachine(config, hypervisor, host))


def find_hypervisor(choice: BootChoice) -> Hypervisor:
    """What runs the guest.

    Raises:
        ConfigError: a package is missing.
    """
    if choice.kind == "uml":
        return UserModeLinux(find_uml(choice.kernel))
    architecture = choice.architecture
    program = find_qemu(choice.qemu, generic=not choice.peer, architecture=architecture)
    parts = find_linux(choice.kernel, architecture=architecture)
    return Qemu(parts, program, is_balloon=choice.peer, architecture=architecture)


def _host(choice: BootChoice, config: BootConfig) -> BalloonHost:
    if choice.peer:
        return HypervisorHost()
    if choice.socket is not None:
        return DaemonHost(choice.socket, choice.control or default_control_path())
    return OwnHost(config)
