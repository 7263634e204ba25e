"""`Grid`: where the pixels of a raster lie. Opens no files."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio._err import CPLE_BaseError, CPLE_NotSupportedError  # what GDAL says, which has no public name
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from shapely.geometry import Polygon

from geop2p.errors import RasterError

GEOCENTRIC = CRS.from_epsg(4978)
FURTHEST_EAST = 720  # degrees: longitudes may count from 0 to 360, or on across the dateline
FURTHEST_NORTH = 180  # degrees: cells may be centred on a pole, or padded beyond it
LOOKUPS = 65  # positions along a side of a grid that are looked up in another CRS
OFF_LATTICE = 0.37  # of a pixel: grids lie whole, half or quarter pixels off the origin, where rounding would waver

Bounds = tuple[float, float, float, float]  # (left, bottom, right, top)
Coordinates = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A raster without its values: CRS, affine transform, rows and columns.

    Attributes:
        crs: Coordinate reference system; None where positions are pixels only.
        transform: From (column, row) of pixel corners to coordinates of `crs`.
        height: Rows.
        width: Columns.
        local: Transform that a file without CRS has; it is kept for what is written on the grid, and compared with
            nothing.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int
    local: Affine | None = field(default=None, compare=False)

    @property
    def georeference(self) -> Affine | None:
        """The transform that a file on this grid gets; None: none."""
        return self.local if self.crs is None else self.transform

    @property
    def corners(self) -> list[tuple[float, float]]:
        """The four outer corners as (x, y), clockwise from the first pixel."""
        at = [(0, 0), (self.width, 0), (self.width, self.height), (0, self.height)]
        return [self.transform @ corner for corner in at]

    @property
    def footprint(self) -> Polygon:
        """Outline in `crs`."""
        return Polygon(self.corners)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the outline in `crs`."""
        left, bottom, right, top = self.footprint.bounds
        return left, bottom, right, top

    @property
    def pixel_on_ground(self) -> tuple[int, int]:
        """(row, col) of the first pixel on the lattice of its pixels through the origin of the CRS.

        Grids that are cut from one another count alike.
        """
        col, row = ~self.transform @ (0, 0)
        return -math.floor(row + OFF_LATTICE), -math.floor(col + OFF_LATTICE)

    @property
    def unmirrored(self) -> "Grid":
        """The same pixels with the rows in the other order where this one shows the ground like a mirror.

        Rows from south to north become rows from north to south.
        """
        if self.crs is None or self.transform.determinant < 0:
            return self
        return self._mapped(Affine(1, 0, 0, 0, -1, self.height), self.height, self.width)

    def window(self, window: Window) -> "Grid":
        """The grid of a window of this one; the window may lie outside."""
        shift = Affine.translation(window.col_off, window.row_off)
        return self._mapped(shift, int(window.height), int(window.width))

    def resized(self, height: int, width: int) -> "Grid":
        """The grid of so many rows and columns on the same ground."""
        return self._mapped(Affine.scale(self.width / width, self.height / height), height, width)

    def _mapped(self, pixels: Affine, height: int, width: int) -> "Grid":
        """The grid whose pixels have their places among those of this one by a transform."""
        local = None if self.local is None else self.local @ pixels
        return Grid(self.crs, self.transform @ pixels, height, width, local)

    def offset_in(self, other: "Grid", tolerance: float = 1e-3) -> tuple[int, int] | None:
        """(row, column) of this grid's first pixel in `other`, or None unless pixels coincide.

        Args:
            other: Grid to look into.
            tolerance: Largest departure in pixels, anywhere on this grid, that counts as coinciding.
        """
        if self.crs != other.crs:
            return None
        to_other = ~other.transform @ self.transform
        col, row = round(to_other.c), round(to_other.f)
        for corner in ((0, 0), (self.width, 0), (0, self.height), (self.width, self.height)):
            there = to_other @ corner
            if max(abs(there[0] - corner[0] - col), abs(there[1] - corner[1] - row)) > tolerance:
                return None
        return row, col

    def bounds_in(self, crs: CRS | None) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the outline in another CRS, curved edges included."""
        if crs is None or self.crs is None or crs == self.crs:
            return self.bounds
        try:
            bounds = transform_bounds(self.crs, crs, *self.bounds, densify_pts=51)
        except CPLE_BaseError:
            bounds = (math.nan,) * 4
        if not np.isfinite(bounds).all():  # some of the ground has no place there
            at_rows, at_cols = self.spread()
            xs, ys = np.array(positions_in(self.crs, crs, *(self.transform @ (at_cols, at_rows))))
            known = np.isfinite(xs) & np.isfinite(ys)
            if not known.any():
                raise RasterError(f"{self.describe()} has no place in {crs.to_string()}")
            bounds = (xs[known].min(), ys[known].min(), xs[known].max(), ys[known].max())
        left, bottom, right, top = (float(bound) for bound in bounds)
        return left, bottom, right, top

    def spread(self) -> tuple[Any, Any]:
        """Rows and columns of `LOOKUPS` positions along each axis, its outline included, one after the other."""
        rows, cols = (np.linspace(0, length, LOOKUPS) for length in (self.height, self.width))
        at_cols, at_rows = (axis.ravel() for axis in np.meshgrid(cols, rows))
        return at_rows, at_cols

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """(down a row, along a column) in metres on the ground at the centre; None without a CRS."""
        if self.crs is None:
            return None
        centre = (self.width / 2, self.height / 2)
        places = (centre, (centre[0], centre[1] + 1), (centre[0] + 1, centre[1]))
        here, below, beside = _geocentric(self.crs, *(self.transform @ place for place in places))
        return math.dist(here, below), math.dist(here, beside)

    def describe(self) -> str:
        """One line for messages: size, CRS and bounds."""
        name = self.crs.to_string() if self.crs else "no CRS"
        left, bottom, right, top = self.bounds
        return f"{self.width}x{self.height} {name} x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        crs = None if self.crs is None else self.crs.to_wkt()
        return {"crs": crs, "transform": list(self.transform)[:6], "height": self.height, "width": self.width}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Grid":
        """Read `to_dict`'s form."""
        crs = None if data["crs"] is None else CRS.from_user_input(data["crs"])
        return cls(crs, Affine(*data["transform"]), data["height"], data["width"])


