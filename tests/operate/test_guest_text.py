"""The guest's text: what the script writes is read, and anything else is refused in one sentence."""

import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.machine.linux.packages import find_busybox
from pagetide.operate.guest.script import GUEST_SCRIPT
from pagetide.operate.guest.text import TEXT_BYTES_MAX, GuestTextError, read_guest_text

TEXT = """\
@pagetide guest 1
@pagetide release
6.12.9-cloud
@pagetide parameters
hugepages=4
@pagetide pages
page_kib 4
@pagetide meminfo
MemTotal:         502680 kB
MemFree:          484480 kB
Active(file):       1024 kB
HugePages_Total:       4
@pagetide vmstat
nr_free_pages 121120
nr_zone_inactive_anon -3
balloon_inflate 300
balloon_deflate 100
@pagetide buddyinfo
Node 0, zone      DMA      1      0      2
Node 0, zone   Normal      0      3      0
@pagetide zoneinfo
Node 0, zone      DMA
  pages free     9
        min      1
        low      2
        high     3
  pagesets
    cpu: 0
              count:    5
              high:     7
              high_max: 11
    cpu: 1
              count:    1
              high:     7
              high_max: 11
Node 0, zone   Normal
  pages free     6
        low      4
@pagetide pagetypeinfo unreadable
@pagetide hugepages
2048 4 3
@pagetide partial
2048 3
64 2
@pagetide blocks
8000000 2
@pagetide reporting
page_reporting_order 9
@pagetide sysctl
percpu_pagelist_high_fraction 8
@pagetide balloons
driver 0110010000
@pagetide zram
@pagetide cgroups
other 1 50000000 40000000 0
system.slice 1 314572800 209715200 104857600
@pagetide kpageflags
     11  0000000000000400
      3  0000000000005828
      2  0000000004000000
      7  0000000000000000
      1  0000000000000000
@pagetide end
"""


def test_figures_are_read_in_bytes() -> None:
    """Kilobytes and pages become bytes; counts stay counts; lists of all processors are added up."""
    facts = read_guest_text(TEXT.encode())
    assert facts.release == "6.12.9-cloud"
    assert facts.memory("MemFree", "Active(file)") == (484480 + 1024) << 10
    assert facts.memory("HugePages_Total") == 4
    assert facts.vmstat["nr_zone_inactive_anon"] == 0
    assert facts.balloon_bytes == 200 * 4096
    dma, normal = facts.zones
    assert (dma.name, dma.blocks, dma.free_bytes) == ("DMA", (1, 0, 2), 9 * 4096)
    assert (dma.low_bytes, dma.pcp_bytes, dma.pcp_high_bytes) == (2 * 4096, 6 * 4096, 22 * 4096)
    assert (normal.free_bytes, normal.low_bytes, normal.pcp_bytes) == (6 * 4096, 4 * 4096, 0)
    (pool,) = facts.pools
    assert (pool.page_bytes, pool.pages, pool.free_pages) == (2 << 20, 4, 3)
    (balloon,) = facts.balloons
    assert balloon.has_driver
    assert balloon.features == 0b100110
    assert (facts.reporting_order, facts.pageblock_order) == (9, 9)
    assert facts.percpu_pagelist_high_fraction == 8
    assert facts.partial_bytes == 3 * (2 << 20) + 2 * (64 << 10)
    assert facts.offline_bytes == 2 * (128 << 20)
    assert facts.parameters == ("hugepages=4",)
    assert [(each.name, each.charged_bytes) for each in facts.consumers] == [
        ("system.slice", 300 << 20), ("other", 50000000),
    ]  # fmt: skip
    assert facts.sampled_pages == {"free": 11, "of processes": 3, "page tables": 2, "without a flag": 8}
    assert facts.unread == ("pagetypeinfo",)
    assert facts.release_number == (6, 12)


