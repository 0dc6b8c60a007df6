"""Guests of other processors, page sizes and kernels than this machine's, as QEMU runs them with its translator.

Debian's names are used for architectures, and for a flavour of its kernels what follows the architecture's name, such
as `arm64-16k`. Which machine, processor and console a kernel of Debian boots with was tried with QEMU 11.1.
"""

from typing import NamedTuple

from pagetide.machine.config_error import ConfigError


class Architecture(NamedTuple):
    """What QEMU needs to know of a guest's kind.

    Attributes:
        name: as `pagetide boot qemu --arch` takes it, and as the folder of its files ends.
        target: QEMU's name of it; the program is qemu-system-TARGET.
        machine: QEMU's machine.
        cpu: QEMU's processor.
        console: Linux's name of the machine's first serial line.
        modules: what a kernel must load that does not have it built in, with underscores.
        balloon: QEMU's own balloon on this machine.
        serves_generic: whether the balloon's driver starts on QEMU's generic vhost-user device.
        ram_bytes: memory of a guest of which nothing else is asked: more than a report of 32 of its blocks, since Linux
            reports nothing while less than that is free (page_reporting_process_zone, mm/page_reporting.c, Linux 6.12).
    """

    name: str
    target: str
    machine: str
    cpu: str
    console: str
    modules: tuple[str, ...] = ("virtio_pci", "virtio_balloon")
    balloon: str = "virtio-balloon-pci"
    serves_generic: bool = True
    ram_bytes: int = 1 << 30

    @property
    def program(self) -> str:
        """QEMU's program for it."""
        return f"qemu-system-{self.target}"


AMD64 = Architecture("amd64", "x86_64", "q35", "max", "ttyS0")
"""The architecture of a guest of which no other is asked."""

AMD64_TRIXIE = AMD64._replace(name="amd64-trixie")
"""The same with the kernel of Debian 13, whatever this machine's own is."""

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        AMD64,
        Architecture("i386", "x86_64", "q35", "max", "ttyS0"),
        # With QEMU's own choice most of the time goes into computing pointer authentication codes.
        Architecture("arm64", "aarch64", "virt", "max,pauth-impdef=on", "ttyAMA0"),
        Architecture("arm64-16k", "aarch64", "virt", "max,pauth-impdef=on", "ttyAMA0", ram_bytes=3 << 30),
        Architecture("ppc64el", "ppc64", "pseries", "power9", "hvc0"),
        Architecture("ppc64el-64k", "ppc64", "pseries", "power9", "hvc0"),
        Architecture("riscv64", "riscv64", "virt", "max", "ttyS0"),
        Architecture(
            "s390x",
            "s390x",
            "s390-ccw-virtio",
            "max",
            "ttysclp0",
            modules=("virtio_balloon",),
            balloon="virtio-balloon-ccw",
            serves_generic=False,
        ),
        AMD64_TRIXIE,
    )
}
"""Those that can be booted, by name."""


def find_architecture(name: str) -> Architecture:
    """The architecture of this name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        names = ", ".join(ARCHITECTURES)
        raise ConfigError(f"{name!r} is no architecture that can be booted: it is one of {names}") from None
