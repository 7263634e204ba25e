"""Whether two layers mean the same by a stored value."""

from collections.abc import Sequence

from geop2p.raster.encoding import Band, Encoding


def difference(found: Encoding, expected: Encoding) -> str | None:
    """What two encodings of one kind and as many bands take stored values for differently, for a message.

    Names, types and encoded intervals may differ; a unit that a file does not name is taken for the other's.

    Returns:
        Such as "band 1 has scale 0.01, expected 1.0"; None where they agree.
    """
    if found.is_classes:
        return None
    for name in ("backscatter", "relief"):
        here, there = getattr(found, name), getattr(expected, name)
        if here != there:
            return f"{name} is {here}, expected {there}"
    return band_difference(found.bands, expected.bands)


def band_difference(found: Sequence[Band], expected: Sequence[Band]) -> str | None:
    """The first band whose unit, scale or offset differs, for a message; None where all agree."""
    for number, (here, there) in enumerate(zip(found, expected, strict=True), start=1):
        if here.unit and there.unit and here.unit != there.unit:
            return f"band {number} is in {here.unit}, expected {there.unit}"
        for name in ("scale", "offset"):
            if getattr(here, name) != getattr(there, name):
                return f"band {number} has {name} {getattr(here, name)}, expected {getattr(there, name)}"
    return None
