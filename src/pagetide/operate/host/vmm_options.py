"""What a VMM's command line says of its balloon and of devices that it passes through."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
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
_MEMORY_DEVICES = ("pc-dimm", "nvdimm", "virtio-mem", "virtio-pmem")
_SHIFTS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
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


def backends_of(vmm: Vmm, words: Sequence[str], told: Sequence[int]) -> list[int]:
    """Sizes of the memory backends that are a guest's memory.

    Args:
        vmm: which program.
        words: its command line.
        told: what its monitor says, which knows those that were plugged in since, and not which ones are in use; none
            if it was not asked.

    Returns:
        None of them unless all that the command line uses are there, and are understood: one that is missing would
        have another mapping taken for it. So it is where a file says how much memory there is (-readconfig).
    """
    if vmm != "QEMU":
        return list(told)
    sizes = {
        str(each.get("id")): _size_bytes(each.get("size"))
        for each in _options(words, {"-object", "--object"}, first="qom-type")
        if str(each.get("qom-type", "")).startswith("memory-backend-")
    }
    of_machine, of_devices = set(_machine_backends(words)), set(_device_backends(words))
    used = of_machine | of_devices
    if told:
        left = list(told)
        for name, size_bytes in sizes.items():
            if name not in used and size_bytes in left:
                left.remove(size_bytes)
        return left
    found = [size_bytes for name, size_bytes in sizes.items() if name in used]
    if not of_machine:
        found.append(_memory_bytes(words))
    understood = [size_bytes for size_bytes in found if size_bytes is not None]
    return understood if used <= sizes.keys() and len(understood) == len(found) else []


def _machine_backends(words: Sequence[str]) -> Iterator[str]:
    """Names of the memory backends that are the machine's, or a NUMA node's."""
    for option, name in (("machine", "memory-backend"), ("M", "memory-backend"), ("numa", "memdev")):
        yield from (str(each[name]) for each in _options(words, {f"-{option}", f"--{option}"}) if name in each)


def _device_backends(words: Sequence[str]) -> Iterator[str]:
    """Names of those that are a memory device's."""
    for each in _devices(words):
        if str(each.get("driver")).startswith(_MEMORY_DEVICES):
            yield str(each.get("memdev"))


def _memory_bytes(words: Sequence[str]) -> int | None:
    """What `-m` says, in MiB if a digit is its last character (parse_memory_options, system/vl.c, QEMU 7.2)."""
    said = [each["size"] for each in _options(words, {"-m", "--m"}, first="size") if "size" in each]
    size_bytes = _size_bytes(said[-1]) if said else None
    return size_bytes << 20 if size_bytes is not None and str(said[-1])[-1].isdigit() else size_bytes


def _size_bytes(said: object) -> int | None:
    """A size as QEMU reads it: in bytes, or with a suffix, when it may have a fraction (qemu_strtosz, util/cutils.c).

    Returns:
        None if it is none.
    """
    text = str(said).lower()
    if match := re.fullmatch(r"(0x[0-9a-f]{1,16})([kmgtp]?)", text):
        return int(match[1], 16) << _SHIFTS[match[2]]
    if match := re.fullmatch(r"([0-9]{1,20})([bkmgtpe]?)", text):
        return int(match[1]) << _SHIFTS[match[2]]
    if match := re.fullmatch(r"([0-9]{0,20}\.[0-9]{1,20})([kmgtpe])", text):
        return int(Fraction(match[1]) * (1 << _SHIFTS[match[2]]))
    return None


def passes_devices(words: Sequence[str]) -> bool:
    """Whether QEMU is to pass a device through: by vfio, or by vDPA."""
    backends = _options(words, {"-netdev", "--netdev"}, first="type")
    return any(str(each.get("driver", "")).startswith(("vfio-", "vhost-vdpa-")) for each in _devices(words)) or any(
        each.get("type") == "vhost-vdpa" for each in backends
    )


def holds_device(names: Iterable[str]) -> bool:
    """Whether one of a process's descriptors, by their names in /proc/PID/fd, is of a device that was passed through.

    So it is seen that was plugged in since the start, too.
    """
    return any(name.startswith(("/dev/vfio/", "anon_inode:[vfio-device]", "/dev/vhost-vdpa-")) for name in names)


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


def _options(words: Sequence[str], names: set[str], first: str = "driver") -> Iterator[dict[str, Any]]:
    """The properties of each of these options, written with commas or as JSON; the first word has this name."""
    for option, value in itertools.pairwise(words):
        if option not in names:
            continue
        if value.startswith("{"):
            try:
                properties = json.loads(value)
            except (ValueError, RecursionError):
                continue
            if isinstance(properties, dict):
                yield {name: each for name, each in properties.items() if isinstance(each, str | int | bool)}
            continue
        word, *others = value.replace(",,", "\0").split(",")
        pairs = (other.replace("\0", ",").partition("=") for other in (*([word] if "=" in word else []), *others))
        yield ({} if "=" in word else {first: word}) | {name: each if mark else True for name, mark, each in pairs}
