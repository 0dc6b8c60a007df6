"""Which modules a guest loads, and in what order."""

import gzip
import lzma
from pathlib import Path

import pytest

from pagetide.machine.linux.kernel_modules import (
    KernelModule,
    ModuleMissingError,
    UnpackerMissingError,
    modules_to_load,
    needs,
)


def module(*needed: str) -> bytes:
    """The part of a module that says what it needs."""
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(needed).encode() + b"\0retpoline=Y\0"


def zstd(data: bytes) -> bytes:
    """Packed as a frame that holds its data as it is (RFC 8878, 3.1.1): magic, single segment, one last raw block."""
    assert len(data) < 256
    return b"\x28\xb5\x2f\xfd\x20" + bytes([len(data)]) + (len(data) << 3 | 1).to_bytes(3, "little") + data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A kernel's modules, packed in each way: the balloon needs virtio, which needs its ring; pci is built in."""
    for name, data in (
        ("drivers/virtio/virtio_balloon.ko", module("virtio", "virtio_ring")),
        ("drivers/virtio/virtio.ko.xz", lzma.compress(module("virtio_ring"))),
        ("drivers/more/virtio-ring.ko.gz", gzip.compress(module())),
        ("drivers/lost.ko", module("nowhere")),
        ("drivers/small.ko.zst", zstd(module("lost"))),
        ("drivers/few.ko.zst", zstd(module("virtio"))),
        ("drivers/strange.ko.br", b""),
        ("drivers/torn.ko.xz", lzma.compress(module())[:-20]),
        ("drivers/torn_too.ko.gz", gzip.compress(module())[:-20]),
        ("drivers/torn_as_well.ko.zst", zstd(module())[:-5]),
    ):
        path = tmp_path / "kernel" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    return tmp_path


def test_what_a_module_needs_is_loaded_before_it(folder: Path) -> None:
    """Each once, unpacked; what is built in is left out; a hyphen in a file's name is an underscore in the module's."""
    assert modules_to_load(folder, ["virtio_pci", "virtio_balloon", "virtio"]) == [
        KernelModule("virtio_ring", module()),
        KernelModule("virtio", module("virtio_ring")),
        KernelModule("virtio_balloon", module("virtio", "virtio_ring")),
    ]


def test_zstd_is_unpacked_by_its_program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As distributions other than Debian pack modules; without the program, that is what is missing."""
    assert modules_to_load(folder, ["few"])[-1] == KernelModule("few", module("virtio"))
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(UnpackerMissingError, match="the program zstd"):
        modules_to_load(folder, ["few"])


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("virtio_mem", "the module virtio_mem"),
        ("lost", "the module nowhere"),
        ("small", "the module nowhere"),
        ("strange", "a way to unpack"),
        ("torn", r"torn\.ko\.xz that can be unpacked"),
        ("torn_too", r"torn_too\.ko\.gz that can be unpacked"),
        ("torn_as_well", r"torn_as_well\.ko\.zst that can be unpacked"),
    ],
)
def test_what_cannot_be_loaded_is_named(folder: Path, wanted: str, sentence: str) -> None:
    """A module that is not there, one that needs such a one, and one packed in an unknown way."""
    with pytest.raises(ModuleMissingError, match=sentence):
        modules_to_load(folder, [wanted])


def test_a_module_that_needs_nothing_says_so_or_says_nothing() -> None:
    """An empty list, or no list."""
    assert needs(module()) == []
    assert needs(b"\x7fELF") == []
    assert needs(module("a-b", "c")) == ["a_b", "c"]