def test_what_a_console_puts_around_it_does_not_matter() -> None:
    """Carriage returns, a prompt before and one after; of two texts the last counts."""
    noisy = "# sh guest.sh\r\n" + TEXT.replace("\n", "\r\n") + "# \r\n"
    older = TEXT.replace("6.12.9-cloud", "5.10.0")
    assert read_guest_text((older + noisy).encode()) == read_guest_text(TEXT.encode())


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("@pagetide guest 1\n", "", "it has no line '@pagetide guest 1'"),
        ("@pagetide end\n", "", "is cut short"),
        ("@pagetide meminfo\n", "@pagetide other\n", "has no meminfo"),
        ("484480", "502681", "a MemFree that does not fit"),
        ("MemFree:          484480 kB\n", "", "has no MemTotal, or a MemFree"),
        ("page_kib 4", "page_kib 5", "pages of 5 KiB, which no Linux has"),
        ("1024 kB", "99999999999999999999 kB", "is more than can be"),
        ("1024 kB", "9999999999999999999999 kB", "which is not of its form"),
        ("balloon_inflate 300", "balloon_inflate", "vmstat in the guest's text has a line 'balloon_inflate'"),
        ("1      0      2", "1 " * 30, "has 30 orders, which no Linux has"),
        ("1      0      2", "1 0 1152921504606846976", "is more than can be"),
        ("2048 4 3", "2048 4 5", "more free pages than pages"),
        ("driver 0110010000", "driver 2", "balloons in the guest's text has a line 'driver 2'"),
        ("@pagetide zram", "@pagetide meminfo", "has the part 'meminfo' twice"),
    ],
)
def test_a_wrong_text_is_one_sentence(old: str, new: str, sentence: str) -> None:
    """What is not of its form is named; nothing of the text is believed then."""
    assert old in TEXT
    with pytest.raises(GuestTextError, match=re.escape(sentence)) as caught:
        read_guest_text(TEXT.replace(old, new, 1).encode())
    assert "\n" not in str(caught.value)


def test_a_text_without_end_is_not_read() -> None:
    """More than any guest writes is refused before it is looked at."""
    with pytest.raises(GuestTextError, match="longer than 8 MiB"):
        read_guest_text(bytes(TEXT_BYTES_MAX + 1))


_LINES = st.sampled_from(TEXT.splitlines())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_LINES.map(str.encode), st.binary(max_size=40)), max_size=60).map(b"\n".join))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Nothing but a GuestTextError comes of any text, with the frame around it or without."""
    for text in (data, b"@pagetide guest 1\n" + data + b"\n@pagetide end", TEXT.encode() + data):
        try:
            facts = read_guest_text(text)
        except GuestTextError:
            continue
        assert facts.memory("MemFree") <= facts.memory("MemTotal")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.binary(max_size=12))
def test_a_damaged_text_is_read_or_refused(place: int, damage: bytes) -> None:
    """Some bytes in the middle are others."""
    data = TEXT.encode()
    with contextlib.suppress(GuestTextError):
        read_guest_text(data[:place] + damage + data[place + len(damage) :])


@pytest.mark.parametrize("shell", [["busybox", "sh"], ["sh"]])
def test_the_script_runs_in_a_posix_shell(shell: list[str]) -> None:
    """Busybox and the system's shell write what can be read, and complain of nothing."""
    command = [str(find_busybox()), "sh"] if shell[0] == "busybox" else shell
    done = subprocess.run(command, input=GUEST_SCRIPT.encode(), capture_output=True, check=True)
    assert done.stderr == b""
    facts = read_guest_text(done.stdout)
    assert facts.release == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert facts.zones
    assert facts.percpu_pagelist_high_fraction is not None
    if os.geteuid() == 0 and shell[0] == "sh":
        assert sum(facts.sampled_pages.values()) >= 32 * 512
        assert facts.sampled_pages["free"]


def test_the_script_only_reads() -> None:
    """It redirects output nowhere but to nothing, and what it keeps of programs is of `cat`."""
    code = [line.split("#")[0] for line in GUEST_SCRIPT.splitlines() if not line.startswith("#")]
    assert not re.findall(r"(?<![2&])>(?!/dev/null)", "\n".join(code))
    assert set(re.findall(r"\$\((\w+)", "\n".join(code))) == {"cat"}
