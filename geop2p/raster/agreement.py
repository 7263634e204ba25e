"""Whether two layers mean the same by a stored value."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from geop2p.raster.encoding import Band, Encoding

log = logging.getLogger(__name__)

COLORS = ("red", "green", "blue")
METRES, FEET = ("m", "metre", "metres", "meter", "meters"), ("ft", "foot", "feet")
SURVEY_FEET = ("us survey foot", "us survey feet")
DB = ("db", "decibel", "decibels")
NO_COLORS = ("undefined", "gray", "palette")  # roles that many bands may have


def difference(found: Encoding, expected: Encoding) -> str | None:
    """What two encodings of one kind and as many bands take stored values for differently, for a message.

    Types and encoded intervals may differ; a unit that a file does not name is taken for the other's.

    Returns:
        Such as "band 1 has scale 0.01, expected 1.0"; None where they agree.
    """
    if found.is_classes:
        return None
    for name in ("backscatter", "relief"):
        here, there = getattr(found, name), getattr(expected, name)
        if here != there:
            return f"{name} is {here}, expected {there}"
    called = known_alike(found.bands, found.color_interp, expected.bands, expected.color_interp)
    return order_difference(*called) or band_difference(found.bands, expected.bands)


def unit_of(name: str) -> str:
    """One name for all that a unit is called: the first of those that are known, else the name, as mW is not MW."""
    word = name.strip().casefold()
    return next((known[0] for known in (METRES, FEET, SURVEY_FEET, DB) if word in known), name.strip())


def known_as(bands: Sequence[Band], roles: Sequence[str]) -> list[str]:
    """What each band is called: its name, else its colour, else nothing.

    Args:
        bands: Of a file or an encoding.
        roles: GDAL's names of their roles; none where they are not known.
    """
    colors = ["" if role in NO_COLORS else role for role in roles] or [""] * len(bands)
    return [band.name.strip() or color for band, color in zip(bands, colors, strict=True)]


def color_bands(bands: Sequence[Band], roles: Sequence[str]) -> list[int] | None:
    """Indices of the bands that are red, green and blue, by words in their names, else by their roles.

    Names come first, as GDAL calls three bands of 8 bits red, green and blue where nobody says what they are.

    Args:
        bands: Of a file or an encoding.
        roles: GDAL's names of their roles; none where they are not known.

    Returns:
        None where neither names each of the colours once.
    """
    for called in ([_colors_in(band.name) for band in bands], [{role} for role in roles]):
        found = [[place for place, one in enumerate(called) if color in one] for color in COLORS]
        if all(len(places) == 1 for places in found):
            return [places[0] for places in found]
    return None


def _colors_in(name: str) -> set[str]:
    """The colours that the words of a band's name tell, "red edge" and "near infra-red" being none."""
    words = set(re.findall("[a-z]+", name.casefold()))
    return set() if words & {"edge", "infra"} else words & {*COLORS}


def known_alike(
    found: Sequence[Band], roles: Sequence[str], expected: Sequence[Band], expected_roles: Sequence[str]
) -> tuple[list[str], list[str]]:
    """What the bands of two sides are called, to be compared: by names where both have some, else by colours.

    Args:
        found: Bands of the one.
        roles: GDAL's names of their roles; none where they are not known.
        expected: Bands of the other.
        expected_roles: Their roles.
    """
    names, expected_names = ([band.name.strip() for band in bands] for bands in (found, expected))
    if any(names) and any(expected_names):
        return names, expected_names
    return known_as([Band()] * len(found), roles), known_as([Band()] * len(expected), expected_roles)


def warn_of_order(
    path: str | Path,
    found: Sequence[Band],
    roles: Sequence[str],
    expected: Sequence[Band],
    expected_roles: Sequence[str],
    whose: str,
) -> None:
    """Tell of bands in another order if the names of one side and the colours of the other are to be believed.

    They are not believed enough to refuse a raster: GDAL calls three bands of 8 bits red, green and blue where nobody
    says what they are.

    Args:
        path: Of the one, for the message.
        found: Its bands.
        roles: GDAL's names of their roles; none where they are not known.
        expected: As many bands of the other.
        expected_roles: Their roles.
        whose: Where they stand so, for the message.
    """
    by_name = [any(band.name.strip() for band in bands) for bands in (found, expected)]
    if by_name[0] == by_name[1]:
        return
    here, there = (
        [" ".join(_colors_in(band.name)) or band.name for band in bands] if is_named else known_as(bands, of_bands)
        for bands, of_bands, is_named in zip((found, expected), (roles, expected_roles), by_name, strict=True)
    )
    if (apart := order_difference(here, there)) is not None:
        log.warning(
            "%s: by names on one side and colours on the other %s as in %s; taken as they stand: if that is wrong, "
            "reorder them (gdal_translate -b)",
            path, apart, whose,
        )  # fmt: skip


def warn_of_order_in(path: str | Path, found: Encoding, expected: Encoding, whose: str) -> None:
    """`warn_of_order` of two encodings of one kind and as many bands; classes have one band."""
    if not found.is_classes:
        warn_of_order(path, found.bands, found.color_interp, expected.bands, expected.color_interp, whose)


def order_difference(found: Sequence[str], expected: Sequence[str]) -> str | None:
    """Bands of the same names in other places, or of which only some have the same names, for a message.

    Names that have nothing in common are two ways to call the same bands, and say nothing.

    Args:
        found: What the bands are called, in any case; nothing where they are not.
        expected: The same, for as many bands.
    """
    here, there = ([name.casefold() for name in names] for names in (found, expected))
    agree = all(one == other or not (one and other) for one, other in zip(here, there, strict=True))
    if agree or not {*here} & {*there} - {""}:
        return None
    told, wanted = (", ".join(name or "?" for name in names) for names in (found, expected))
    moved = sorted(here) == sorted(there)
    places = f" (its bands {', '.join(str(here.index(name) + 1) for name in there)})" if moved else ""
    return f"has the bands {told}, expected {wanted}{places}"


def band_difference(found: Sequence[Band], expected: Sequence[Band]) -> str | None:
    """The first band whose unit, scale or offset differs, for a message; None where all agree."""
    for number, (here, there) in enumerate(zip(found, expected, strict=True), start=1):
        if here.unit and there.unit and unit_of(here.unit) != unit_of(there.unit):
            return f"band {number} is in {here.unit}, expected {there.unit}"
        for name in ("scale", "offset"):
            if getattr(here, name) != getattr(there, name):
                return f"band {number} has {name} {getattr(here, name)}, expected {getattr(there, name)}"
    return None
