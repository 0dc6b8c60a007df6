"""What `make setup-guests` takes out of packages and of apt's sources, on made-up ones."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.needed import need

pytestmark = pytest.mark.jit  # no kernel is called

SETUP = Path(__file__).parents[2] / "tools/setup_guests"


def setup(script: str, home: Path) -> str:
    """Run this with all that the tool defines."""
    command = ["bash", "-c", f"source {SETUP}; {script}"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_CACHE_HOME": str(home)}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def package(folder: Path, name: str, files: list[str]) -> Path:
    """A Debian package with these files, each of which has its own name in it."""
    need("dpkg-deb")
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: a test\n"
    )
    for file in files:
        path = tree / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    subprocess.run(["dpkg-deb", "--build", tree, folder / f"{name}.deb"], check=True, capture_output=True)
    return folder / f"{name}.deb"


OLD, NEW = "lib/modules/6.1.0-9-amd64", "usr/lib/modules/7.2.13+deb14-amd64"
LAYOUTS = {
    "Debian 12": {
        "linux-image": [
            "boot/vmlinuz-6.1.0-9-amd64",
            "boot/config-6.1.0-9-amd64",
            f"{OLD}/modules.builtin",
            f"{OLD}/kernel/drivers/virtio/virtio_balloon.ko",
            f"{OLD}/kernel/drivers/net/virtio_net.ko",
            "usr/share/doc/linux-image/copyright",
        ]
    },
    "Debian 14": {
        "linux-image": ["usr/share/doc/linux-image/copyright"],
        "linux-base": [f"{NEW}/modules.builtin", f"{NEW}/config"],
        "linux-binary": [f"{NEW}/vmlinuz"],
        "linux-modules": [f"{NEW}/kernel/drivers/virtio/virtio_balloon.ko.xz", f"{NEW}/kernel/fs/ext4/ext4.ko.xz"],
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_kernels_image_and_modules_are_taken_where_they_are(layout: str, tmp_path: Path) -> None:
    """Image, virtio modules and what is built in, of one package or of several; nothing else."""
    archives = [package(tmp_path, name, files) for name, files in LAYOUTS[layout].items()]
    work = tmp_path / "work"
    work.mkdir()
    names = " ".join(str(archive) for archive in archives)
    setup(f"work={work}; has_kernel $work && exit 1; unpack_kernel_packages {names}; has_kernel $work; work=", tmp_path)
    wanted = [
        file
        for files in LAYOUTS[layout].values()
        for file in files
        if "vmlinuz" in file or "builtin" in file or "drivers/virtio" in file
    ]
    found = [str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(wanted)


def test_the_packages_of_a_kernel_are_those_of_its_own_release(tmp_path: Path) -> None:
    """What apt-cache tells is read for both layouts; what makes an initial file system is not wanted."""
    told = {
        "linux-image-cloud-amd64": ["linux-base-cloud-amd64", "linux-image-7.2.13+deb14-cloud-amd64"],
        "linux-image-7.2.13+deb14-cloud-amd64": [
            "linux-base",
            "linux-base-7.2.13+deb14-cloud-amd64",
            "linux-binary-7.2.13+deb14-cloud-amd64",
            "linux-modules-7.2.13+deb14-cloud-amd64",
            "initramfs-tools",
        ],
        "linux-image-6.1.0-9-amd64": ["kmod", "linux-base", "initramfs-tools"],
    }
    for name, needed in told.items():
        lines = "".join(f"  Depends: {each}\\n" for each in needed)
        found = setup(f"apt-cache() {{ printf '{name}\\n{lines}'; }}; parts_of_kernel {name}", tmp_path).split()
        assert found == [each for each in needed if re.match(r"linux-\w+-\d", each)]


def test_the_mirror_is_that_of_the_machines_own_sources(tmp_path: Path) -> None:
    """The first of Debian itself: no security archive, no other distributor, no disc; without one it fails."""
    lines = (
        "Debian Debian cdrom://disc/",
        "Debian Debian-Security http://mirror.invalid/security/",
        "Somebody Tools http://tools.invalid/",
        "Debian Debian http://mirror.invalid/debian/",
        "Debian Debian http://other.invalid/debian/",
    )
    stub = "apt-get() { printf '%s\\n' '" + "' '".join(lines) + "'; }; "
    assert setup(stub + "mirror", tmp_path) == "http://mirror.invalid/debian/\n"
    assert setup("apt-get() { :; }; mirror || echo none", tmp_path) == "none\n"
    assert "://" not in SETUP.read_text().replace("^cdrom:", "")
