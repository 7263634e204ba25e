"""The grid of a mosaic, and the grid around it that is read, so that the network sees what lies beyond its border."""

import math
from pathlib import Path

from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from geop2p.errors import GridMismatchError
from geop2p.raster.grid import Bounds, Grid, local_crs
from geop2p.raster.pixels import PixelSize, has_size, in_metres, nearest_size, range_in_metres
from geop2p.raster.reading import describe_raster
from geop2p.raster.vectors import VectorLayer
from geop2p.translator import Card

MARGIN = 2048  # pixels around, where the input has them: more than the fields of the recipes, and a multiple of strides


def grid_like(path: Path, card: Card, no_resample: bool) -> Grid:
    """The grid of another raster, whose pixels must have a size of the training.

    Raises:
        GridMismatchError: They have another.
    """
    grid = describe_raster(path).grid.unmirrored
    if not no_resample and not has_size(grid.pixel_size, card.trained_pixels):
        found, trained = in_metres(grid.pixel_size), range_in_metres(card.trained_pixels)
        raise GridMismatchError(
            f"{path}: has pixels of {found}, the model was trained on {trained}; give a grid of such pixels, or insist "
            "with --no-resample"
        )
    return grid


def output_grid(grid: Grid, card: Card, no_resample: bool) -> Grid:
    """The grid of the mosaic: the input's where its pixels have a size of the training within 5 %, else a new one.

    The new grid is north-up from the input's first corner, in the input's CRS or, if that is geographic, in the UTM
    zone of the input's centre. Of several sizes of the training it has the one that is nearest to the input's.
    """
    found, known = grid.pixel_size, card.trained_pixels
    if no_resample or found is None or known is None or has_size(found, known):
        return grid
    crs = local_crs(grid)
    return _trained_grid(grid.bounds_in(crs), crs, nearest_size(found, known))


def vector_grid(layer: VectorLayer, card: Card) -> Grid:
    """The grid of a vector layer: its bounds, on pixels of the training.

    Raises:
        GridMismatchError: The model has no pixel size.
    """
    if card.pixel_size is None:
        raise GridMismatchError(f"{layer.path}: the model has no pixel size to draw it with; give a grid with --like")
    left, bottom, right, top = layer.features.total_bounds
    crs = local_crs(
        Grid(CRS.from_user_input(layer.features.crs), Affine(right - left, 0, left, 0, bottom - top, top), 1, 1)
    )
    # the pixels of lines and points on the layer's bounds lie half beyond
    return _trained_grid(layer.bounds_in(crs), crs, card.pixel_size, margin=0.5 if layer.thin.any() else 0.0)


def framed(path: str, asked: Grid, whole: Grid | None, crs: CRS | None, bounds: Bounds) -> tuple[Grid, Window]:
    """The grid to read so that the pixels of another are those of a larger mosaic.

    Where the grid that was asked for is a cut of the one that the whole input would be translated on, that is it, so
    that cuts of one input meet without a seam. Elsewhere it is grown by `MARGIN`, or as far as the input reaches.

    Args:
        path: The input, for messages.
        asked: The grid that was asked for (--like).
        whole: The grid of the whole input, if it has one.
        crs: CRS of the input.
        bounds: Of the input in its CRS.

    Returns:
        The grid, and the window of it that was asked for.

    Raises:
        GridMismatchError: The input lies elsewhere, or one of both has no CRS.
    """
    if (crs is None) != (asked.crs is None):
        lacks = "has no CRS, the raster of --like" if crs is None else "has a CRS, the raster of --like none"
        raise GridMismatchError(f"{path}: {lacks}{' has one' * (crs is None)}; assign one (gdal_edit -a_srs)")
    common = _common(asked, crs, bounds)
    if common is None:
        raise GridMismatchError(f"{path}: lies elsewhere than the grid that --like gives, {asked.describe()}")
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


def _trained_grid(bounds: Bounds, crs: CRS, size: PixelSize, margin: float = 0.0) -> Grid:
    """The north-up grid over bounds, and a margin in pixels, whose pixels have a size in metres in the middle."""
    left, bottom, right, top = bounds
    metres = Grid(crs, Affine(1, 0, (left + right) / 2, 0, -1, (bottom + top) / 2), 1, 1).pixel_size
    assert metres is not None
    down, along = (float(f"{side / metre:.6g}") for side, metre in zip(size, metres, strict=True))
    height, width = (top - bottom) / down + 2 * margin, (right - left) / along + 2 * margin
    rows, cols = (max(1, math.floor(length + 0.5)) for length in (height, width))
    return Grid(crs, Affine(along, 0, left - margin * along, 0, -down, top + margin * down), rows, cols)
