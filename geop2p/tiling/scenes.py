"""Where a scene's chips lie: its name, its grid and the lattice of windows on it."""

import logging
import math
import re
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from geop2p.config import TileConfig
from geop2p.errors import ConfigError, GridMismatchError, NoGroundError, RasterError
from geop2p.raster.grid import LOOKUPS, Bounds, Grid, covering, positions_in
from geop2p.raster.layer_names import named_layer
from geop2p.raster.layers import Layer
from geop2p.raster.pixels import has_size, in_metres, pixel_range
from geop2p.raster.placement import BY_POLYNOMIALS
from geop2p.raster.reading import gdal_env
from geop2p.tiling.chips import SIDES, ChipSet, Scene

log = logging.getLogger(__name__)

FAR_FINER = 1000  # times finer than both layers: from here on the unit of a resolution is taken for a mistake
MOST_WINDOWS = 10**9  # of a scene on a grid that somebody asks for


def scene_name(layers: tuple[Layer, Layer], config: TileConfig) -> str:
    """The stem of the layer that gives the grid, with characters that suit a file name."""
    layer = layers[0] if config.grid == "source" and layers[0].grid is not None else layers[1]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(named_layer(layer.path)[0]).stem)


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
        RasterError: A raster has no CRS.
        NoGroundError: They have none in common.
        GridMismatchError: They are to be paired by pixel and cannot.
        ConfigError: The grid asked for does not exist.
    """
    if config.pixel_grid:
        return _pixel_grid(layers)
    _check_crs(layers)
    _check_features(layers)
    source, target = layers
    crs, resolution = _parse_grid(config.grid)
    if crs is not None:
        smaller, other = sorted(layers, key=lambda layer: _area(layer.bounds_in(CRS.from_epsg(4326))))
        bounds = smaller.bounds_in(crs)
        grid = covering(bounds, crs, resolution)
        _check_resolution(grid, bounds, layers, config)
        return _common(grid, smaller, other)
    base, other = (source, target) if config.grid == "source" else (target, source)
    if base.grid is None:
        raise ConfigError(f"{base.path}: a vector layer has no grid; choose the other side's with --grid")
    if base.raster is not None and base.raster.by_points:
        log.info("%s: placed by ground control points, warped onto %s", base.path, base.grid.describe())
    return _common(base.grid.unmirrored, base, other)


def _pixel_grid(layers: tuple[Layer, Layer]) -> Grid:
    """The grid of two rasters without CRS and of one size, whose pixels lie on each other.

    Raises:
        GridMismatchError: They are not such rasters.
    """
    source, target = (layer.grid for layer in layers)
    for layer, grid in zip(layers, (source, target), strict=True):
        if grid is None or grid.crs is not None:
            raise GridMismatchError(
                f"{layer.path}: has a CRS; --pixel-grid is for two rasters without one, leave it out"
            )
    assert source is not None and target is not None
    if (source.height, source.width) != (target.height, target.width):
        raise GridMismatchError(
            f"{layers[0].path} has {source.height} rows and {source.width} columns, {layers[1].path} {target.height} "
            f"and {target.width}; --pixel-grid needs two rasters of one size"
        )
    log.info("%s and %s have no CRS and are paired pixel by pixel", layers[0].path, layers[1].path)
    return target


def _check_crs(layers: tuple[Layer, Layer]) -> None:
    """Refuse a raster without CRS, or with one that says nothing of the earth: training needs the size of a pixel."""
    for layer in layers:
        try:
            _ = layer.grid.pixel_size if layer.grid is not None else None
        except RasterError as error:
            raise RasterError(f"{layer.path}: {error}") from error
    for layer in layers:
        if layer.raster is not None and layer.raster.by_polynomials:
            raise RasterError(f"{layer.path}: {BY_POLYNOMIALS}")
    bare = [layer for layer in layers if layer.grid is not None and layer.grid.crs is None]
    if not bare:
        return
    sizes = {(layer.grid.height, layer.grid.width) for layer in bare if layer.grid is not None}
    way_out = ", or pair the two pixel by pixel with --pixel-grid" if len(bare) == 2 and len(sizes) == 1 else ""
    raise RasterError(
        f"{bare[0].path}: has no CRS, so its place on the ground is unknown; assign one (gdal_edit -a_srs){way_out}"
    )


def _check_features(layers: tuple[Layer, Layer]) -> None:
    """Tell of vector layers without features, which may be a mistake.

    Raises:
        NoGroundError: No layer says where the scene lies.
    """
    empty = [layer for layer in layers if layer.vector is not None and layer.vector.is_empty]
    if len(empty) == len(layers):
        raise NoGroundError(f"neither {layers[0].path} nor {layers[1].path} has features with a geometry")
    for layer in empty:
        log.warning("%s: has no features with a geometry, so all of its ground is background", layer.path)


def _parse_grid(text: str) -> tuple[CRS | None, float]:
    if text in SIDES:
        return None, 0.0
    match = re.fullmatch(r"(.+)@(\d+(?:\.\d+)?(?:e-?\d+)?)", text)
    try:
        if match is None or float(match[2]) <= 0:
            raise ConfigError(f"grid is '{text}', expected source, target or EPSG:CODE@RESOLUTION")
        with gdal_env():  # in which PROJ says nothing of its own
            return CRS.from_user_input(match[1]), float(match[2])
    except CRSError as error:
        raise ConfigError(f"grid '{text}' names an unknown CRS") from error


def _check_resolution(grid: Grid, bounds: Bounds, layers: tuple[Layer, Layer], config: TileConfig) -> None:
    """Refuse pixels that nobody means, as of metres in a CRS of degrees, before they fill the memory.

    Raises:
        ConfigError: They are far finer than those of both layers, too many to be told apart, or larger than the ground.
    """
    assert grid.crs is not None
    advice = f"; give the resolution in {grid.crs.units_factor[0]}, the unit of {grid.crs.to_string()}"
    ground = max(bounds[2] - bounds[0], bounds[3] - bounds[1])
    if 0 < ground < grid.transform.a:
        raise ConfigError(f"grid is '{config.grid}', pixels larger than the ground, {ground:.3g} wide or high{advice}")
    if (grid.height / config.step) * (grid.width / config.step) > MOST_WINDOWS:
        found = f"{grid.width:.3g} x {grid.height:.3g} pixels, more than {MOST_WINDOWS:.0e} windows"
        raise ConfigError(f"grid is '{config.grid}', {found}{advice}")
    sizes = [(layer.grid.pixel_size, layer.path) for layer in layers if layer.grid is not None]
    own = [(min(size), path) for size, path in sizes if size is not None]
    if own and grid.pixel_size is not None and max(grid.pixel_size) * FAR_FINER < min(own)[0]:
        finest, path = min(own)
        times = finest / max(grid.pixel_size)
        raise ConfigError(f"grid is '{config.grid}', pixels {times:.3g} times finer than those of {path}{advice}")


def _common(grid: Grid, base: Layer, other: Layer) -> Grid:
    """The part of the grid of `base` that `other` may cover; all of it for a vector layer, which ends nowhere.

    Positions of the grid are looked up in the other layer's CRS, since a layer that spans the world has no bounds
    in most projections. A layer smaller than the steps between these positions is projected itself.
    """
    if grid.crs != other.crs:
        at_rows, at_cols = grid.spread()
        xs, ys = positions_in(grid.crs, other.crs, *(grid.transform @ (at_cols, at_rows)))
        left, bottom, right, top = other.bounds
        inside = (np.array(xs) >= left) & (np.array(xs) <= right) & (np.array(ys) >= bottom) & (np.array(ys) <= top)
        if inside.any():
            if other.vector is not None:
                return grid
            down, along = grid.height / (LOOKUPS - 1), grid.width / (LOOKUPS - 1)
            found_rows, found_cols = at_rows[inside], at_cols[inside]
            return _clipped(
                grid,
                (float(found_rows.min() - down), float(found_rows.max() + down)),
                (float(found_cols.min() - along), float(found_cols.max() + along)),
            )
    left, bottom, right, top = bounds = other.bounds_in(grid.crs)
    ours = grid.bounds
    shared = min(min(ours[2], right) - max(ours[0], left), min(ours[3], top) - max(ours[1], bottom))
    if shared < 0 or (shared == 0 and other.vector is None):  # a straight line has no height
        name = grid.crs.to_string() if grid.crs else "pixels"
        raise NoGroundError(
            f"no common ground in {name}: {base.path} covers {_extent(ours)}, {other.path} covers {_extent(bounds)}; "
            "check the CRS of both"
        )
    if other.vector is not None:
        return grid
    corners = [~grid.transform @ corner for corner in ((left, top), (right, top), (right, bottom), (left, bottom))]
    across, down_to = zip(*corners, strict=True)
    return _clipped(grid, (min(down_to), max(down_to)), (min(across), max(across)))


def _clipped(grid: Grid, rows: tuple[float, float], cols: tuple[float, float]) -> Grid:
    """The whole pixels of a grid that lie in, or partly in, rows and columns given as (first, end)."""
    top, bottom = max(0, math.floor(rows[0] + 1e-3)), min(grid.height, math.ceil(rows[1] - 1e-3))
    left, right = max(0, math.floor(cols[0] + 1e-3)), min(grid.width, math.ceil(cols[1] - 1e-3))
    return grid.window(Window(left, top, right - left, bottom - top))


def _area(bounds: tuple[float, float, float, float]) -> float:
    return (bounds[2] - bounds[0]) * (bounds[3] - bounds[1])


def _extent(bounds: tuple[float, float, float, float]) -> str:
    return f"x {bounds[0]:.10g} to {bounds[2]:.10g}, y {bounds[1]:.10g} to {bounds[3]:.10g}"


def tell_of_same_target(scene: Scene, earlier: ChipSet) -> None:
    """Warn of a target that a chip set has already, with another source: its ground gets two labels."""
    for known in earlier.scenes:
        if scene.fingerprint["target"] == known.fingerprint["target"]:
            log.warning(
                "scene '%s': its target is that of scene '%s', whose source is another (%s): the same ground is cut "
                "twice; if this source replaces that one, tile again with --overwrite",
                scene.id, known.id, known.source,
            )  # fmt: skip


def check_pixels(scene: Scene, earlier: ChipSet) -> None:
    """Tell of a scene whose pixels have another size than those of the first one."""
    first = earlier.scenes[0]
    if not has_size(scene.pixel_size, pixel_range([first.pixel_size])):
        log.warning(
            "%s: has pixels of %s, the first scene (%s) of %s, and the network takes them for one size; unless that is "
            "meant, tile all scenes into another chip set with one --grid EPSG:CODE@RESOLUTION",
            scene.id, in_metres(scene.pixel_size), first.id, in_metres(first.pixel_size),
        )  # fmt: skip


def lattice_axis(side: int, config: TileConfig) -> range:
    """Offsets of the windows along an axis of so many pixels."""
    return range(0, max(1, side - config.size + config.step), config.step)
