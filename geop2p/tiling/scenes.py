"""Where a scene's chips lie: its name, its grid and the lattice of windows on it."""

import math
import re
from pathlib import Path

from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from geop2p.config import TileConfig
from geop2p.errors import ConfigError, GridMismatchError
from geop2p.raster.grid import Grid, covering
from geop2p.raster.layers import Layer
from geop2p.tiling.chips import SIDES, ChipSet


def scene_name(layers: tuple[Layer, Layer], config: TileConfig) -> str:
    """The stem of the layer that gives the grid, with characters that suit a file name."""
    layer = layers[0] if config.grid == "source" and layers[0].grid is not None else layers[1]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(layer.path).stem)


def unused(name: str, earlier: ChipSet) -> str:
    """The name, with a number if a scene of another file has it."""
    taken = {scene.id for scene in earlier.scenes}
    return next(
        candidate for number in range(1, len(taken) + 2)
        if (candidate := name if number == 1 else f"{name}-{number}") not in taken
    )  # fmt: skip


def scene_grid(layers: tuple[Layer, Layer], config: TileConfig) -> Grid:
    """The grid of the chips, cropped to the ground that both layers may cover.

    Raises:
        GridMismatchError: They have none in common.
        ConfigError: The grid asked for does not exist.
    """
    source, target = layers
    crs, resolution = _parse_grid(config.grid)
    if crs is not None:
        common = _intersection(source, target, crs)
        return covering(common, crs, resolution)
    base = {"source": source, "target": target}[config.grid]
    if base.grid is None:
        raise ConfigError(f"{base.path}: a vector layer has no grid; choose the other side's with --grid")
    other = target if base is source else source
    bounds = _intersection(base, other, base.grid.crs)
    if other.vector is not None:
        return base.grid
    return _cropped(base.grid, bounds)


def _parse_grid(text: str) -> tuple[CRS | None, float]:
    if text in SIDES:
        return None, 0.0
    match = re.fullmatch(r"(.+)@(\d+(?:\.\d+)?(?:e-?\d+)?)", text)
    try:
        if match is None or float(match[2]) <= 0:
            raise ConfigError(f"grid is '{text}', expected source, target or EPSG:CODE@RESOLUTION")
        return CRS.from_user_input(match[1]), float(match[2])
    except CRSError as error:
        raise ConfigError(f"grid '{text}' names an unknown CRS") from error


def _intersection(base: Layer, other: Layer, crs: CRS) -> tuple[float, float, float, float]:
    first, second = base.bounds_in(crs), other.bounds_in(crs)
    left, bottom = max(first[0], second[0]), max(first[1], second[1])
    right, top = min(first[2], second[2]), min(first[3], second[3])
    if not (left < right and bottom < top):
        name = crs.to_string()
        raise GridMismatchError(
            f"no common ground in {name}: {base.path} covers {_extent(first)}, {other.path} covers {_extent(second)}; "
            "check the CRS of both"
        )
    return left, bottom, right, top


def _extent(bounds: tuple[float, float, float, float]) -> str:
    return f"x {bounds[0]:.10g} to {bounds[2]:.10g}, y {bounds[1]:.10g} to {bounds[3]:.10g}"


def _cropped(grid: Grid, bounds: tuple[float, float, float, float]) -> Grid:
    """The part of a grid that covers bounds in its CRS."""
    left, bottom, right, top = bounds
    corners = [~grid.transform @ corner for corner in ((left, top), (right, top), (right, bottom), (left, bottom))]
    cols, rows = zip(*corners, strict=True)
    first_col, first_row = max(0, math.floor(min(cols) + 1e-3)), max(0, math.floor(min(rows) + 1e-3))
    last_col = min(grid.width, math.ceil(max(cols) - 1e-3))
    last_row = min(grid.height, math.ceil(max(rows) - 1e-3))
    return grid.window(Window(first_col, first_row, last_col - first_col, last_row - first_row))


def lattice(grid: Grid, config: TileConfig) -> list[tuple[int, int]]:
    """(row_off, col_off) of the windows that cover a grid; the last of each axis may run past its end."""
    rows, cols = (range(0, max(1, side - config.size + config.step), config.step) for side in (grid.height, grid.width))
    return [(row, col) for row in rows for col in cols]
