"""libvirt as a source: what its definitions say, and a real libvirtd with a real QEMU, asked by the command."""

import sys
import threading
from types import SimpleNamespace

import pytest

from pagetide.operate.host.libvirt_domain import LibvirtError, ask_libvirt, domain_facts
from pagetide.operate.host.monitor_facts import VirtioMem
from pagetide.units import GIB, MIB
from tests.operate.libvirt_session import LibvirtSession, libvirt_session

DOMAIN = """\
<domain type='qemu' id='1'>
  <name>vm1</name>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>1048576</currentMemory>
  <devices>
    <memory model='virtio-mem'>
      <target><size unit='KiB'>1048576</size><block unit='KiB'>2048</block>
        <requested unit='KiB'>131072</requested><current unit='KiB'>524288</current></target>
    </memory>
    <memballoon model='virtio' freePageReporting='on'><stats period='5'/></memballoon>
  </devices>
</domain>"""

TINY = """\
<domain type='qemu'><name>{name}</name><memory unit='MiB'>256</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{balloon}</devices>
</domain>"""


def test_a_definition_and_statistics_are_read() -> None:
    """Sizes in KiB, the balloon's options, a virtio-mem device, and how old what the guest said is."""
    facts = domain_facts("9.0", DOMAIN, {"actual": 1048576, "last_update": 1000}, 1007.5)
    assert (facts.source, facts.version, facts.ram_bytes, facts.actual_bytes) == ("libvirt", "9.0", 2 * GIB, GIB)
    assert (facts.has_balloon, facts.offers_reporting) == (True, True)
    assert (facts.statistics_age_s, facts.statistics_interval_s) == (7, 5)
    assert facts.virtio_mem == (VirtioMem(size_bytes=512 * MIB, requested_bytes=128 * MIB, max_bytes=GIB),)


@pytest.mark.parametrize(
    ("balloon", "has_balloon", "offers"),
    [
        ("<memballoon model='virtio'/>", True, False),
        ("<memballoon model='virtio' freePageReporting='off'/>", True, False),
        ("<memballoon model='none'/>", False, None),
        ("", False, None),
    ],
)
def test_a_balloon_that_offers_nothing_is_told(balloon: str, has_balloon: bool, offers: bool | None) -> None:
    """Nothing was said by the guest yet, so nothing has an age."""
    text = DOMAIN.replace("<memballoon model='virtio' freePageReporting='on'><stats period='5'/></memballoon>", balloon)
    facts = domain_facts("9.0", text, {}, 0.0)
    assert (facts.has_balloon, facts.offers_reporting) == (has_balloon, offers)
    assert (facts.statistics_age_s, facts.actual_bytes) == (None, None)


@pytest.mark.parametrize("text", ["", "<domain", "<domain/>", DOMAIN.replace("KiB", "bananas")])
def test_what_is_no_definition_is_one_sentence(text: str) -> None:
    """Cut short, empty, or with sizes in nobody knows what."""
    with pytest.raises(LibvirtError, match="in a way that is not understood"):
        domain_facts("9.0", text, {}, 0.0)


