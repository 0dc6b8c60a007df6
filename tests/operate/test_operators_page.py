"""The operators' page: what it has for libvirt is a domain."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pagetide.host.device.balloon import FEATURES
from pagetide.virtio.balloon import CONFIG_BYTES, queues
from tests.operate.libvirt_session import libvirt_session

PAGE = Path(__file__).parents[2] / "docs/operators.md"


def domain() -> str:
    """The page's domain."""
    (found,) = re.findall(r"```xml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


@pytest.mark.slow
def test_libvirt_makes_a_guest_with_shared_memory_of_it() -> None:
    """Its own translation to QEMU's arguments has the memory in a shared memfd, our device, and no other balloon."""
    with libvirt_session() as libvirt:
        arguments = libvirt.arguments(domain().replace('type="kvm"', 'type="qemu"'))  # there may be no KVM here
    memory = next(word for word in arguments if "memory-backend-memfd" in word)
    assert re.search(r'"share":\s*true', memory) or "share=on" in memory
    device = next(word for word in arguments if word.startswith("vhost-user-test-device-pci"))
    socket = next(word for word in arguments if word.startswith("socket,id=pagetide"))
    assert "chardev=pagetide" in device
    assert socket.endswith("path=/run/pagetide/guests/vm1.sock")
    assert not any("virtio-balloon" in word for word in arguments)


def test_the_device_is_as_large_as_ours() -> None:
    """As many queues as there are with all that we offer, and the whole configuration."""
    values = [each.get("value", "") for each in ET.fromstring(domain()).iter() if each.tag.endswith("}arg")]
    device = dict(pair.split("=") for pair in values[-1].split(",")[1:])
    assert int(device["num_vqs"]) == len(queues(int(FEATURES)))
    assert int(device["config_size"]) == CONFIG_BYTES
