"""What a VMM's command line says of its balloon and of devices that it passes through."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from pagetide.operate.host.vmm_facts import BalloonOption, Vmm

_QEMU = ("qemu-system-", "qemu-kvm")
_OTHERS: dict[str, Vmm] = {
    "kvm": "QEMU",
    "firecracker": "Firecracker",
    "cloud-hypervisor": "Cloud Hypervisor",
    "crosvm": "crosvm",
    "linux.uml": "User-Mode Linux",
}
_GENERIC = "vhost-user-test-device"
_BALLOON_ID = "5"
_ON = {"on", "true", "yes", "y", True}


def which_vmm(program: str, words: Sequence[str]) -> Vmm:
    """Which VMM this is, by the program's name and its command line."""
    if program.startswith(_QEMU):
        return "QEMU"
    if program in _OTHERS:
        return _OTHERS[program]
    # a User-Mode Linux may be called anything, and is often `linux`
    if any(word.startswith(("uml_dir=", "umid=", "ubd0", "virtio_uml.device=")) for word in words):
        return "User-Mode Linux"
    return "not known"


def find_balloons(vmm: Vmm, words: Sequence[str]) -> tuple[BalloonOption, ...] | None:
    """The balloons on this command line; None for a VMM whose options are not read."""
    if vmm == "QEMU":
        return tuple(_qemu_balloons(words))
    if vmm == "User-Mode Linux":
        devices = [word for word in words if word.startswith("virtio_uml.device=")]
        ours = [word for word in devices if word.split(":")[1:2] == [_BALLOON_ID]]
        return tuple(BalloonOption(is_ours=True, offers_reporting=None) for _ in ours)
    return None


def passes_devices(words: Sequence[str]) -> bool:
    """Whether QEMU is to pass a device through."""
    return any(str(properties.get("driver", "")).startswith("vfio-") for properties in _devices(words))


def balloon_sockets(vmm: Vmm, words: Sequence[str]) -> list[str]:
    """Where the balloons are that are behind a socket, as the command line has it."""
    if vmm == "User-Mode Linux":
        devices = [word.removeprefix("virtio_uml.device=") for word in words if word.startswith("virtio_uml.device=")]
        return [device.split(":")[0] for device in devices if device.split(":")[1:2] == [_BALLOON_ID]]
    behind = {properties.get("chardev") for properties in _devices(words) if _is_generic_balloon(properties)}
    chardevs = _options(words, {"-chardev", "--chardev"})
    return [str(each["path"]) for each in chardevs if each.get("id") in behind and "path" in each]


def _is_generic_balloon(properties: dict[str, Any]) -> bool:
    return str(properties.get("driver", "")).startswith(_GENERIC) and str(properties.get("virtio-id")) == _BALLOON_ID


def _qemu_balloons(words: Sequence[str]) -> Iterator[BalloonOption]:
    for properties in _devices(words):
        driver = str(properties.get("driver", ""))
        if driver.startswith("virtio-balloon"):
            yield BalloonOption(is_ours=False, offers_reporting=properties.get("free-page-reporting") in _ON)
        elif _is_generic_balloon(properties):
            yield BalloonOption(is_ours=True, offers_reporting=None)


def _devices(words: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The properties of each `-device`."""
    return _options(words, {"-device", "--device"})


def _options(words: Sequence[str], names: set[str]) -> Iterator[dict[str, Any]]:
    """The properties of each of these options, written with commas or as JSON; the first word is the driver."""
    for option, value in itertools.pairwise(words):
        if option not in names:
            continue
        if value.startswith("{"):
            try:
                properties = json.loads(value)
            except ValueError:
                continue
            if isinstance(properties, dict):
                yield {name: each for name, each in properties.items() if isinstance(each, str | int | bool)}
            continue
        driver, *others = value.replace(",,", "\0").split(",")
        pairs = (other.replace("\0", ",").partition("=") for other in others)
        yield {"driver": driver} | {name: each if mark else True for name, mark, each in pairs}
