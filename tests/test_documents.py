"""The documents name what there is: files, rooms, functions and each other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.jit  # no kernel is called

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "pagetide"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("findings/*.md")])
TOUR = ROOT / "ARCHITECTURE.md"
TOUR_LINES_MAX = 250

_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w./-]+\.(?:py|sh|css|service)|(?:[\w-]+/)+")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
_MODULE = re.compile(r"(?<![\w/.\"])[\w/]+\.py\b")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)?")

FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("src", "tests", "benchmarks", "tools", "findings", "deploy", "docs")
    for path in (ROOT / folder, *(ROOT / folder).rglob("*"))
    if "__pycache__" not in path.parts
]


def missing_paths(text: str) -> list[str]:
    """Files and rooms in backticks that are nowhere in the tree; a path may leave out its beginning, and be NAME.sh."""
    words = {word for code in _CODE.findall(text) for word in code.split()}
    named = {word for word in words if _PATH.fullmatch(word) and not Path(word).stem.isupper()}
    return sorted(path for path in named if not any(f"/{file}".endswith(f"/{path.rstrip('/')}") for file in FILES))


def missing_modules(source: str) -> list[str]:
    """Python files that comments, docstrings and messages name and that are nowhere in the tree."""
    return missing_paths(" ".join(f"`{name}`" for name in _MODULE.findall(source)))


def missing_links(text: str, folder: Path) -> list[str]:
    """Links to files that there are not."""
    return [link for link in _LINK.findall(text) if not (folder / link).exists()]


def defined_in(path: Path) -> set[str]:
    """Functions and classes at the top of a file, and methods as `Class.method`."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names


def rows(text: str, heading: str) -> Iterator[list[str]]:
    """The cells of a section's tables, without headings."""
    section = text.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            yield cells


def missing_functions(text: str) -> list[str]:
    """What the way of a report names that is not where it says; what the last column names may be anywhere."""
    everywhere = set().union(*(defined_in(path) for path in PACKAGE.rglob("*.py")))
    wrong = []
    for file, functions, what in rows(text, "The way of one report"):
        there = defined_in(PACKAGE / file.strip("`"))
        wrong += [name for name in _CODE.findall(functions) if name not in there]
        wrong += [
            name
            for name in _CODE.findall(what)
            if _NAME.fullmatch(name) and ("_" in name or "." in name) and name not in everywhere | {"due_s"}
        ]
    return wrong


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_what_a_document_names_is_there(path: Path) -> None:
    """Files and rooms in backticks, and links, lead somewhere."""
    text = path.read_text()
    assert missing_paths(text) == []
    assert missing_links(text, path.parent) == []


@pytest.mark.parametrize("folder", ["src", "benchmarks", "tools"])
def test_files_that_the_code_speaks_of_are_there(folder: str) -> None:
    """No comment or docstring names a file that was moved or removed."""
    wrong = {
        path.name: missing
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in {"", ".py"} and (missing := missing_modules(path.read_text()))
    }
    assert wrong == {}


def test_the_way_of_a_report_is_the_codes() -> None:
    """Each function that the tour follows is in the file that it names."""
    text = TOUR.read_text()
    assert len(list(rows(text, "The way of one report"))) > 20
    assert missing_functions(text) == []


def test_the_tour_goes_through_every_room() -> None:
    """No folder of the source is left out of the table of floors."""
    section = TOUR.read_text().split("\n## The floors\n")[1].split("\n## ")[0]
    rooms = [path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")]
    shown = {code.rstrip("/") for code in _CODE.findall(section)}
    left_out = [
        room
        for room in rooms
        if room != "." and room not in shown and room.rpartition("/")[2] not in shown and room + "/" not in section
    ]
    assert left_out == []


def test_the_tour_is_short() -> None:
    """It is read in one go."""
    assert len(TOUR.read_text().splitlines()) <= TOUR_LINES_MAX


def test_what_is_not_there_is_found() -> None:
    """The checks above fail on a file, a room, a link and a function that there is not."""
    assert missing_paths("`host/server.py`, `lab/`, `daemon/server.py`, `virtio/`, `pagetide run`") == [
        "host/server.py",
        "lab/",
    ]
    assert missing_modules("# as in server.py and live.py, or platform; see host/server.py") == [
        "host/server.py",
        "live.py",
    ]
    assert missing_links("[one](docs/none.md) [two](README.md) [three](https://example.org)", ROOT) == ["docs/none.md"]
    text = "\n## The way of one report\n| `units.py` | `format_size`, `no_such` | `no_more`, `RAM` |\n"
    assert missing_functions(text) == ["no_such", "no_more"]
