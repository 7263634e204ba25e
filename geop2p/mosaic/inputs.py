"""What a model can read, and on which grid."""

import logging
import math

import numpy as np
from affine import Affine

from geop2p.errors import RasterError
from geop2p.raster.grid import Grid, local_crs
from geop2p.raster.reading import RasterInfo
from geop2p.translator import Card

log = logging.getLogger(__name__)

SAME_PIXEL = 0.05  # relative difference of pixel sizes that still counts as the training's


def check_input(info: RasterInfo, card: Card) -> None:
    """Refuse a raster that the model cannot read.

    Raises:
        RasterError: It has other bands than the training's source, or no CRS where the model has a pixel size.
    """
    expected = len(card.source.bands)
    if info.count != expected:
        names = ", ".join(band.name for band in card.source.bands if band.name) or card.source.kind
        raise RasterError(f"{info.path}: has {info.count} bands, the model expects {expected} ({names})")
    is_float = np.dtype(info.dtype).kind == "f"
    if card.source.is_classes and is_float:
        raise RasterError(f"{info.path}: holds {info.dtype}, the model expects integer classes")
    if info.grid.crs is None and card.pixel_size is not None:
        raise RasterError(f"{info.path}: has no CRS, so its pixel size is unknown; assign one (gdal_edit -a_srs)")


def output_grid(grid: Grid, card: Card, no_resample: bool) -> Grid:
    """The grid of the mosaic: the input's where its pixels have the training's size within 5 %, else a new one.

    The new grid is north-up from the input's first corner, in the input's CRS or, if that is geographic, in the UTM
    zone of the input's centre.
    """
    trained, found = card.pixel_size, grid.pixel_size
    if trained is None or found is None or no_resample:
        return grid
    if all(abs(here / there - 1) <= SAME_PIXEL for here, there in zip(found, trained, strict=True)):
        return grid
    crs = local_crs(grid)
    left, bottom, right, top = grid.bounds_in(crs)
    metres = Grid(crs, Affine(1, 0, (left + right) / 2, 0, -1, (bottom + top) / 2), 1, 1).pixel_size
    assert metres is not None
    resolution = float(f"{math.sqrt(math.prod(trained) / math.prod(metres)):.6g}")
    height, width = (max(1, round(side / resolution)) for side in (top - bottom, right - left))
    result = Grid(crs, Affine(resolution, 0, left, 0, -resolution, top), height, width)
    log.info(
        "pixels of %.4g m, the model was trained on %.4g m: reading through a warp onto %s",
        math.sqrt(math.prod(found)), math.sqrt(math.prod(trained)), result.describe(),
    )  # fmt: skip
    return result
