"""Windows of two layers on one grid, read by a few threads, each piece of ground once."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from geop2p.config import TileConfig
from geop2p.raster.aligned import Reader
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.layers import Layer
from geop2p.raster.reading import gdal_env
from geop2p.raster.validity import everywhere
from geop2p.raster.vectors import Area
from geop2p.tiling.layouts import Chip
from geop2p.tiling.scenes import lattice_axis

REGION_BYTES = 16 * 2**20  # of both sides that a thread reads at once


@dataclass(frozen=True)
class Region:
    """Neighbouring windows of a lattice that are read together.

    Attributes:
        rows: Their row_off, ascending.
        cols: Their col_off, ascending.
        size: Their side in pixels.
    """

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    size: int

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    @property
    def window(self) -> Window:
        """The pixels that they cover."""
        height, width = self.rows[-1] - self.rows[0] + self.size, self.cols[-1] - self.cols[0] + self.size
        return Window(self.cols[0], self.rows[0], width, height)


@dataclass(frozen=True)
class RegionPair:
    """Both layers on a region.

    Attributes:
        region: Where.
        valid: Where both are valid, (rows, cols).
        readers: Give the values of source and target, (bands, rows, cols), in a window.
    """

    region: Region
    valid: Mask
    readers: tuple[Callable[[Window], Array], Callable[[Window], Array]]
    _read: dict[int, Array] = field(default_factory=dict, init=False)

    @property
    def is_whole(self) -> bool:
        """Whether all of the region is valid."""
        return bool(self.valid.all() if any(self.valid.strides) else self.valid[0, 0])

    @property
    def source(self) -> Array:
        """Values of the source, read when they are first asked for."""
        return self._side(0)

    @property
    def target(self) -> Array:
        """Values of the target, read when they are first asked for."""
        return self._side(1)

    def _side(self, number: int) -> Array:
        # no cached_property: until Python 3.12 all regions share its lock, and threads would read one after the other
        if number not in self._read:
            self._read[number] = self.readers[number](self.region.window)
        return self._read[number]

    def at(self, row: int, col: int) -> tuple[slice, slice]:
        """Rows and columns of the window at a place of the grid."""
        top, left, size = row - self.region.rows[0], col - self.region.cols[0], self.region.size
        return slice(top, top + size), slice(left, left + size)

    def chip(self, row: int, col: int) -> Chip:
        """The window at a place of the grid."""
        at = self.at(row, col)
        return Chip(self.source[:, *at], self.target[:, *at], self.valid[at])

    def chip_alone(self, row: int, col: int) -> Chip:
        """The same, read without the rest of the region."""
        window = Window(col, row, self.region.size, self.region.size)
        source, target = (read(window) for read in self.readers)
        return Chip(source, target, self.valid[self.at(row, col)])


def plan_regions(grid: Grid, layers: tuple[Layer, Layer], config: TileConfig) -> list[Region]:
    """The windows of a grid in regions that are decoded once: whole block rows, as wide as memory allows.

    They depend on layers and settings alone, so that a repeated run knows which it has done.
    """
    rows, cols = lattice_axis(grid.height, config), lattice_axis(grid.width, config)
    pixel_bytes = sum(layer.pixel_bytes for layer in layers) + 2
    block_rows, block_cols = (max(sides) for sides in zip(*(layer.block_on(grid) for layer in layers), strict=True))
    down = max(1, round(block_rows / config.step), 2 * config.size // config.step - 1)
    row_bytes = (min(down, len(rows)) * config.step + config.size) * pixel_bytes
    if block_cols >= grid.width:  # strips: a part of a row costs as much as all of it, unless GDAL keeps the row
        across = max(1, min(len(cols), int(REGION_BYTES / (config.size * pixel_bytes) / config.step)))
        down = max(1, int(REGION_BYTES / (across * config.step * pixel_bytes) / config.step))
    else:
        step = max(1, math.ceil(block_cols / config.step))
        across = max(step, int(REGION_BYTES / row_bytes / config.step) // step * step)
    return [
        Region(tuple(rows[top : top + down]), tuple(cols[left : left + across]), config.size)
        for top in range(0, len(rows), down)
        for left in range(0, len(cols), across)
    ]


def _is_whole(layer: Layer, grid: Grid) -> bool:
    """Whether every pixel of a layer on a grid is known to be valid before any is read."""
    info = layer.raster
    if info is None or not info.is_whole or info.by_points or layer.ignored or layer.colors or layer.relief:
        return False
    offset = grid.unmirrored.offset_in(info.grid.unmirrored)
    if offset is None or min(offset) < 0:
        return False
    return offset[0] + grid.height <= info.grid.height and offset[1] + grid.width <= info.grid.width


def _pixels(reader: Reader) -> Callable[[Window], Array]:
    """What gives the values of a reader alone."""
    return lambda window: reader.read(window)[0]


def _side(reader: Reader, region: Window, valid: Mask, is_whole: bool) -> Callable[[Window], Array]:
    """What gives the values of a layer in windows of a region; where pixels may not be valid they are read now."""
    if is_whole:
        return _pixels(reader)
    values, there = reader.read(region)
    valid &= there

    def cut(window: Window) -> Array:
        top, left = int(window.row_off - region.row_off), int(window.col_off - region.col_off)
        return values[:, top : top + int(window.height), left : left + int(window.width)]

    return cut


@contextmanager
def open_ground(grid: Grid, layers: tuple[Layer, Layer], aoi: Path | None) -> Iterator[Callable[[Region], RegionPair]]:
    """Open both layers on a grid.

    Args:
        grid: Where to read; ground outside it is not valid.
        layers: Source and target.
        aoi: Vector layer of polygons; ground outside them is not valid. None: all is.
    """
    with gdal_env(threads="1"), ExitStack() as stack:
        readers = [stack.enter_context(layer.reader(grid)) for layer in layers]
        whole = [_is_whole(layer, grid) for layer in layers]
        polygons = None if aoi is None else Area(aoi, grid)

        def read(region: Region) -> RegionPair:
            window = region.window
            shape = (window.height, window.width)
            reaches_beyond = region.rows[0] + shape[0] > grid.height or region.cols[0] + shape[1] > grid.width
            if all(whole) and polygons is None and not reaches_beyond:
                return RegionPair(region, everywhere(shape), (_pixels(readers[0]), _pixels(readers[1])))
            valid = np.ones(shape, bool)
            sides = [_side(reader, window, valid, is_whole) for reader, is_whole in zip(readers, whole, strict=True)]
            valid[max(0, grid.height - region.rows[0]) :] = False
            valid[:, max(0, grid.width - region.cols[0]) :] = False
            if polygons is not None:
                valid &= polygons.mask(window)
            return RegionPair(region, valid, (sides[0], sides[1]))

        yield read
