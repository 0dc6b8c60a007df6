"""Records a little of the running kernel, with its own text of the same events, for the tests beside this file.

As root: python -m tests.machine.tracing.make_recording tests/machine/tracing/linux-6.18.npz
"""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

from pagetide.machine.tracing.instance import TraceInstance
from pagetide.machine.tracing.kernel_files import OwnKernelFiles
from tests.machine.tracing.recorded import Recorded, read_pages, save


def record() -> Recorded:
    """A short command, what its events are in the kernel's text, and what they are in its buffer."""
    files = OwnKernelFiles()
    with contextlib.closing(files), TraceInstance(files, f"pagetide-test-{os.getpid()}", 1 << 20) as trace:
        formats = trace.formats()
        before = trace.begin("sh")
        subprocess.run(["sh", "-c", "for _ in 1 2 3 4; do ls / | sort; done"], check=True, stdout=subprocess.DEVNULL)
        after = trace.end()
        text = re.sub(r"page=\w+ | gfp_flags=\S+", "", files.read(f"{trace.folder}/trace"))  # not read, and long
        cpus = range(os.cpu_count() or 1)
        lost = sum(trace.entries_and_lost(cpu)[1] for cpu in cpus)
        pages, whose = read_pages(files.root / trace.folder, cpus)
        return Recorded(formats, pages, whose, tuple(trace.marks), before, after, lost, text)


if __name__ == "__main__":
    save(record(), Path(sys.argv[1]))