def positions_in(here: CRS, there: CRS, xs: Coordinates, ys: Coordinates) -> tuple[Coordinates, Coordinates]:
    """Positions x and y of one CRS in another; infinite where the other has no place for them."""
    try:
        found: tuple[Coordinates, Coordinates] = transform_points(here, there, xs, ys)
    except CPLE_BaseError:  # some have none, of which GDAL makes an error for all
        from pyproj import Transformer  # whose PROJ is a second one, so that it is loaded where it is needed

        xs, ys = Transformer.from_crs(here.to_wkt(), there.to_wkt(), always_xy=True).transform(xs, ys)
        return xs, ys
    return found


@functools.lru_cache(maxsize=64)  # finding the way there takes PROJ up to 0.2 s
def _geocentric(crs: CRS, *places: tuple[float, float]) -> tuple[tuple[float, float, float], ...]:
    """(x, y, z) in metres from the centre of the earth, on the ellipsoid of WGS 84; heights of the CRS do not count."""
    lost = f"the grid's centre has no position on the earth in {crs.to_string()}"
    try:
        degrees = transform_points(crs, CRS.from_epsg(4326), *zip(*places, strict=True))
        axes = transform_points(CRS.from_epsg(4979), GEOCENTRIC, *degrees, zs=[0.0] * len(places))
    except CPLE_NotSupportedError as error:
        raise RasterError(
            f"the CRS {crs.to_string()} has no relation to the earth; assign a real one (gdal_edit -a_srs)"
        ) from error
    except CPLE_BaseError as error:
        raise RasterError(lost) from error
    if not np.isfinite(axes).all():
        raise RasterError(lost)
    return tuple(zip(*axes, strict=True))


