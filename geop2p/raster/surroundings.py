"""Features carried into the CRS of a grid, where they cover the ground that they cover in their own."""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from rasterio.crs import CRS

from geop2p.raster.grid import LOOKUPS, Grid, positions_in

if TYPE_CHECKING:  # a quarter of a second that only vector layers need
    import geopandas
    from pyproj import Transformer

Box = tuple[float, float, float, float]
Carry = Callable[[np.ndarray, np.ndarray], Any]  # x and y in one CRS to x and y in another

AROUND = 0.1  # of the grid's extent beyond its edges that is kept
OFF = 0.01  # pixels that an edge may lie off: polygons that share one must not share chips
MOST_PIECES = 4096  # of an edge as long as the grid
HAIR = 1e-9  # of a turn, which rounding may give
JUMP = 1.0  # pixels between two ways to the same place from which on one of them has jumped


@dataclass(frozen=True)
class Surroundings:
    """The ground of a grid and some around it, in the CRS of features.

    Attributes:
        box: Its bounds; longitudes of one stretch, which may go on beyond 180.
        edge: The longest edge that stays straight on the grid.
        turn: All longitudes around the earth in units of the CRS; 0 if it has none.
        over: From longitudes of the stretch to the grid's CRS, on beyond the meridian where that is cut, which its
            positions would jump at; None where it is not cut here.
    """

    box: Box
    edge: float
    turn: float
    over: "Transformer | None"

    @property
    def boxes(self) -> list[Box]:
        """The ground as features may write it: a turn away, too."""
        left, bottom, right, top = self.box
        return [(left + far, bottom, right + far, top) for far in sorted({-self.turn, 0.0, self.turn})]


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
        shapes = features.geometry.to_numpy()
        turned = turned_to(grid, shapes)
        return features if turned is shapes else features.set_geometry(turned, crs=features.crs)
    found = _surroundings(grid, own)
    if found is None:
        return features.to_crs(grid.crs)
    shapes = features.geometry.to_numpy().copy()
    left, bottom, right, top = shapely.bounds(shapes).T
    near, inside = np.zeros((2, len(shapes)), bool)
    for box in found.boxes:
        near |= (left <= box[2]) & (right >= box[0]) & (bottom <= box[3]) & (top >= box[1])
        inside |= (left >= box[0]) & (right <= box[2]) & (bottom >= box[1]) & (top <= box[3])
    leaving, long = near & ~inside, near & (np.hypot(right - left, top - bottom) > found.edge)
    if found.over is None:
        around = shapely.union_all([shapely.box(*box) for box in found.boxes])
        shapes[leaving] = shapely.intersection(shapely.make_valid(shapes[leaving]), around)
    else:
        shapes[near] = _in_one_stretch(shapes[near], found)
    shapes[long] = shapely.segmentize(shapes[long], found.edge)
    here = features[near].set_geometry(shapes[near], crs=features.crs)
    here = here[~here.geometry.is_empty]
    if found.over is None:
        there = here.to_crs(grid.crs)
        return there.set_geometry(turned_to(grid, there.geometry.to_numpy()), crs=there.crs)
    return here.set_geometry(_carried_over(here.geometry.to_numpy(), found.over), crs=grid.crs)


def turned_to(grid: Grid, shapes: np.ndarray) -> np.ndarray:
    """Shapes in the CRS of a grid, of longitudes a turn further or less where they lie on it so.

    The same ground may be written from -180 to 180 or from 0 to 360 degrees.
    """
    assert grid.crs is not None
    if not grid.crs.is_geographic:
        return shapes
    turn, (left, bottom, right, top) = 2 * math.pi / grid.crs.units_factor[1], grid.bounds
    bounds, hair = np.asarray(shapely.bounds(shapes)).T, HAIR * turn
    west, south, east, north = np.where(np.isfinite(bounds).all(axis=0), bounds, np.nan)
    level = (south <= top) & (north >= bottom)
    elsewhere = np.zeros(len(shapes), bool)
    for far in (turn, -turn):  # shapes that end where the grid begins do not lie on it
        elsewhere |= level & (west + far < right - hair) & (east + far > left + hair)
    if not elsewhere.any():
        return shapes
    middle = (left + right) / 2
    one_turn = Surroundings((middle - turn / 2, -turn, middle + turn / 2, turn), 0.0, turn, None)
    turned = shapes.copy()
    turned[elsewhere] = _in_one_stretch(shapes[elsewhere], one_turn)
    return turned


def beyond_the_cut(grid: Grid, features: "geopandas.GeoDataFrame") -> "geopandas.GeoSeries | None":
    """The shapes of features, whole, in the CRS of a grid that lies near the meridian where this is cut.

    Args:
        grid: Has a CRS.
        features: In a CRS.

    Returns:
        Positions that go on beyond the cut; None where none is near, and any other way leads there.
    """
    own = CRS.from_user_input(features.crs)
    found = None if own == grid.crs else _surroundings(grid, own)
    if found is None or found.over is None:
        return None
    middle, half = (found.box[0] + found.box[2]) / 2, found.turn / 2
    whole = dataclasses.replace(found, box=(middle - half, -half, middle + half, half))
    shapes = _in_one_stretch(features.geometry.to_numpy(), whole)
    return features.set_geometry(_carried_over(shapes, found.over), crs=grid.crs).geometry


