"""The report's templates: what stands in them is text unless it is said to be HTML; what is missing is an error."""

import functools
import re
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from pagetide.compare.report.condition_table import begins_group, groups_of, shown
from pagetide.pages.palette import variable
from pagetide.templates import templates_of


def html(template: str, **values: Any) -> Markup:
    """A template with its values filled in, as HTML that others may contain."""
    return Markup(_environment().get_template(template).render(values))  # noqa: S704 - escaped by the template


def text(template: str, **values: Any) -> str:
    """A template that is no HTML, with its values filled in as they are; it ends without a line feed."""
    return _environment().get_template(template).render(values).rstrip()


@functools.cache
def _environment() -> Environment:
    environment = templates_of("pagetide.compare.report")
    environment.filters.update(colour=variable, groups=groups_of, shown=shown, markdown=_markdown)
    environment.tests["begins_group"] = begins_group
    return environment


def _markdown(text: str) -> str:
    """As it is in Markdown, whatever it contains."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)
