"""The ground around a grid that was asked for: read, so that the network sees what lies beyond its border."""

import math

from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from geop2p.raster.grid import Bounds, Grid

MARGIN = 2048  # pixels around, where the input has them: more than the fields of the recipes, and a multiple of strides


def framed(asked: Grid, whole: Grid | None, crs: CRS | None, bounds: Bounds) -> tuple[Grid, Window] | None:
    """The grid to read so that the pixels of another are those of a larger mosaic.

    Where the grid that was asked for is a cut of the one that the whole input would be translated on, that is it, so
    that cuts of one input meet without a seam. Elsewhere it is grown by `MARGIN`, or as far as the input reaches.

    Args:
        asked: The grid that was asked for.
        whole: The grid of the whole input, if it has one.
        crs: CRS of the input.
        bounds: Of the input in its CRS.

    Returns:
        The grid, and the window of it that was asked for; None where the input lies elsewhere.
    """
    common = _common(asked, crs, bounds)
    if common is None:
        return None
    if whole is not None and (offset := asked.offset_in(whole)) is not None:
        row, col = offset
        if min(row, col) >= 0 and row + asked.height <= whole.height and col + asked.width <= whole.width:
            return whole, Window(col, row, asked.width, asked.height)
    around = _around(asked, MARGIN, MARGIN, asked.height + 2 * MARGIN, asked.width + 2 * MARGIN)
    left, bottom, right, top = _common(around, crs, bounds) or common
    corners = [(left, bottom), (left, top), (right, bottom), (right, top)]
    cols, rows = zip(*(~asked.transform @ corner for corner in corners), strict=True)
    above, before = _margin(-min(rows)), _margin(-min(cols))
    below, after = _margin(max(rows) - asked.height), _margin(max(cols) - asked.width)
    grid = _around(asked, above, before, above + asked.height + below, before + asked.width + after)
    return grid, Window(before, above, asked.width, asked.height)


def _common(grid: Grid, crs: CRS | None, bounds: Bounds) -> Bounds | None:
    """Bounds, in the CRS of a grid, of what it has in common with an input. Only its own ground changes its CRS."""
    west, south, east, north = grid.bounds_in(crs)
    is_geographic = crs is not None and crs.is_geographic
    east += 360 if is_geographic and east < west else 0  # across the dateline
    bottom, top = max(south, bounds[1]), min(north, bounds[3])
    for turn in (0, 360, -360) if is_geographic else (0,):
        left, right = max(west, bounds[0] + turn), min(east, bounds[2] + turn)
        if left < right:
            break
    if left >= right or bottom >= top:
        return None
    if crs is None or grid.crs is None or crs == grid.crs:
        return left, bottom, right, top
    found = transform_bounds(crs, grid.crs, left, bottom, right, top, densify_pts=51)
    return found[0], found[1], found[2], found[3]


def _around(asked: Grid, row: int, col: int, height: int, width: int) -> Grid:
    """The grid of so many rows and columns in which another begins at a row and column."""
    return asked.window(Window(-col, -row, width, height))


def _margin(pixels: float) -> int:
    """Whole pixels that the input reaches beyond a border, `MARGIN` at most."""
    return math.floor(min(max(pixels + 1e-3, 0), MARGIN))