def _carried_over(shapes: np.ndarray, over: "Transformer") -> np.ndarray:
    return np.asarray(shapely.transform(shapes, lambda places: np.column_stack(over.transform(*places.T))))


def _in_one_stretch(shapes: np.ndarray, around: Surroundings) -> np.ndarray:
    """What lies in the box of surroundings, whichever turn its longitudes are written in."""
    shapes, pieces = shapely.make_valid(shapes), []
    for box in around.boxes:
        cut = np.asarray(shapely.intersection(shapes, shapely.box(*box)))
        cut[shapely.get_dimensions(cut) < shapely.get_dimensions(shapes)] = None  # polygons that touch it alone
        back = np.array([around.box[0] - box[0], 0.0])
        pieces.append(shapely.transform(cut, functools.partial(np.add, back)))
    return np.asarray(shapely.union_all(np.stack(pieces), axis=0))


def _surroundings(grid: Grid, crs: CRS) -> Surroundings | None:
    """Bounds of the ground of a grid and some around it in another CRS, and the longest edge that stays straight.

    Positions all over the grid are looked up, as its outline says little where it goes round a pole or the world.
    None where the CRS has no place for any.
    """
    rows, cols = grid.spread()
    places = np.array(grid.transform @ (cols, rows))
    xs, ys = _carried(grid.crs, crs, *places)
    known = np.isfinite(xs) & np.isfinite(ys)
    if not known.any():
        return None
    xs, ys, places = xs[known], ys[known], places[:, known]
    turn = 2 * math.pi / crs.units_factor[1] if crs.is_geographic else 0.0
    xs = in_one_stretch(xs, turn) if turn else xs
    left, bottom, right, top = xs.min(), ys.min(), xs.max(), ys.max()
    margin = AROUND * max(right - left, top - bottom)
    box = (left - margin, bottom - margin, right + margin, top + margin)
    if turn and (way := _over(grid, crs, turn, box, (xs, ys), places)) is not None:
        box, over = way
        return Surroundings(box, _straight(grid, over.transform, box), turn, over)
    return Surroundings(box, _straight(grid, functools.partial(_carried, crs, grid.crs), box), turn, None)


def _over(
    grid: Grid, crs: CRS, turn: float, box: Box, lonlat: tuple[np.ndarray, np.ndarray], places: np.ndarray
) -> "tuple[Box, Transformer] | None":
    """A way from longitudes to a projected grid that goes on beyond the meridian where the projection is cut.

    Args:
        grid: Where it leads.
        crs: A geographic one.
        turn: All of its longitudes.
        box: Bounds in it around the grid.
        lonlat: Positions all over the grid in it.
        places: The same in the CRS of the grid.

    Returns:
        The bounds, within one turn and written as the way needs them, and the way; None where the plain way does not
        jump, or where this one does not lead to the grid.
    """
    from pyproj import Transformer

    assert grid.crs is not None
    if not grid.crs.is_projected:
        return None
    over = Transformer.from_crs(crs.to_wkt(), grid.crs.to_wkt(), always_xy=True, force_over=True)
    left, bottom, right, top = box
    middle = (left + right) / 2
    left, right = max(left, middle - turn / 2), min(right, middle + turn / 2)
    for far in (0.0, -turn, turn):
        if _apart(grid, np.array(over.transform(lonlat[0] + far, lonlat[1])), places) > JUMP:
            continue
        x, y = (side.ravel() for side in _lattice((box[0] + far, bottom, box[2] + far, top)))
        if _apart(grid, np.array(over.transform(x, y)), np.array(_carried(crs, grid.crs, x, y))) <= JUMP:
            return None
        return (left + far, bottom, right + far, top), over
    return None


def _apart(grid: Grid, here: np.ndarray, there: np.ndarray) -> float:
    """The largest distance in pixels of a grid between positions that both have a place."""
    known = np.isfinite(here).all(axis=0) & np.isfinite(there).all(axis=0)
    one, other = (np.array(~grid.transform @ tuple(places[:, known])) for places in (here, there))
    return float(np.abs(one - other).max(initial=0.0))


def _lattice(box: Box) -> tuple[np.ndarray, ...]:
    """Positions x and y all over a box, (`LOOKUPS`, `LOOKUPS`) each."""
    left, bottom, right, top = box
    return np.meshgrid(np.linspace(left, right, LOOKUPS), np.linspace(bottom, top, LOOKUPS))


def in_one_stretch(longitudes: np.ndarray, turn: float) -> np.ndarray:
    """Longitudes of one stretch that the dateline may cut, those beyond it a turn further.

    They stay as they are where no gap of half a turn is between them.
    """
    ordered = np.sort(longitudes)
    gaps = np.diff(ordered)
    if not len(gaps) or gaps.max() <= turn / 2:
        return longitudes
    return np.where(longitudes <= ordered[gaps.argmax()], longitudes + turn, longitudes)


def _straight(grid: Grid, carry: Carry, box: Box) -> float:
    """The length of edges in another CRS that bend by no more than `OFF` pixels of a grid, anywhere in a box.

    The bend of an edge grows with the square of its length.
    """
    left, bottom, right, top = box
    x, y = _lattice(box)
    there = np.array(carry(x.ravel(), y.ravel()))
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
