"""Polygons that say the split of the ground inside them."""

from typing import TYPE_CHECKING

import numpy as np
import shapely

from geop2p.config import SPLITS, TileConfig
from geop2p.errors import ChipSetError
from geop2p.raster.features import read_polygons
from geop2p.raster.grid import Grid
from geop2p.raster.surroundings import on_ground_of
from geop2p.tiling.blocks import FREE, Codes
from geop2p.tiling.table import ChipTable

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


def read_areas(config: TileConfig, grid: Grid) -> "GeoDataFrame":
    """The polygons of the area of interest that lie over a grid, in its CRS, with the column `split`.

    Raises:
        ChipSetError: The layer lacks the field, the field holds something else than splits, or no polygon lies over
            the grid.
        RasterError: The layer is missing or holds no polygons.
    """
    from geopandas import GeoDataFrame

    assert config.aoi is not None
    areas, field = read_polygons(config.aoi), config.split_field
    if field not in areas.columns:
        names = ", ".join(sorted(set(areas.columns) - {areas.geometry.name})) or "none"
        raise ChipSetError(f"{config.aoi}: has no field '{field}'; it has {names}; choose one with --split-field")
    found = areas[field].astype("string").str.strip().fillna("")
    others = sorted(set(found) - set(SPLITS))
    if others:
        shown = ", ".join(f"'{value}'" for value in others[:10])
        raise ChipSetError(f"{config.aoi}: field '{field}' holds {shown}, expected {', '.join(SPLITS)}")
    here = on_ground_of(grid, GeoDataFrame({"split": found}, geometry=areas.geometry))
    here = here[here.intersects(grid.footprint)]
    if here.empty:
        raise ChipSetError(f"{config.aoi}: no polygon lies over the scene's grid of {grid.describe()}")
    return here


def codes_on(areas: "GeoDataFrame", table: ChipTable) -> Codes:
    """The split whose polygons every chip lies on, as its place in `SPLITS`.

    Ground outside the polygons is not valid, so a chip at the outer edge of a polygon is a chip of that polygon's
    split. One that touches polygons of two splits has none.

    Args:
        areas: As `read_areas` gives them.
        table: Chips in the same CRS.
    """
    chips = table.shapes
    inner = shapely.buffer(chips, -1e-4 * np.sqrt(shapely.area(chips)), join_style="mitre")  # touching is not sharing
    touched = np.zeros((len(SPLITS), len(table)), bool)
    for code, split in enumerate(SPLITS):
        tree = shapely.STRtree(areas.loc[areas["split"] == split].geometry.to_numpy())
        touched[code, tree.query(inner, predicate="intersects")[0]] = True
    return np.where(touched.sum(axis=0) == 1, touched.argmax(axis=0), FREE).astype(np.int8)
