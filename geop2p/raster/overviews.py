"""Which overview of a raster is enough for a coarser grid."""

from typing import Any

from geop2p.config import Kind
from geop2p.raster.grid import Grid
from geop2p.raster.validity import is_said_once

LEAST_RATIO = 2.0  # pixels of an overview that a pixel of the grid still averages, along each axis


def overview_for(dataset: Any, bands: list[int], own: Grid, grid: Grid, kind: Kind) -> int | None:
    """The number of the coarsest overview whose pixels are at most half of the grid's; None if none is.

    Overviews are averages of stored values as a rule: right for images and elevation, wrong for radar in dB, and
    those of classes may be made in any way. GDAL makes them by one statement of what is no data alone.

    Args:
        dataset: Open raster.
        bands: Those that are read.
        own: Its grid.
        grid: Where it is read.
        kind: What it holds.
    """
    factors = dataset.overviews(bands[0])
    here, there = own.pixel_size, grid.pixel_size
    if kind not in ("image", "elevation") or here is None or there is None:
        return None
    if any(dataset.overviews(band) != factors for band in bands) or not is_said_once(dataset, bands):
        return None
    most = min(there) / max(here) / LEAST_RATIO
    enough = [number for number, factor in enumerate(factors) if factor <= most]
    return max(enough, key=lambda number: factors[number]) if enough else None
