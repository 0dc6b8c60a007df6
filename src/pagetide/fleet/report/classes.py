"""What each class of VMs gains: by how much memory it has, and by how far its peak lies above what it uses."""

from collections.abc import Sequence
from typing import NamedTuple

from pagetide.fleet.runs.store import Results
from pagetide.units import GIB

_SIZE = f"""
    CASE WHEN reserved_bytes <= {2 * GIB} THEN '1. up to 2 GiB' WHEN reserved_bytes <= {8 * GIB} THEN '2. up to 8 GiB'
    WHEN reserved_bytes <= {32 * GIB} THEN '3. up to 32 GiB' ELSE '4. above 32 GiB' END"""
_SWING = """
    CASE WHEN held_most_bytes * known_steps <= 2 * used_byte_steps THEN '1. steady: peak up to twice the mean'
    WHEN held_most_bytes * known_steps <= 8 * used_byte_steps THEN '2. swinging: up to eight times'
    ELSE '3. bursting: above that' END"""

CLASSES = {"by memory": _SIZE, "by how use moves": _SWING}
"""How VMs are told apart, as SQL of what is held where all returns at once, which is what they use."""


class Class(NamedTuple):
    """Some VMs.

    Attributes:
        name: what they are.
        vms: how many.
        provisioned_bytes: what they have, on average over the time while they are on.
        held_bytes: what is held for them on average, by setting.
    """

    name: str
    vms: int
    provisioned_bytes: float
    held_bytes: tuple[float, ...]


def classes(results: Results, kind: str, settings: int, steps: int) -> Sequence[Class]:
    """The VMs that are on at some time, told apart.

    Args:
        results: the database.
        kind: a name in CLASSES.
        settings: how many settings there are; the last is that all returns at once.
        steps: of the grid.
    """
    rows = results.rows(
        f"""
        WITH placed AS (
            SELECT setting, vms.*, row_number() OVER (PARTITION BY job ORDER BY vms.rowid) AS place,
                job - setting AS first_job
            FROM vms JOIN jobs USING (job) WHERE reserved_bytes > 0
        ), told AS (SELECT first_job, place, {CLASSES[kind]} AS class FROM placed WHERE setting = ?)
        SELECT class, setting, count(*), sum(capacity_byte_steps), sum(held_byte_steps)
        FROM placed JOIN told USING (first_job, place) GROUP BY class, setting ORDER BY class, setting
        """,  # noqa: S608 - our own words
        [settings - 1],
    )
    found = []
    for name in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == name]
        held = tuple(float(row[4]) / steps for row in own)
        found.append(Class(name.partition(". ")[2], own[0][2], float(own[0][3]) / steps, held))
    return found
