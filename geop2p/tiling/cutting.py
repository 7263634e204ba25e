"""Windows of two layers on one grid, read by a few threads, each piece of ground once."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rasterio.windows import Window

from geop2p.config import TileConfig
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.layers import Layer
from geop2p.raster.reading import gdal_env
from geop2p.raster.vectors import Area
from geop2p.tiling.chips import Chip
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
class Ground:
    """Both layers on an region: values (bands, rows, cols) and where both are valid, (rows, cols)."""

    region: Region
    source: Array
    target: Array
    valid: Mask

    def chip(self, row: int, col: int) -> Chip:
        """The window at a place of the grid."""
        top, left, size = row - self.region.rows[0], col - self.region.cols[0], self.region.size
        at = (slice(top, top + size), slice(left, left + size))
        return Chip(self.source[:, *at], self.target[:, *at], self.valid[at])


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


@contextmanager
def open_ground(grid: Grid, layers: tuple[Layer, Layer], aoi: Path | None) -> Iterator[Callable[[Region], Ground]]:
    """Open both layers on a grid.

    Args:
        grid: Where to read; ground outside it is not valid.
        layers: Source and target.
        aoi: Vector layer of polygons; ground outside them is not valid. None: all is.
    """
    with gdal_env(threads="1"), ExitStack() as stack:
        source, target = (stack.enter_context(layer.reader(grid)) for layer in layers)
        polygons = None if aoi is None else Area(aoi, grid)

        def read(region: Region) -> Ground:
            window = region.window
            (first, valid), (second, there) = source.read(window), target.read(window)
            valid &= there
            valid[max(0, grid.height - region.rows[0]) :] = False
            valid[:, max(0, grid.width - region.cols[0]) :] = False
            if polygons is not None:
                valid &= polygons.mask(window)
            return Ground(region, first, second, valid)

        yield read
