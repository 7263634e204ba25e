"""Features carried into the CRS of a grid, where they cover the ground that they cover in their own."""

import math
from typing import TYPE_CHECKING

import numpy as np
import shapely
from rasterio.crs import CRS

from geop2p.raster.grid import LOOKUPS, Grid, positions_in

if TYPE_CHECKING:  # a quarter of a second that only vector layers need
    import geopandas

Box = tuple[float, float, float, float]

AROUND = 0.1  # of the grid's extent beyond its edges that is kept
OFF = 0.01  # pixels that an edge may lie off: polygons that share one must not share chips
MOST_PIECES = 4096  # of an edge as long as the grid


def on_ground_of(grid: Grid, features: "geopandas.GeoDataFrame") -> "geopandas.GeoDataFrame":
    """The features that lie on the ground of a grid or around it, in its CRS.

    Far from the grid its CRS may know no positions, so what leaves the surroundings is cut there first. An edge that is
    straight in the CRS of the features bends in another, so it is carried over in pieces.

    Args:
        grid: Has a CRS.
        features: In a CRS.
    """
    own = CRS.from_user_input(features.crs)
    assert grid.crs is not None
    if own == grid.crs:
        return features
    found = _surroundings(grid, own)
    if found is None:
        return features.to_crs(grid.crs)
    boxes, edge = found
    shapes = features.geometry.to_numpy().copy()
    left, bottom, right, top = shapely.bounds(shapes).T
    near, inside = np.zeros((2, len(shapes)), bool)
    for box in boxes:
        near |= (left <= box[2]) & (right >= box[0]) & (bottom <= box[3]) & (top >= box[1])
        inside |= (left >= box[0]) & (right <= box[2]) & (bottom >= box[1]) & (top <= box[3])
    leaving, long = near & ~inside, near & (np.hypot(right - left, top - bottom) > edge)
    around = shapely.union_all([shapely.box(*box) for box in boxes])
    shapes[leaving] = shapely.intersection(shapely.make_valid(shapes[leaving]), around)
    shapes[long] = shapely.segmentize(shapes[long], edge)
    here = features[near].set_geometry(shapes[near], crs=features.crs)
    return here[~here.geometry.is_empty].to_crs(grid.crs)


def _surroundings(grid: Grid, crs: CRS) -> tuple[list[Box], float] | None:
    """Bounds of the ground of a grid and some around it in another CRS, and the longest edge that stays straight.

    Positions all over the grid are looked up, as its outline says little where it goes round a pole or the world.
    None where the CRS has no place for any.
    """
    rows, cols = grid.spread()
    xs, ys = _carried(grid.crs, crs, *(grid.transform @ (cols, rows)))
    known = np.isfinite(xs) & np.isfinite(ys)
    if not known.any():
        return None
    xs, ys = xs[known], ys[known]
    turn = 2 * math.pi / crs.units_factor[1] if crs.is_geographic else 0.0
    xs = _together(xs, turn) if turn else xs
    left, bottom, right, top = xs.min(), ys.min(), xs.max(), ys.max()
    margin = AROUND * max(right - left, top - bottom)
    left, bottom, right, top = box = (left - margin, bottom - margin, right + margin, top + margin)
    turns = {-turn, 0.0, turn}  # longitudes may be written a turn away
    return [(left + far, bottom, right + far, top) for far in turns], _straight(grid, crs, box)


def _together(longitudes: np.ndarray, turn: float) -> np.ndarray:
    """Longitudes of one stretch that the dateline may cut, those beyond it a turn further."""
    ordered = np.sort(longitudes)
    gaps = np.diff(ordered)
    if not len(gaps) or gaps.max() <= turn / 2:
        return longitudes
    return np.where(longitudes <= ordered[gaps.argmax()], longitudes + turn, longitudes)


def _straight(grid: Grid, crs: CRS, box: Box) -> float:
    """The length of edges in a CRS that bend by no more than `OFF` pixels of a grid, anywhere in a box.

    The bend of an edge grows with the square of its length.
    """
    left, bottom, right, top = box
    assert grid.crs is not None
    x, y = np.meshgrid(np.linspace(left, right, LOOKUPS), np.linspace(bottom, top, LOOKUPS))
    there = np.array(_carried(crs, grid.crs, x.ravel(), y.ravel()))
    there[:, ~np.isfinite(there).all(axis=0)] = np.nan
    places = np.array(~grid.transform @ tuple(there)).reshape(2, LOOKUPS, LOOKUPS)
    longest = max(right - left, top - bottom)
    shortest = longest / MOST_PIECES
    middle, edge = places[:, 1:-1, 1:-1], longest
    for down, along in ((0, 1), (1, 0), (1, 1), (1, -1)):
        before, after = (np.roll(places, (sign * down, sign * along), (1, 2))[:, 1:-1, 1:-1] for sign in (1, -1))
        bends = np.hypot(*(middle - (before + after) / 2))
        length = 2 * math.hypot(down * (top - bottom), along * (right - left)) / (LOOKUPS - 1)
        bend = np.max(bends, where=np.isfinite(bends), initial=1e-9)
        edge = min(edge, length * math.sqrt(OFF / bend))
    return max(edge, shortest)


def _carried(here: CRS | None, there: CRS, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert here is not None
    found = positions_in(here, there, xs, ys)
    return np.array(found[0]), np.array(found[1])
