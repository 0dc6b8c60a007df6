"""Rings of a hostile driver: right ones, of which a few fields are changed."""

import random
from dataclasses import replace

from pagetide.virtio.balloon import STAT, Queue
from tests.host.device.hostile_model import ARRAY, BORDER, DESC, END, GPA, PAGE, SIZE, TABLES, USED, Case, Descriptor

_TABLE_DESCS = 4
_NEXT, _WRITE, _INDIRECT = 1, 2, 4
_ADDRESSES = (
    *(ARRAY, ARRAY + 1, ARRAY + 4, *TABLES, BORDER - PAGE, BORDER, BORDER - 6, END - PAGE, END - 4, END, GPA - PAGE),
    *(0, (1 << 64) - PAGE, 1 << 63, (1 << 63) - PAGE, (1 << 64) - 16, GPA + 8, DESC, USED),
)
_LENGTHS = (
    *(PAGE, 2 * PAGE, 16 * PAGE, 64, 48, 16, 8, 4, 10, 0, 6, PAGE + 1, 20, PAGE + 4),
    *(16 * 1024, 16 * 1025, 16 * 1023, 1 << 31, 0xFFFF_FFFF),
)
_NEXTS = (*range(SIZE), SIZE, 65535)
_FLAGS = (0, _WRITE, _NEXT, _NEXT | _WRITE, _INDIRECT, _INDIRECT | _NEXT, _INDIRECT | _WRITE, 0xFFF8)


def _buffer(rng: random.Random, kind: Queue, array_bytes: int) -> Descriptor:
    """One that a driver would give a queue of this kind."""
    if kind in {Queue.REPORTING, Queue.FREE_PAGE}:
        pages = rng.choice((1, 1, 2, 4))
        return (rng.randrange(0x106, 0x138 - pages) * PAGE, pages * PAGE, _WRITE, 0)
    return (ARRAY, array_bytes, 0, 0)


def _chain(descs: list[Descriptor], first: int) -> list[Descriptor]:
    """These descriptors, each with the next one's index."""
    last = len(descs) - 1
    return [
        (gpa, length, flags | (_NEXT if n < last else 0), first + n + 1 if n < last else 0)
        for n, (gpa, length, flags, _) in enumerate(descs)
    ]


def _array(rng: random.Random, kind: Queue) -> bytes:
    count = rng.randrange(1, 17)
    if kind is Queue.STATS:
        return b"".join(STAT.pack(rng.randrange(20), rng.getrandbits(64)) for _ in range(1 + count % 6))
    odd = (0x0FF, 0x138, 0, 0xFFFF_FFFF, 0x8000_0000)
    pfns = [rng.choice(odd) if rng.random() < 0.1 else rng.randrange(0x106, 0x138) for _ in range(count)]
    return b"".join(pfn.to_bytes(4, "little") for pfn in pfns)


def right_case(rng: random.Random, kind: Queue) -> Case:
    """What an honest driver could have written."""
    array = _array(rng, kind)
    descs: list[Descriptor] = []
    tables: list[list[Descriptor]] = []
    heads: list[int] = []
    indirect = rng.random() < 0.6
    while len(descs) < SIZE and rng.random() < 0.85:
        heads.append(len(descs))
        count = rng.randrange(1, 1 + min(_TABLE_DESCS, SIZE - len(descs)))
        buffers = [_buffer(rng, kind, len(array)) for _ in range(count)]
        if indirect and len(tables) < len(TABLES) and rng.random() < 0.5:
            descs.append((TABLES[len(tables)], 16 * count, _INDIRECT, 0))
            tables.append(_chain(buffers, 0) + [(0, 0, 0, 0)] * (_TABLE_DESCS - count))
        else:
            descs += _chain(buffers, len(descs))
    nothing = [(0, 0, 0, 0)]
    return Case(
        kind,
        descs + nothing * (SIZE - len(descs)),
        tables + [nothing * _TABLE_DESCS] * (len(TABLES) - len(tables)),
        heads,
        len(heads),
        array,
        event_idx=rng.random() < 0.5,
        indirect=indirect,
        inhibited=rng.random() < 0.2,
        poison=rng.choice((0, 0, 0, 0xAA)),
        budget=rng.randrange(1, 11),
    )


def _changed(rng: random.Random, desc: Descriptor) -> Descriptor:
    gpa, length, flags, after = desc
    match rng.randrange(4):
        case 0:
            gpa = rng.choice((rng.choice(_ADDRESSES), rng.randrange(0x0FE, 0x13B) * PAGE, gpa ^ 1 << rng.randrange(64)))
        case 1:
            length = rng.choice((rng.choice(_LENGTHS), length ^ 1 << rng.randrange(32), rng.getrandbits(32)))
        case 2:
            flags = rng.choice((rng.choice(_FLAGS), flags ^ 1 << rng.randrange(3)))
        case _:
            after = rng.choice(_NEXTS)
    return gpa, length, flags, after


def _mutated(rng: random.Random, case: Case) -> Case:
    """With one field changed."""
    match rng.choice("dddddtttthiaf"):
        case "d":
            descs, at = list(case.descs), rng.randrange(SIZE)
            descs[at] = _changed(rng, descs[at])
            return replace(case, descs=descs)
        case "t":
            tables, at = [list(table) for table in case.tables], rng.randrange(_TABLE_DESCS)
            table = rng.choice(tables)
            table[at] = _changed(rng, table[at])
            return replace(case, tables=tables)
        case "h" if case.heads:
            heads = list(case.heads)
            heads[rng.randrange(len(heads))] = rng.choice(_NEXTS)
            return replace(case, heads=heads)
        case "i":
            return replace(case, idx=rng.choice((rng.randrange(SIZE + 3), rng.getrandbits(16))))
        case "a":
            return replace(case, array=rng.randbytes(rng.randrange(1, 64)))
        case _:
            return replace(case, indirect=not case.indirect)


def hostile_case(seed: int) -> Case:
    """What this seed writes: a right ring, with up to six fields changed."""
    rng = random.Random(seed)
    case = right_case(rng, rng.choice(list(Queue)))
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4, 6))):
        case = _mutated(rng, case)
    return case
