"""The answer as one HTML page that needs nothing else: no script, no network. What stands in it is text."""

from importlib.resources import files

from markupsafe import Markup

from pagetide.operate.answer import Answer
from pagetide.operate.causes.finding import Where
from pagetide.templates import templates_of
from pagetide.units import format_size

_PLACES: dict[Where, str] = {
    "guest": "in the guest",
    "QEMU": "in QEMU's monitor",
    "libvirt": "with libvirt",
    "pagetide": "with pagetide",
    "host": "on the host",
    "VM": "in the VM's definition",
}


def page(answer: Answer) -> str:
    """The page. Everything in the answer may come from a guest, and nothing of it becomes markup."""
    environment = templates_of("pagetide.operate")
    environment.filters["size"] = format_size
    style = (files("pagetide.operate") / "templates" / "answer.css").read_text()
    template = environment.get_template("answer.html")
    sheet = Markup(style)  # noqa: S704 - a file of ours
    return template.render(answer=answer, balance=answer.balance, places=_PLACES, style=sheet)