def footprints(grid: Grid, places: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.object_]:
    """Outlines of square windows of a grid, in its CRS.

    Args:
        grid: Whose windows.
        places: row_off and col_off of each (windows, 2).
        size: Their side in pixels.
    """
    corners = np.array([(0, 0), (0, size), (size, size), (size, 0)])
    rows, cols = (places[:, None, :] + corners).transpose(2, 0, 1)
    xs, ys = grid.transform @ (cols, rows)
    return np.asarray(shapely.polygons(np.stack([xs, ys], axis=-1)))


def covering(bounds: tuple[float, float, float, float], crs: CRS | None, resolution: float) -> Grid:
    """The north-up grid that covers bounds, its corner on a multiple of the resolution.

    Args:
        bounds: (left, bottom, right, top) in `crs`.
        crs: CRS of bounds and grid.
        resolution: Pixel side in units of `crs`.
    """
    left = math.floor(bounds[0] / resolution + 1e-6) * resolution
    top = math.ceil(bounds[3] / resolution - 1e-6) * resolution
    width = max(1, math.ceil((bounds[2] - left) / resolution - 1e-6))
    height = max(1, math.ceil((top - bounds[1]) / resolution - 1e-6))
    return Grid(crs, Affine(resolution, 0, left, 0, -resolution, top), height, width)


def no_degrees(crs: CRS, bounds: tuple[float, float, float, float]) -> str | None:
    """What is wrong with (left, bottom, right, top) in a geographic CRS, for a message; None if nothing is."""
    degrees = math.degrees(crs.units_factor[1])  # in one of its units
    left, bottom, right, top = bounds
    if degrees * max(abs(left), abs(right)) <= FURTHEST_EAST and degrees * max(abs(bottom), abs(top)) <= FURTHEST_NORTH:
        return None
    return (
        f"lies at x {left:.9g} to {right:.9g}, y {bottom:.9g} to {top:.9g}, which are no longitudes and latitudes as "
        f"its CRS {_name(crs)} has them"
    )


def unwrapped(crs: CRS | None, transform: Affine, height: int, width: int) -> Grid:
    """The grid of a raster, its longitudes understood as they are written where they leave -180 to 180.

    A geographic raster that crosses the dateline, or counts from 0 to 360, gets a CRS whose longitudes are centred
    on the raster (PROJ's lon_wrap), so that positions beyond 180 are found.

    Raises:
        RasterError: The CRS is geographic and the coordinates are none on the earth.
    """
    grid = Grid(crs, transform, height, width)
    if crs is None or not crs.is_geographic:
        return grid
    left, _, right, _ = grid.bounds
    if (wrong := no_degrees(crs, grid.bounds)) is not None:
        raise RasterError(f"{wrong}; assign the right one (gdal_edit -a_srs), or georeference it")
    if left >= -180 - 1e-6 and right <= 180 + 1e-6:
        return grid
    wrapped = CRS.from_string(f"{crs.to_proj4()} +lon_wrap={(left + right) / 2:.9g} +type=crs")
    return Grid(wrapped, transform, height, width)


def _name(crs: CRS) -> str:
    """What a CRS is called in a line."""
    code = crs.to_authority()
    return ":".join(code) if code else crs.to_dict(projjson=True).get("name", "of its own")


def local_crs(grid: Grid) -> CRS:
    """The grid's own CRS where it is projected, else the UTM zone (or polar CRS) of its centre."""
    if grid.crs is None:
        raise RasterError("a raster without CRS has no place on the ground: assign one (gdal_edit -a_srs)")
    if grid.crs.is_projected:
        return grid.crs
    centre = grid.transform @ (grid.width / 2, grid.height / 2)
    (longitude,), (latitude,) = transform_points(grid.crs, CRS.from_epsg(4326), [centre[0]], [centre[1]])
    if abs(latitude) > 84:
        return CRS.from_epsg(5041 if latitude > 0 else 5042)
    zone = int((longitude + 180) // 6) % 60 + 1
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + zone)
