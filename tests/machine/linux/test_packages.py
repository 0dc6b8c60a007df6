"""What a real guest is made of: found, or named with the package that brings it."""

import shutil
from pathlib import Path

import pytest

from pagetide.machine.config_error import ConfigError
from pagetide.machine.linux.architectures import find_architecture
from pagetide.machine.linux.packages import find_linux, find_qemu, find_uml, find_umls, is_static
from pagetide.machine.qemu.process import QEMU

BOOTS = "echo Linux boots; echo @runs"
REGISTERS = "echo userspace - ptrace set fp regs failed, errno = 14; echo Kernel panic - not syncing; exit 134"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a linux.uml that only says what a guest's first program does, beside one with modules for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    programs = tmp_path / "bin"
    programs.mkdir()
    write_program(programs / "linux.uml", f"{BOOTS} 6.1.7")
    add_module(tmp_path / "lib/uml/modules/6.1.7", "virtio_balloon", "")
    return programs


def write_program(path: Path, script: str) -> None:
    """Make a program of a shell script."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def add_module(folder: Path, name: str, needs: str) -> None:
    """Put a module that says what it needs into a kernel's folder."""
    path = folder / f"kernel/drivers/virtio/{name}.ko"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF\0depends=" + needs.encode() + b"\0name=" + name.encode() + b"\0")


def with_busybox(programs: Path, program: bytes) -> Path:
    """The same with this as its busybox."""
    (programs / "busybox").write_bytes(program)
    (programs / "busybox").chmod(0o755)
    return programs


def elf(kind: int) -> bytes:
    """A 64-bit little-endian ELF file with one program header of this type."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    header[32], header[54], header[56] = 64, 56, 1
    return bytes(header) + kind.to_bytes(4, "little") + bytes(52)


STATIC, DYNAMIC = elf(1), elf(3)


def find(programs: Path) -> object:
    """Look in this folder only."""
    return find_uml(search_path=str(programs))


def test_all_that_is_there_is_found(programs: Path) -> None:
    """Kernel, its own modules, and a static busybox."""
    found = find_uml(search_path=str(with_busybox(programs, STATIC)))
    assert found.release == "6.1.7"
    assert [module.name for module in found.modules] == ["virtio_balloon"]
    assert found.busybox == programs / "busybox"


@pytest.mark.parametrize(
    ("missing", "package"),
    [("linux.uml", "user-mode-linux"), ("../lib/uml/modules", "user-mode-linux"), ("busybox", "busybox-static")],
)
def test_what_is_missing_is_named_with_its_package(programs: Path, missing: str, package: str) -> None:
    """The sentence has what is missing and the line that installs it."""
    path = with_busybox(programs, STATIC) / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ConfigError, match=f"missing: as root, apt-get install {package}$"):
        find(programs)


@pytest.mark.parametrize("program", [DYNAMIC, b"#!/bin/sh\n" + bytes(100), b""])
def test_a_busybox_that_needs_more_is_not_enough(programs: Path, program: bytes) -> None:
    """A busybox with libraries, or one that is no program of this machine, would not start in the guest."""
    assert not is_static(program)
    with pytest.raises(ConfigError, match=r"needs no libraries .* apt-get install busybox-static"):
        find(with_busybox(programs, program))


def test_another_kernel_brings_its_own_modules(programs: Path, tmp_path: Path) -> None:
    """A kernel that is named is taken with the modules beside it, and one that is not there is a sentence."""
    other = tmp_path / "other/usr/bin/linux.uml"
    other.parent.mkdir(parents=True)
    write_program(other, f"{BOOTS} 7.2")
    with pytest.raises(ConfigError, match=r"the module virtio_balloon of .*other.* is missing"):
        find_uml(other, search_path=str(with_busybox(programs, STATIC)))
    add_module(tmp_path / "other/usr/lib/uml/modules/7.2", "virtio_balloon", "")
    assert find_uml(other, search_path=str(programs)).release == "7.2"
    (tmp_path / "linked").symlink_to(other)
    assert find_uml(tmp_path / "linked", search_path=str(programs)).modules[0].name == "virtio_balloon"
    with pytest.raises(ConfigError, match=r"the program /nowhere/linux\.uml is missing"):
        find_uml(Path("/nowhere/linux.uml"), search_path=str(programs))


def unpacked_uml(programs: Path, script: str) -> Path:
    """A kernel in the guests' folder as `tools/setup_guests` leaves it there."""
    folder = programs.parent / "cache/pagetide/guests"
    (folder / "uml/bin").mkdir(parents=True)
    (folder / "bin").mkdir()
    write_program(folder / "uml/bin/linux.uml", script)
    add_module(folder / "uml/usr/lib/uml/modules/7.2.7", "virtio_balloon", "")
    (folder / "uml/lib").symlink_to("usr/lib")
    (folder / "bin/linux.uml").symlink_to("../uml/bin/linux.uml")
    return folder / "bin/linux.uml"


