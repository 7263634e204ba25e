"""How far an area of interest reaches beyond what is translated."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from rasterio.windows import Window

from geop2p.raster.features import read_polygons
from geop2p.raster.grid import Grid
from geop2p.raster.surroundings import beyond_the_cut, turned_to
from geop2p.raster.vectors import in_crs

if TYPE_CHECKING:  # a quarter of a second that only vector layers need
    import geopandas


def grown(grid: Grid, aoi: Path, step: int) -> Grid:
    """A grid with the further pixels that polygons need which lie on it in part.

    Args:
        grid: North-up.
        aoi: Layer of polygons in any CRS.
        step: Rows above and columns before are added in multiples of it, so that tiles stay where they are.
    """
    shapes = _polygons(grid, aoi)
    if shapes is None or not shapes.intersects(grid.footprint).any():  # it may be meant for another layer
        return grid
    left, bottom, right, top = shapes.total_bounds
    (first_col, first_row), (last_col, last_row) = ~grid.transform @ (left, top), ~grid.transform @ (right, bottom)
    above, before = (step * math.ceil(max(0, -first) / step) for first in (first_row, first_col))
    height, width = max(grid.height, math.ceil(last_row)), max(grid.width, math.ceil(last_col))
    return grid.window(Window(-before, -above, before + width, above + height))


def outside_share(grid: Grid, aoi: Path) -> float:
    """Share of the area of polygons, in the CRS of a grid, outside the grid; 0 where they have no place in that CRS."""
    shapes = _polygons(grid, aoi)
    if shapes is None:
        return 0.0
    polygons = shapes.to_numpy()
    whole, inside = (shapely.area(part).sum() for part in (polygons, shapely.intersection(polygons, grid.footprint)))
    return 1 - float(inside / whole) if whole else 0.0


def _polygons(grid: Grid, aoi: Path) -> "geopandas.GeoSeries | None":
    """Polygons in the CRS of a grid; None without one, or where they have no place in it."""
    if grid.crs is None:
        return None
    polygons = read_polygons(aoi)
    shapes = beyond_the_cut(grid, polygons)
    if shapes is None:
        carried = in_crs(polygons, grid.crs).to_numpy()
        shapes = polygons.set_geometry(turned_to(grid, carried), crs=grid.crs).geometry
    return shapes.make_valid() if np.isfinite(shapes.total_bounds).all() else None
