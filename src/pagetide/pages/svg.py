"""matplotlib's SVG made small enough for a page with hundreds of pictures, with identifiers of its own."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from itertools import pairwise

_LINES = re.compile(r"(?:M(?: ?-?[\d.]+ -?[\d.]+\s*L?)+z?\s*)+")
_PAINT = frozenset({"style", "fill", "stroke", "stop-color", "color"})
_DROPPED = ("metadata", "style", "clipPath")


def for_page(text: str, name: str, description: str, colours: Mapping[str, str]) -> str:
    """A picture to stand in HTML.

    Args:
        text: an SVG file as matplotlib writes it, with its text as text.
        name: what its identifiers begin with: no two pictures of a page may share it.
        description: for who cannot see it; becomes its title.
        colours: what takes the place of a colour, where something is painted in it.

    Returns:
        An SVG element without a namespace. Coordinates are rounded to a tenth of a unit, and points on a straight line
        along an axis are left out: nobody can see the difference. Nothing is clipped: the axes hold all that is drawn.
    """
    root = ET.fromstring(text[text.index("<svg") :])  # noqa: S314 - nobody else wrote it
    for element in root.iter():
        _forget_namespaces(element)
        _recolour(element, colours)
    _flatten(root)
    used = {match[1] for one in root.iter() for value in one.attrib.values() if (match := _REFERENCE.search(value))}
    for element in root.iter():
        _shorten(element, name, used)
    title = ET.Element("title", {"id": f"{name}-title"})
    title.text = description
    root.insert(0, title)
    root.attrib = {"role": "img", "aria-labelledby": f"{name}-title", "viewBox": root.attrib["viewBox"]}
    return ET.tostring(root, encoding="unicode").replace(" />", "/>")


def _forget_namespaces(element: ET.Element) -> None:
    element.tag = _local(element.tag)
    element.attrib = {_local(key): value for key, value in element.attrib.items()}


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _recolour(element: ET.Element, colours: Mapping[str, str]) -> None:
    """In the attributes that say how something is painted: a label may contain whatever it likes."""
    for key in _PAINT & element.attrib.keys():
        for colour, other in colours.items():
            element.attrib[key] = element.attrib[key].replace(colour, other)


_REFERENCE = re.compile(r"(?:^|url\()#([\w-]+)")


def _flatten(parent: ET.Element) -> None:
    """Take away groups that say nothing, and what no page needs."""
    children: list[ET.Element] = []
    for child in parent:
        if child.tag in _DROPPED:
            continue
        _flatten(child)
        if child.tag == "g" and not child.attrib.keys() - {"id"}:
            children += child
        elif child.tag != "defs" or len(child):
            children.append(child)
    parent[:] = children
    parent.text = parent.text if parent.tag == "text" else None
    parent.tail = None


def _shorten(element: ET.Element, name: str, used: set[str]) -> None:
    attributes = element.attrib
    attributes.pop("clip-path", None)
    if attributes.get("id") not in used:
        attributes.pop("id", None)
    for key, value in attributes.items():
        if key == "id":
            attributes[key] = f"{name}-{value}"
        elif key == "d":
            attributes[key] = _path(value)
        elif key in ("x", "y"):
            attributes[key] = f"{round(float(value), 1):g}"
        else:
            attributes[key] = _REFERENCE.sub(lambda found: found[0].replace("#", f"#{name}-"), value)
    if "style" in attributes:
        style = re.sub(r"font-size: [\d.]+px; font-family: [^;]*;", "", attributes["style"])
        attributes["style"] = re.sub(r"([:;]) ", r"\1", style.strip())
    if re.match(r"rotate\(-?0[ )]", attributes.get("transform", "")):
        del attributes["transform"]


def _path(text: str) -> str:
    if not _LINES.fullmatch(text):
        return re.sub(r"\s*\n\s*", "", re.sub(r"(\d+\.\d)\d+", r"\1", text))
    pieces = [_piece(piece) for piece in re.findall(r"M[^M]*", text)]
    return "".join(pieces)


def _piece(text: str) -> str:
    """One polyline, in steps from point to point: whole tenths, so that they add up."""
    tenths = [round(10 * float(number)) for number in re.findall(r"-?[\d.]+", text)]
    kept = list(_bends(list(zip(tenths[::2], tenths[1::2], strict=True))))
    steps = [_step(right - left, high - low) for (left, low), (right, high) in pairwise(kept)]
    x, y = kept[0]
    return f"M{_tenths(x)} {_tenths(y)}{_joined(steps)}" + "z" * text.rstrip().endswith("z")


def _joined(steps: list[str]) -> str:
    """As one text: the letter of a step like the last one may be left out, and the space before a sign."""
    text = "".join(
        step if index == 0 or step[0] != steps[index - 1][0] else " " + step[1:] for index, step in enumerate(steps)
    )
    return text.replace(" -", "-")


def _step(across: int, up: int) -> str:
    if not up:
        return f"h{_tenths(across)}"
    return f"l{_tenths(across)} {_tenths(up)}" if across else f"v{_tenths(up)}"


def _tenths(number: int) -> str:
    return f"{number / 10:g}".replace("0.", ".", 1) if abs(number) < 10 else f"{number / 10:g}"


def _bends(points: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The points without those that lie on a straight way along an axis from one to the next."""
    yield points[0]
    last = points[0]
    for here, after in pairwise(points[1:]):
        if not (_is_between(last, here, after, 0) or _is_between(last, here, after, 1)):
            yield here
            last = here
    if len(points) > 1:
        yield points[-1]


def _is_between(first: tuple[int, int], here: tuple[int, int], after: tuple[int, int], axis: int) -> bool:
    level, along = axis, 1 - axis
    low, high = sorted((first[along], after[along]))
    return first[level] == here[level] == after[level] and low <= here[along] <= high
