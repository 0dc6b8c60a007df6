"""The house rules of ARCHITECTURE.md, enforced: who may import whom, and who stays away from sockets and clocks."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.needed import lacking, need

pytestmark = pytest.mark.jit  # no kernel is called

SOURCE = Path(__file__).parent.parent / "src"
PACKAGE = "pagetide"

FLOORS = (
    {
        "units",
        "linux",
        "processes",
        "detached_mount",
        "huge_tmpfs",
        "jit",
        "kernel_cache",
        "atomics",
        "bus_error",
        "foreign_fds",
        "views",
        "whole_file",
        "templates",
        "inside",
    },
    {"memory"},
    {"virtio"},
    {"guest", "host"},
    {"workload"},
    {"machine"},
    {"explorer"},
    {"conformance"},
    {"terminal", "workers", "pages"},
    {"compare", "operate", "fleet"},
    {"commands"},
    {"cli", "__main__"},
)
"""From the ground up. A room imports itself and what is below, never its neighbours; the ground floor is one room."""

IO = frozenset({"asyncio", "fcntl", "mmap", "os", "select", "selectors", "signal", "socket", "subprocess", "threading"})
CLOCKS = frozenset({"datetime", "sched", "time"})
COMPILER = frozenset({"numba", "llvmlite"})

TRANSPORT = "pagetide.virtio.vhost_user.transport"

FILES_MAX = 16
"""Most Python files in a folder: more are two rooms."""


def module_name(path: Path) -> str:
    """Dotted name of a source file."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(source: str, module: str) -> set[str]:
    """All that a module imports, wherever in it: dotted names, with what `from` takes appended."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import; write the name in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(module: str) -> str | None:
    """The package or module right below `pagetide`; None for others' modules and for `pagetide` itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def floor_of(room: str) -> int:
    """Which floor a room is on."""
    floors = [floor for floor, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"{room} is on no floor of the house"
    return floors[0]


def may_import(room: str, other: str) -> bool:
    """Whether code in one room may import from another."""
    return room == other or floor_of(other) < floor_of(room) or floor_of(other) == floor_of(room) == 0


def violations(source: str, module: str) -> list[str]:
    """What a module imports that it must not, as sentences."""
    names = imported_modules(source, module)
    outside = {name.split(".")[0] for name in names}
    room = room_of(module)
    found = []
    if room is not None:
        others = {other for name in names if (other := room_of(name)) is not None}
        found += [f"{module} imports {other}" for other in sorted(others) if not may_import(room, other)]
    if room == "virtio" and module != TRANSPORT:
        found += [f"{module} is protocol and imports {name}" for name in sorted(outside & IO)]
    if room in {"guest", "virtio"} and module != TRANSPORT:
        found += [f"{module} asks for the time: it imports {name}" for name in sorted(outside & CLOCKS)]
    if room not in {"jit", "kernel_cache", "atomics", "bus_error", "foreign_fds", "views", "whole_file"}:
        found += [f"{module} imports {name}, not pagetide.jit" for name in sorted(outside & COMPILER)]
    return found


MODULES = {module_name(path): path for path in sorted((SOURCE / PACKAGE).rglob("*.py"))}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_the_floors(module: str) -> None:
    """No module imports from above or from its neighbour; protocol does no I/O, and the guest has no clock."""
    assert violations(MODULES[module].read_text(), module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pagetide.guest.allocator.zone", "import pagetide.host.memory.ledger"),
        ("pagetide.guest.allocator.zone", "from pagetide.host import ledger"),
        ("pagetide.host.device.balloon", "from pagetide.guest.allocator.zone import Zone"),
        ("pagetide.guest.allocator.zone", "from pagetide import host"),
        ("pagetide.guest.allocator.zone", "def f():\n    from pagetide.machine.config import RunConfig"),
        ("pagetide.memory.guest_ram", "from pagetide.virtio.split_ring.ring import DESC_BYTES"),
        ("pagetide.units", "from pagetide.memory.guest_ram import GuestRam"),
        ("pagetide.virtio.split_ring.ring", "from pagetide.host.memory.ledger import Ledger"),
        ("pagetide.workload.burst", "from pagetide.machine.config import RunConfig"),
        ("pagetide.machine.live.machine", "if True:\n    import pagetide.compare.grid.axes"),
        ("pagetide.compare.grid.axes", "import pagetide.cli"),
        ("pagetide.virtio.vhost_user.backend", "import socket"),
        ("pagetide.virtio.vhost_user.backend", "from os import read"),
        ("pagetide.virtio.split_ring.driver", "import select"),
        ("pagetide.virtio.split_ring.driver", "from time import monotonic"),
        ("pagetide.guest.reporting.designs.scan", "import time"),
        ("pagetide.guest.allocator.buddy", "from numba import njit"),
    ],
)
def test_the_check_can_fail(module: str, source: str) -> None:
    """Each wrong import is found: the check above would fail on it."""
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "pagetide.guest.allocator.zone",
            "import numpy\nfrom pagetide.guest import buddy\nfrom pagetide.atomics import fence",
        ),
        ("pagetide.atomics", "import time\nfrom numba import types\nfrom pagetide.jit import kernel"),
        ("pagetide.machine.live.machine", "import os, time\nfrom pagetide.host.memory.ledger import Ledger"),
        (TRANSPORT, "import socket, select, os\nfrom pagetide.linux import eventfd"),
        ("pagetide.cli", "import pagetide\nfrom pagetide.commands.compare import compare"),
        ("pagetide", "from importlib.metadata import version"),
    ],
)
def test_what_is_allowed_is_allowed(module: str, source: str) -> None:
    """Imports within a room and down the floors pass."""
    assert violations(source, module) == []


