"""Pictures of a page: as links, heat maps, whole rasters, two rasters of one ground."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor
from rasterio.enums import Resampling
from rasterio.windows import Window

from geop2p.page import Picture
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.atomic import replacing
from geop2p.raster.encoding import Encoding
from geop2p.raster.grid import Grid
from geop2p.raster.layers import Layer, complete_encoding, open_layer
from geop2p.raster.reading import describe_raster, gdal_env, opened
from geop2p.raster.rendering import render
from geop2p.raster.styles import STOPS

CELLS = 32  # along a side of a map of errors
HEAT_SIDE = 256  # pixels of the picture of that map
MOSAIC_SIDE = 1400  # pixels of the longest side of a mosaic on the page


@dataclass(frozen=True)
class Slider:
    """Two pictures of the same ground, of which one uncovers the other."""

    truth: Picture
    prediction: Picture


def heat_picture(values: npt.NDArray[np.float64]) -> Picture:
    """A map of errors (rows, cols) smoothed over blocks, from dark (least) to light (most); grey for NaN."""
    known = np.isfinite(values)
    sums, counts = _by_cell(np.where(known, values, 0)), _by_cell(known.astype(np.int64))
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    low, high = np.nanmin(means), np.nanmax(means)
    unit = np.nan_to_num((means - low) / (high - low or 1))
    stops = np.array([ImageColor.getrgb(color) for color in STOPS])
    at = np.linspace(0, 1, len(stops))
    colors = np.stack([np.interp(unit, at, stops[:, channel]) for channel in range(3)], axis=-1)
    colors[counts == 0] = 128
    picture = Image.fromarray(np.rint(colors).astype(np.uint8)).resize((HEAT_SIDE, HEAT_SIDE), Image.Resampling.NEAREST)
    return np.asarray(picture)


def _by_cell(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sums (rows, cols) over at most CELLS cells an axis, which differ by a pixel at most and leave none out."""
    for axis, side in enumerate(values.shape):
        cells = min(CELLS, side)
        values = np.add.reduceat(values, np.arange(cells) * side // cells, axis=axis)
    return values


def write_overview(path: Path, rasters: Sequence[str | Path], grid: Grid, side: int = 420) -> None:
    """Save the same ground of several rasters side by side as a PNG.

    Args:
        path: File to write or replace.
        rasters: In order from left to right.
        grid: Where to show them; its middle is shown.
        side: Pixels of each picture.
    """
    rows, cols = min(side, grid.height), min(side, grid.width)
    window = Window((grid.width - cols) // 2, (grid.height - rows) // 2, cols, rows)
    pictures: list[Picture] = []
    for raster in rasters:
        layer = open_layer(raster)
        with layer.reader(grid) as reader:
            values, valid = reader.read(window)
        picture = render(values, valid, complete_encoding(layer, values, valid))
        pictures += [picture, np.full((rows, 8, 3), 255, np.uint8)]
    with replacing(path) as temporary:
        Image.fromarray(np.concatenate(pictures[:-1], axis=1)).save(temporary, optimize=True)


def mosaic_picture(path: str | Path, encoding: Encoding) -> Picture:
    """A raster thinned to at most `MOSAIC_SIDE` pixels, drawn as its encoding says."""
    with gdal_env(), opened(path) as dataset:
        factor = max(1.0, max(dataset.shape) / MOSAIC_SIDE)
        shape = tuple(math.ceil(length / factor) for length in dataset.shape)
        method = Resampling.nearest if encoding.is_classes else Resampling.average
        bands = list(range(1, len(encoding.bands) + 1))
        values = dataset.read(bands, out_shape=(len(bands), *shape), resampling=method)
        valid = dataset.dataset_mask(out_shape=shape, resampling=Resampling.nearest) > 0
    return render(np.nan_to_num(values), valid, encoding)


def slider_of(mosaic: str | Path, truth: Layer, encoding: Encoding) -> Slider | None:
    """A mosaic and the truth of its ground, thinned to at most `MOSAIC_SIDE` pixels.

    Args:
        mosaic: Raster.
        truth: Layer of the same kind.
        encoding: How both are drawn.

    Returns:
        None where the truth has no valid ground there, or cannot be thinned for want of a CRS.
    """
    grid = describe_raster(mosaic).grid
    factor = max(1.0, max(grid.height, grid.width) / MOSAIC_SIDE)
    if factor > 1 and grid.crs is None:
        return None
    thin = grid.resized(math.ceil(grid.height / factor), math.ceil(grid.width / factor))
    real, there = _whole(truth.reader(thin))
    if not there.any():
        return None
    made, valid = _whole(aligned_reader(mosaic, thin, encoding.kind))
    return Slider(render(real, there, encoding), render(made, valid, encoding))


def _whole(opening: AbstractContextManager[Reader]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    with opening as reader:
        values, valid = reader.read(Window(0, 0, reader.grid.width, reader.grid.height))
    return np.nan_to_num(values), valid