def test_the_installed_kernel_is_taken_where_it_runs(programs: Path) -> None:
    """The one in the guests' folder is newer, and there for tests with each kernel that runs."""
    path = str(with_busybox(programs, STATIC))
    unpacked = unpacked_uml(programs, f"{BOOTS} 7.2.7")
    assert find_uml(search_path=path).kernel == programs / "linux.uml"
    assert [parts.kernel for parts in find_umls(search_path=path)] == [programs / "linux.uml", unpacked]


def test_where_the_installed_kernel_does_not_run_another_is_taken(programs: Path) -> None:
    """What decides is a boot; a kernel that is named is not replaced."""
    path = str(with_busybox(programs, STATIC))
    write_program(programs / "linux.uml", REGISTERS)
    unpacked = unpacked_uml(programs, f"{BOOTS} 7.2.7")
    assert find_uml(search_path=path)[:2] == (unpacked, "7.2.7")
    assert [parts.release for parts in find_umls(search_path=path)] == ["7.2.7"]
    with pytest.raises(ConfigError, match="larger than that kernel's buffer"):
        find_uml(programs / "linux.uml", search_path=path)


def test_where_no_kernel_runs_each_is_named_with_its_cause(programs: Path) -> None:
    """And what to do."""
    path = str(with_busybox(programs, STATIC))
    write_program(programs / "linux.uml", REGISTERS)
    unpacked = unpacked_uml(programs, "echo no memory; exit 3")
    why = (
        rf"{programs}/linux\.uml does not run on this processor, whose register state .* is larger than that kernel's "
        rf"buffer for it: ptrace set fp regs failed, errno = 14; {unpacked} is no User-Mode Linux that runs here: the "
        r"guest's process ended with status 3; its last words were: no memory; .* --kernel .*make setup-guests"
    )
    with pytest.raises(ConfigError, match=why):
        find_uml(search_path=path)
    assert find_umls(search_path=path) == []


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system with two kernels, and nothing in the guests' folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for release in ("6.1.0-9-amd64", "6.1.0-56-amd64"):
        modules = tmp_path / "lib/modules" / release
        add_module(modules, "virtio_pci", "virtio")
        add_module(modules, "virtio", "")
        add_module(modules, "virtio_balloon", "virtio")
        (tmp_path / "boot").mkdir(exist_ok=True)
        (tmp_path / "boot" / f"vmlinuz-{release}").touch()
    return tmp_path


def test_the_newest_kernel_is_taken_unless_one_is_unpacked_or_named(programs: Path, root: Path) -> None:
    """Releases are compared by their numbers; the guests' folder goes first, and a kernel that is named before all."""
    path = str(with_busybox(programs, STATIC))
    found = find_linux(root=root, search_path=path)
    assert found.release == "6.1.0-56-amd64"
    assert [module.name for module in found.modules] == ["virtio", "virtio_pci", "virtio_balloon"]
    older = root / "boot/vmlinuz-6.1.0-9-amd64"
    assert find_linux(older, root=root, search_path=path).release == "6.1.0-9-amd64"
    unpacked = root / "cache/pagetide/guests/linux"
    shutil.copytree(root / "lib/modules/6.1.0-9-amd64", unpacked / "usr/lib/modules/6.1.0-9-amd64")
    (unpacked / "boot").mkdir()
    older.rename(unpacked / "boot" / older.name)
    assert find_linux(root=root, search_path=path).kernel == unpacked / "boot" / older.name


def test_a_kernel_is_found_where_debian_14_has_it(programs: Path, root: Path) -> None:
    """Beside its modules, and newer ones before older ones whichever way they are laid out; a link leads to one."""
    path = str(with_busybox(programs, STATIC))
    release = "7.2.13+deb14-cloud-amd64"
    folder = root / "usr/lib/modules" / release
    for name, needed in (("virtio_pci", "virtio"), ("virtio", ""), ("virtio_balloon", "virtio")):
        add_module(folder, name, needed)
    (folder / "vmlinuz").touch()
    found = find_linux(root=root, search_path=path)
    assert found[:2] == (folder / "vmlinuz", release)
    assert [module.name for module in found.modules] == ["virtio", "virtio_pci", "virtio_balloon"]
    assert find_linux(folder / "vmlinuz", root=root, search_path=path) == found
    (root / "vmlinuz").symlink_to(folder / "vmlinuz")
    assert find_linux(root / "vmlinuz", search_path=path)[1:] == found[1:]
    (root / "linux").symlink_to("boot/vmlinuz-6.1.0-9-amd64")
    assert find_linux(root / "linux", search_path=path).release == "6.1.0-9-amd64"
    unpacked = root / "cache/pagetide/guests/linux/usr/lib/modules/6.12.1-cloud-amd64"
    shutil.copytree(folder, unpacked)
    assert find_linux(root=root, search_path=path).kernel == unpacked / "vmlinuz"
    (root / "boot" / f"vmlinuz-{release}").touch()
    assert find_linux(root / "boot" / f"vmlinuz-{release}", search_path=path)[1:] == found[1:]


