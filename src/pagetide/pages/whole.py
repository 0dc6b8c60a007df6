"""A report as one HTML page: its sections, its style, what its pictures share; no script, nothing from elsewhere."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment
from markupsafe import Markup

from pagetide.pages.palette import LOOKS
from pagetide.templates import templates_of


class Section(NamedTuple):
    """A section of the page.

    Attributes:
        name: its identifier.
        heading: as text.
        body: as HTML.
        parts: (identifier, heading as text) of what is in it and is listed at its head.
        listed_as: a short heading, for the table of contents; empty for the whole one.
    """

    name: str
    heading: str
    body: Markup
    parts: Sequence[tuple[str, str]] = ()
    listed_as: str = ""


def page(title: str, sections: Sequence[Section], head: str) -> str:
    """The whole page.

    Args:
        title: of the page, as text.
        sections: what it is made of.
        head: what stands under it, as text.
    """
    body, classes = _shared_styles(_filled("sections.html", sections=sections))
    values = {"title": title, "head": head, "listed": sections, "sections": made(body), "classes": made(classes)}
    return _filled("page.html", style=made(style()), **values) + "\n"


def made(text: str) -> Markup:
    """What our own pictures and style sheets are made of is HTML."""
    return Markup(text)  # noqa: S704 - matplotlib and ElementTree escape the words in pictures


def _shared_styles(body: str) -> tuple[str, str]:
    """Pictures with classes in place of their styles, which are few, and the style sheet of these."""
    names: dict[str, str] = {}

    def shared(svg: re.Match[str]) -> str:
        return re.sub(r' style="([^"]*)"', lambda one: f' class="{names.setdefault(one[1], f"p{len(names)}")}"', svg[0])

    body = _shared_marks(re.sub(r"<svg.*?</svg>", shared, str(body), flags=re.DOTALL))
    return body, "".join(f".{name} {{{style}}}\n" for style, name in names.items())


def _shared_marks(body: str) -> str:
    """Pictures that draw the same mark refer to that of the first one."""
    first: dict[str, str] = {}
    others: dict[str, str] = {}

    def once(defs: re.Match[str]) -> str:
        if first.setdefault(defs[2], defs[1]) == defs[1]:
            return defs[0]
        others[defs[1]] = first[defs[2]]
        return ""

    body = re.sub(r'<defs><path id="([^"]*)"([^>]*)/></defs>', once, body)
    return re.sub(r'href="#([^"]*)"', lambda link: f'href="#{others.get(link[1], link[1])}"', body)


def style() -> str:
    """The page's style sheet, with the designs' colours."""
    return _filled("report.css", looks=LOOKS).rstrip()


def facts(pairs: Sequence[tuple[str, str]]) -> Markup:
    """A list of what was run, where and when."""
    return made(_filled("facts.html", pairs=pairs))


def _filled(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Environment:
    return templates_of("pagetide.pages")
