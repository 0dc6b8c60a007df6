"""How templates are read: what stands in HTML is text unless it is said to be HTML; what is missing is an error."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def templates_of(package: str) -> Environment:
    """The templates in a package's folder `templates`; nothing but Jinja2's own filters is there yet."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
