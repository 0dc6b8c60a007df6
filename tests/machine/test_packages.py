"""What a real guest is made of: found, or named with the package that brings it."""

import shutil
from pathlib import Path

import pytest

from pagetide.machine.config import ConfigError
from pagetide.machine.packages import find_uml, is_static


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with a linux.uml that only tells its version, and modules for it."""
    kernel = tmp_path / "linux.uml"
    kernel.write_text("#!/bin/sh\necho 6.1.7\n")
    kernel.chmod(0o755)
    module = tmp_path / "modules/6.1.7/kernel/drivers/virtio/virtio_balloon.ko"
    module.parent.mkdir(parents=True)
    module.touch()
    return tmp_path


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
    return find_uml(str(programs), programs / "modules")


def test_all_that_is_there_is_found(programs: Path) -> None:
    """Kernel, its own modules, and a static busybox."""
    found = find_uml(str(with_busybox(programs, STATIC)), programs / "modules")
    assert found.release == "6.1.7"
    assert found.module.is_file()
    assert found.busybox == programs / "busybox"


@pytest.mark.parametrize(
    ("missing", "package"),
    [("linux.uml", "user-mode-linux"), ("modules", "user-mode-linux"), ("busybox", "busybox-static")],
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


def test_a_kernel_that_does_not_answer_is_a_sentence(programs: Path) -> None:
    """A linux.uml that fails to tell its version is not used."""
    (programs / "linux.uml").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(ConfigError, match="does not tell its version"):
        find(programs)
