"""How large pixels are on the ground: (down a row, along a column) in metres. Neither numpy nor rasterio is needed."""

from collections.abc import Iterable, Sequence

PixelSize = tuple[float, float]
PixelRange = tuple[PixelSize, PixelSize]  # the smallest and the largest, of each axis for itself

SAME_PIXEL = 0.05  # relative difference of pixel sizes that a network does not mind
ONE_SIZE = 0.01  # relative difference that is not worth telling


def pixel_range(sizes: Iterable[Sequence[float] | None]) -> PixelRange | None:
    """The smallest and largest of some sizes; None where all are unknown."""
    known = [size for size in sizes if size is not None]
    if not known:
        return None
    down, along = zip(*known, strict=True)
    return (min(down), min(along)), (max(down), max(along))


def has_size(found: Sequence[float] | None, known: PixelRange | None) -> bool:
    """Whether a size lies within a range, to `SAME_PIXEL`; so does what is unknown."""
    if found is None or known is None:
        return True
    axes = zip(found, *known, strict=True)
    return all(small * (1 - SAME_PIXEL) <= here <= large * (1 + SAME_PIXEL) for here, small, large in axes)


def nearest_size(found: Sequence[float], known: PixelRange) -> PixelSize:
    """The size within a range that is nearest to another, for each axis by itself."""
    down, along = (min(max(here, small), large) for here, small, large in zip(found, *known, strict=True))
    return down, along


def is_one_size(known: PixelRange) -> bool:
    """Whether the ends of a range are as good as alike."""
    return all(large <= small * (1 + ONE_SIZE) for small, large in zip(*known, strict=True))


def in_metres(size: Sequence[float] | None) -> str:
    """A size for messages: one figure for a square."""
    if size is None:
        return "unknown size"
    down, along = size
    square = max(size) <= min(size) * (1 + ONE_SIZE)
    return f"{(down * along) ** 0.5:.4g} m" if square else f"{down:.4g} m down and {along:.4g} m along"


def range_in_metres(known: PixelRange | None) -> str:
    """A range for messages: one size where its ends are as good as alike."""
    if known is None or is_one_size(known):
        return in_metres(known and known[0])
    return " to ".join(map(in_metres, known))