def test_a_libvirt_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls never time out; ours does, and says so."""
    over = threading.Event()

    def open_read_only(_: str) -> None:
        over.wait()
        raise KeyError

    fake = SimpleNamespace(
        openReadOnly=open_read_only, registerErrorHandler=lambda *_: None, libvirtError=KeyError, __name__="libvirt"
    )
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    try:
        with pytest.raises(LibvirtError, match=r"does not answer within 0\.1 s"):
            ask_libvirt("vm1", timeout_s=0.1)
    finally:
        over.set()


class FakeError(Exception):
    """What the package raises."""


class FakeDomain:
    """One whose definition is DOMAIN."""

    def __init__(self, *, runs: bool) -> None:
        """Running or not."""
        self._runs = runs

    def isActive(self) -> bool:  # noqa: N802 - the package's names, as below
        return self._runs

    def XMLDesc(self) -> str:  # noqa: N802
        return DOMAIN

    def memoryStats(self) -> dict[str, int]:  # noqa: N802
        return {}

    def UUIDString(self) -> str:  # noqa: N802
        return "an-uuid"


class FakeConnection:
    """One to a libvirt with these domains."""

    def __init__(self, domains: dict[str, FakeDomain]) -> None:
        """They have names, and are not asked for by UUID."""
        self._domains = domains

    def lookupByName(self, name: str) -> FakeDomain:  # noqa: N802
        if name not in self._domains:
            raise FakeError("Domain not found")
        return self._domains[name]

    def lookupByUUIDString(self, name: str) -> FakeDomain:  # noqa: N802
        raise FakeError(f"invalid UUID {name}")

    def getVersion(self) -> int:  # noqa: N802
        return 9_000_000

    def close(self) -> None: ...


def fake_libvirt(monkeypatch: pytest.MonkeyPatch, **domains: dict[str, FakeDomain]) -> None:
    """A package by which these domains are at qemu:///system and qemu:///session; what is not named is not there."""

    def open_read_only(uri: str) -> FakeConnection:
        if (place := uri.rpartition("/")[2]) not in domains:
            raise FakeError("Failed to connect")
        return FakeConnection(domains[place])

    fake = SimpleNamespace(
        openReadOnly=open_read_only, registerErrorHandler=lambda *_: None, libvirtError=FakeError, __name__="libvirt"
    )
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    monkeypatch.setitem(sys.modules, "libvirt", fake)


@pytest.mark.parametrize("system", [None, {}, {"vm1": FakeDomain(runs=False)}], ids=["silent", "without it", "stopped"])
def test_what_the_systems_libvirt_does_not_run_the_users_own_may(
    system: dict[str, FakeDomain] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that fails, has no such domain or one that does not run is not the end: the next one is asked."""
    fake_libvirt(monkeypatch, **({} if system is None else {"system": system}), session={"vm1": FakeDomain(runs=True)})
    assert ask_libvirt("vm1").facts.ram_bytes == 2 * GIB


def test_what_no_libvirt_runs_is_told_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence with both reasons."""
    fake_libvirt(monkeypatch, system={"vm1": FakeDomain(runs=False)}, session={})
    with pytest.raises(LibvirtError) as told:
        ask_libvirt("vm1")
    assert str(told.value) == (
        "libvirt's domain 'vm1' is not running (qemu:///system); libvirt has no domain 'vm1' (qemu:///session)"
    )


def test_without_its_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(LibvirtError, match=r"pip install '.\[libvirt\]'"):
        ask_libvirt("vm1")


def causes_of(libvirt: LibvirtSession, name: str) -> list[tuple[str, str]]:
    """Each cause, with where its first remedy is applied."""
    findings = libvirt.why(name)["findings"]
    assert isinstance(findings, list)
    return [(each["cause"], each["remedies"][0]["where"]) for each in findings]


@pytest.mark.slow
def test_a_domain_is_asked_by_its_name_and_its_remedy_is_libvirts() -> None:
    """A silent balloon, as libvirt makes one by default, and what becomes of it by the element that is advised."""
    with libvirt_session() as libvirt:
        libvirt.define(TINY.format(name="vm1", balloon=""))
        assert causes_of(libvirt, "vm1") == [("reporting-not-offered", "libvirt")]
        findings = libvirt.why("vm1")["findings"]
        assert isinstance(findings, list)
        libvirt.define(TINY.format(name="vm2", balloon=findings[0]["remedies"][0]["command"]))
        assert causes_of(libvirt, "vm2") == []
        libvirt.define(TINY.format(name="vm3", balloon="<memballoon model='none'/>"))
        assert causes_of(libvirt, "vm3") == [("no-balloon-device", "libvirt")]
