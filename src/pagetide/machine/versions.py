"""What a run ran on: the versions that its figures may depend on."""

import datetime as dt
import hashlib
import importlib.metadata
import platform
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_PACKAGES = ("pagetide", "numpy", "numba")


def versions() -> dict[str, str]:
    """Versions of pagetide, python, numpy and numba, the kernel's release, and the processor's name."""
    return {
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu": cpu_name(),
    }


def sources_digest(package: Path = _PACKAGE) -> str:
    """Hash of all of the package's Python files: between two releases its version does not change, but what it does."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        source = path.read_bytes()
        digest.update(f"{path.relative_to(package)} {len(source)}\n".encode() + source)
    return digest.hexdigest()[:16]


def now_utc() -> str:
    """What time it is, to the second, as ISO 8601 has it, in UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def cpu_name() -> str:
    """The processor's name as the kernel has it; its architecture where that has none."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
