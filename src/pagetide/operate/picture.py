"""The answer for a person: a bar for each class of the balance, and the findings below it."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from pagetide.operate.answer import Answer
from pagetide.operate.balance import BELOW_ORDER
from pagetide.operate.causes.finding import Finding
from pagetide.operate.host.vmm_facts import VmmFacts
from pagetide.units import format_size

_BAR_COLUMNS = 24
_NAME_COLUMNS = 42
_SHOWN_SHARE = 1 / 500


def picture(answer: Answer, columns: int) -> str:
    """All of it, in lines of at most so many columns, bars excepted."""
    parts = (_findings(answer, columns), _notes(answer, columns), _gaps(answer, columns))
    return "\n".join([*_balance(answer, columns), "", *itertools.chain.from_iterable(parts)]).rstrip("\n")


def change(before: Answer, now: Answer) -> str:
    """What has changed from one look to the next, in a line."""
    classes = {name: size - before.balance.of(name) for name, size in now.balance.classes.items()}
    changed = sorted(((name, size) for name, size in classes.items() if size), key=lambda each: -abs(each[1]))
    parts = ", ".join(f"{name} {_signed(size)}" for name, size in changed[:3])
    whole = _signed(now.balance.held_bytes - before.balance.held_bytes)
    return f"since {before.taken}: {whole}" + (f" ({parts})" if parts else "")


def _signed(size_bytes: int) -> str:
    return f"{'-' if size_bytes < 0 else '+'}{format_size(abs(size_bytes))}"


def vm_table(vms: Sequence[VmmFacts]) -> str:
    """A line for each VM: what the host holds for it, of how much memory."""
    rows: list[tuple[str, ...]] = [("process", "VMM", "memory", "held of it", "the VMM's own", "in swap")]
    for vm in vms:
        sizes = (vm.ram_bytes, vm.ram_held_bytes, vm.own_bytes, vm.ram_swapped_bytes + vm.own_swapped_bytes)
        rows.append((str(vm.pid), vm.vmm, *map(format_size, sizes)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _balance(answer: Answer, columns: int) -> Iterator[str]:
    balance = answer.balance
    yield (
        f"The host holds {format_size(balance.held_bytes)} for this VM of {format_size(answer.ram_bytes)}"
        + (f"; {format_size(balance.swapped_bytes)} of that in swap:" if balance.swapped_bytes else ":")
    )
    yield ""
    small = 0
    for name, size_bytes in balance.classes.items():
        if size_bytes < _SHOWN_SHARE * balance.held_bytes:
            small += size_bytes
            continue
        yield _bar(name, size_bytes, balance.held_bytes)
        if name == BELOW_ORDER:
            shown = [(order, each) for order, each in balance.below_order_bytes.items() if each >= size_bytes / 20]
            orders = ", ".join(f"{order}: {format_size(each)}" for order, each in shown)
            yield from textwrap.wrap(f"    by order  {orders}", columns, subsequent_indent=" " * 14)
    if small:
        yield _bar("others", small, balance.held_bytes)


def _bar(name: str, size_bytes: int, held_bytes: int) -> str:
    length = round(_BAR_COLUMNS * size_bytes / held_bytes)
    return f"  {name:<{_NAME_COLUMNS}} {format_size(size_bytes):>9}  {'█' * length}".rstrip()


def _findings(answer: Answer, columns: int) -> Iterator[str]:
    if not answer.findings:
        yield from textwrap.wrap(answer.nothing, columns)
        yield ""
    for number, finding in enumerate(answer.findings, 1):
        yield from _finding(number, finding, columns)


def _finding(number: int, finding: Finding, columns: int) -> Iterator[str]:
    size = "" if finding.size_bytes is None else f"{format_size(finding.size_bytes)}  "
    yield from textwrap.wrap(
        f"{number}. {size}{finding.sentence}", columns, subsequent_indent="   ", break_on_hyphens=False
    )
    for place, each in enumerate(finding.evidence):
        yield from _labelled("because" if not place else "", each, columns)
    for place, remedy in enumerate(finding.remedies):
        yield f"   {'do' if not place else '':<8} {remedy.where}: {remedy.command}"  # unbroken: it is to be copied
        if remedy.note:
            yield from _labelled("", f"({remedy.note})", columns)
    if finding.returns_bytes is not None and finding.remedies:
        yield from _labelled("returns", f"about {format_size(finding.returns_bytes)}{_by_which(finding)}", columns)
    if finding.cost:
        yield from _labelled("costs", finding.cost, columns)
    yield ""


def _by_which(finding: Finding) -> str:
    return ", by the first of these" if len(finding.remedies) > 1 else ""


def _labelled(label: str, text: str, columns: int) -> list[str]:
    head = f"   {label:<8} "
    return textwrap.wrap(text, columns, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _notes(answer: Answer, columns: int) -> Iterator[str]:
    for note in answer.notes:
        yield from textwrap.wrap(note, columns, break_on_hyphens=False)
    if answer.notes:
        yield ""


def _gaps(answer: Answer, columns: int) -> Iterator[str]:
    if answer.gaps:
        yield "What is not known:"
        for gap in answer.gaps:
            yield from textwrap.wrap(f"- {gap}", columns, subsequent_indent="  ", break_on_hyphens=False)
