"""The designs' colours: told apart by every reader, and seen on either ground."""

import itertools
import math

import pytest

from pagetide.pages.palette import LOOKS, OTHER

# Machado, Oliveira and Fernandes (2009), severity 1.0, for linear RGB.
SIGHTS = {
    "trichromat": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
GROUNDS = {"light": "#fdfdfb", "dark": "#14171a"}
TOLD_APART = 10.0
"""Of CIE76's distance, some four times what is just noticed."""

KNOWN = {**LOOKS, "another": OTHER}

Triple = tuple[float, float, float]


def linear(colour: str) -> Triple:
    """Linear RGB of `#rrggbb` (IEC 61966-2-1)."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return _linear(red), _linear(green), _linear(blue)


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def times(matrix: tuple[Triple, ...], vector: Triple) -> Triple:
    """A matrix times a vector, each result from 0 to 1.5."""
    first, second, third = (
        min(max(sum(one * other for one, other in zip(row, vector, strict=True)), 0.0), 1.5) for row in matrix
    )
    return first, second, third


def lab(rgb: Triple) -> Triple:
    """CIE L*a*b* under D65."""
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    x, y, z = (
        part ** (1 / 3) if (part := value / full) > 0.008856 else 7.787 * part + 16 / 116
        for value, full in zip(times(to_xyz, rgb), white, strict=True)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def seen_distance(one: str, other: str, sight: str) -> float:
    """How far two colours are apart for who sees so."""
    return math.dist(lab(times(SIGHTS[sight], linear(one))), lab(times(SIGHTS[sight], linear(other))))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    red, green, blue = linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_design_has_a_look_of_its_own() -> None:
    """No two share a mark or a colour, but designs for which none was chosen yet."""
    looks = set(KNOWN.values())
    for field in ("light", "dark", "mark"):
        assert len({getattr(look, field) for look in looks}) == len(looks)
    assert len(looks) >= 11


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_told_apart(ground: str, sight: str) -> None:
    """Any two designs' colours differ for every kind of colour vision; their marks differ besides."""
    near = [
        (one, other, round(distance, 1))
        for (one, look), (other, look_of_other) in itertools.combinations(KNOWN.items(), 2)
        if look != look_of_other
        and (distance := seen_distance(getattr(look, ground), getattr(look_of_other, ground), sight)) < TOLD_APART
    ]
    assert not near


def test_the_simulation_can_find_fault() -> None:
    """Red and green of like lightness, which a deuteranope confuses, are found to be near; others see them apart."""
    assert seen_distance("#a05a00", "#5a7800", "deutan") < 0.4 * seen_distance("#a05a00", "#5a7800", "trichromat")


@pytest.mark.parametrize("ground", GROUNDS)
def test_lines_stand_out_from_the_ground(ground: str) -> None:
    """By 3 to 1 at least, as WCAG 2.2 (1.4.11) asks of pictures."""
    faint = []
    for design, look in KNOWN.items():
        low, high = sorted((luminance(getattr(look, ground)), luminance(GROUNDS[ground])))
        if (high + 0.05) / (low + 0.05) < 3.0:
            faint.append((design, round((high + 0.05) / (low + 0.05), 2)))
    assert not faint