class _Running(ast.NodeTransformer):
    """Leaves out what is imported for annotations alone."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def in_circles(sources: Mapping[str, str]) -> set[str]:
    """The modules that import each other in a circle when they run, or lie between two circles."""
    imports: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = imported_modules(ast.unparse(_Running().visit(ast.parse(source))), module)
        imports[module] = {name if name in sources else name.rpartition(".")[0] for name in names} - {module}
    left: set[str] = set()
    rest = set(imports)
    while rest != left:
        left = rest
        imported = set().union(*(imports[module] for module in left))
        rest = {module for module in left & imported if imports[module] & left}
    return left


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Whoever reads a module's imports comes to an end: none leads back, at the top of a file or in a function."""
    assert in_circles({module: path.read_text() for module, path in MODULES.items()}) == set()


def test_a_circle_is_found() -> None:
    """A circle of three is found though one of its imports is in a function; who only joins it is no part of it."""
    sources = {
        "pagetide.guest.a": "from pagetide.guest.b import one",
        "pagetide.guest.b": "from pagetide.guest import c",
        "pagetide.guest.c": "def f():\n    import pagetide.guest.a",
        "pagetide.guest.above": "import pagetide.guest.a",
        "pagetide.guest.below": "import os",
    }
    assert in_circles(sources) == {"pagetide.guest.a", "pagetide.guest.b", "pagetide.guest.c"}
    annotation = "if TYPE_CHECKING:\n    import pagetide.guest.a"
    assert in_circles(sources | {"pagetide.guest.c": annotation}) == set()


def test_relative_imports_are_refused() -> None:
    """A relative import, which the check could not place, is itself a violation."""
    with pytest.raises(AssertionError, match="relative import"):
        violations("from ..host import ledger", "pagetide.guest.allocator.zone")


def test_a_room_without_a_floor_is_refused() -> None:
    """A new package must be given its place before anything may import it."""
    with pytest.raises(AssertionError, match="attic is on no floor"):
        violations("import pagetide.attic", "pagetide.guest.allocator.zone")


@pytest.mark.parametrize(
    "module",
    [
        "pagetide.memory.guest_ram",
        "pagetide.memory.residency",
        "pagetide.machine.live.machine",
        "pagetide.commands.boot",
        "pagetide.operate.metrics.endpoint",
    ],
)
def test_who_only_looks_on_loads_no_compiler(module: str) -> None:
    """The process that shows a run starts at once: what it imports does not bring numba in."""
    script = f"import sys, {module}; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def crowded(paths: Iterable[Path]) -> list[str]:
    """Folders that hold too many Python files, and files that repeat their folder's name, as sentences."""
    files = [path for path in paths if path.suffix == ".py"]
    counts = Counter(path.parent for path in files)
    return [f"{folder} has {count} files" for folder, count in counts.items() if count > FILES_MAX] + [
        f"{path} begins with its folder's name" for path in files if path.name.startswith(path.parent.name)
    ]


def test_no_room_is_crowded() -> None:
    """A folder has few enough files to be looked over, and none says again where it is."""
    root = SOURCE.parent
    assert crowded(path for room in ("src", "tests", "benchmarks") for path in (root / room).rglob("*.py")) == []


def test_a_crowd_and_a_repeated_name_are_found() -> None:
    """The check above would fail on a folder of 17 files, and on one that has a file of its own name."""
    assert crowded(Path(f"host/a{number}.py") for number in range(FILES_MAX)) == []
    assert len(crowded(Path(f"host/a{number}.py") for number in range(FILES_MAX + 1))) == 1
    assert len(crowded([Path("explorer/explorer_state.py")])) == 1


def test_no_two_test_files_have_one_name() -> None:
    """Tests are modules without a package: of two by one name pytest would import the first twice."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_room_is_on_one_floor() -> None:
    """Each package and module of the source has a place, and only one."""
    rooms = {room for module in MODULES if (room := room_of(module)) is not None}
    assert all(floor_of(room) >= 0 for room in rooms)
    assert sum(len(floor) for floor in FLOORS) == len(set().union(*FLOORS))


def test_what_is_lacking_skips_a_test_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same sentence; what is there is no trouble."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is no cheese"):
        lacking("there is no cheese")
    with pytest.raises(pytest.skip.Exception, match="there is no cheesemonger here: as root on Debian, make setup-"):
        need("sh", "cheesemonger")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(RuntimeError, match="there is no cheese"):
        lacking("there is no cheese")
    need("sh")