def test_a_kernel_that_is_missing_is_named_with_its_package(programs: Path, root: Path) -> None:
    """No kernel at all, no modules for it, or a name that leads nowhere."""
    path = str(with_busybox(programs, STATIC))
    with pytest.raises(ConfigError, match="there is no kernel /nowhere/vmlinuz-6"):
        find_linux(Path("/nowhere/vmlinuz-6"), search_path=path)
    shutil.rmtree(root / "lib/modules")
    with pytest.raises(ConfigError, match=r"the module virtio_pci of .* apt-get install linux-image-cloud-amd64$"):
        find_linux(root=root, search_path=path)
    shutil.rmtree(root / "boot")
    with pytest.raises(ConfigError, match=r"a Linux kernel .* apt-get install linux-image-cloud-amd64$"):
        find_linux(root=root, search_path=path)


KNOWS = "echo QEMU emulator version 11.1.3; [ $1 != -device ] || echo vhost-user-test-device-pci options:"
KNOWS_NOT = "echo QEMU emulator version 7.2.22 '(Debian)'"


def test_a_qemu_is_asked_what_it_can(programs: Path, root: Path) -> None:
    """The first QEMU will do for its own balloon; for ours it must have the device, wherever such a QEMU is found."""
    path = str(programs)
    with pytest.raises(ConfigError, match=r"qemu-system-x86_64 is missing.* apt-get install qemu-system-x86 seabios$"):
        find_qemu(generic=False, search_path=path)
    write_program(programs / QEMU, KNOWS_NOT)
    assert find_qemu(generic=False, search_path=path) == (programs / QEMU, "7.2.22")
    with pytest.raises(ConfigError, match=r"no device vhost-user-test-device-pci; .* --qemu .* --peer$"):
        find_qemu(generic=True, search_path=path)
    unpacked = root / "cache/pagetide/guests/bin" / QEMU
    unpacked.parent.mkdir(parents=True)
    write_program(unpacked, KNOWS)
    assert find_qemu(generic=True, search_path=path) == (unpacked, "11.1.3")
    assert find_qemu(generic=False, search_path=path).version == "7.2.22"
    with pytest.raises(ConfigError, match="cannot attach"):
        find_qemu(programs / QEMU, generic=True)


def test_a_guest_of_another_architecture_is_looked_for_in_the_guests_folder(programs: Path, root: Path) -> None:
    """Kernel, modules, busybox and QEMU: what is missing is named with what fetches it."""
    riscv = find_architecture("riscv64")
    path = str(with_busybox(programs, STATIC))
    write_program(programs / QEMU, KNOWS)
    with pytest.raises(ConfigError, match=r"files of a guest of riscv64 are missing: .* setup-guests ARCH=riscv64$"):
        find_linux(architecture=riscv, root=root, search_path=path)
    with pytest.raises(ConfigError, match=r"qemu-system-riscv64 is missing: .* make setup-guests ARCH=riscv64$"):
        find_qemu(generic=True, architecture=riscv, search_path=path)
    top = root / "cache/pagetide/guests/linux-riscv64"
    for folder in ("boot", "bin"):
        (top / folder).mkdir(parents=True)
    (top / "boot/vmlinux-6.12.1-riscv64").touch()
    (top / "bin/busybox").write_bytes(b"of riscv64")
    with pytest.raises(ConfigError, match=r"the module virtio_pci of .* is missing: .* ARCH=riscv64$"):
        find_linux(architecture=riscv, root=root, search_path=path)
    modules = top / "usr/lib/modules/6.12.1-riscv64"
    add_module(modules, "virtio_balloon", "")
    (modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    write_program(programs / "qemu-system-riscv64", KNOWS)
    found = find_linux(architecture=riscv, root=root, search_path=path)
    assert (found.release, found.busybox) == ("6.12.1-riscv64", top / "bin/busybox")
    assert [module.name for module in found.modules] == ["virtio_balloon"]
    assert find_qemu(generic=True, architecture=riscv, search_path=path).version == "11.1.3"
