"""Where the pixels of an open raster lie: by its transform, or by ground control points."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import GCPTransformer
from rasterio.warp import calculate_default_transform
from rasterio.windows import Window

from geop2p.errors import RasterError
from geop2p.raster.grid import Grid, local_crs, unwrapped

PIXELS = Affine(1, 0, 0, 0, -1, 0)  # columns to the right, rows down: as GIS programs show a raster without CRS
BY_POLYNOMIALS = (  # what to do with a raster of which it is true
    "only rational polynomials (RPC) place it, and they need heights; warp it first: gdalwarp -rpc -to "
    "RPC_DEM=heights.tif -t_srs EPSG:CODE"
)
LARGEST_RESIDUAL = 0.5  # pixels by which GDAL's polynomial may miss a control point


@dataclass(frozen=True)
class ControlPoints:
    """The ground control points of a raster without transform.

    Attributes:
        crs: Of their coordinates.
        points: Row, column and coordinates of each.
    """

    crs: CRS
    points: tuple[GroundControlPoint, ...]

    @cached_property
    def is_spline(self) -> bool:
        """Whether a polynomial misses a point by more than half a pixel, so that a thin plate spline is needed."""
        polynomial = GCPTransformer(self.points, tps=False)
        xs, ys = ([getattr(point, axis) for point in self.points] for axis in "xy")
        rows, cols = polynomial.rowcol(xs, ys, op=lambda value: value)
        there = [(point.row, point.col) for point in self.points]
        return float(np.hypot(*(np.array([rows, cols]) - np.array(there).T)).max()) > LARGEST_RESIDUAL

    @property
    def warp_options(self) -> dict[str, str]:
        """GDAL's name of the way from pixels to ground."""
        return {"SRC_METHOD": "GCP_TPS" if self.is_spline else "GCP_POLYNOMIAL"}

    def in_window(self, window: Window) -> list[GroundControlPoint]:
        """The points as pixels of a window count."""
        return [
            GroundControlPoint(point.row - window.row_off, point.col - window.col_off, point.x, point.y, point.z)
            for point in self.points
        ]

    def to_pixels(self, xs: list[float], ys: list[float]) -> list[tuple[float, float]]:
        """(column, row) of positions in `crs`."""
        rows, cols = GCPTransformer(self.points, tps=self.is_spline).rowcol(xs, ys, op=lambda value: value)
        return list(zip(cols, rows, strict=True))

    def grid(self, height: int, width: int) -> Grid:
        """The north-up grid over all pixels, in the CRS of the points or, if it is geographic, in local UTM."""
        xs, ys = ([getattr(point, axis) for point in self.points] for axis in "xy")
        centre = Affine.translation(math.fsum(xs) / len(xs), math.fsum(ys) / len(ys))
        crs = local_crs(Grid(self.crs, centre, 1, 1))
        transform, cols, rows = calculate_default_transform(
            self.crs, crs, width, height, gcps=list(self.points), **self.warp_options
        )
        return Grid(crs, transform, rows, cols)


def control_points(dataset: Any) -> ControlPoints | None:
    """The ground control points of an open raster if nothing else places it.

    Raises:
        RasterError: They have no CRS.
    """
    points, crs = dataset.gcps
    if not points or not dataset.transform.is_identity:
        return None
    if crs is None:
        raise RasterError(f"{dataset.name}: its ground control points have no CRS; assign one (gdal_edit -a_srs)")
    return ControlPoints(crs, tuple(points))


def is_by_polynomials(dataset: Any) -> bool:
    """Whether only rational polynomials place an open raster; a CRS without a transform is that of theirs."""
    if dataset.rpcs is None or control_points(dataset) is not None:
        return False
    return dataset.crs is None or bool(dataset.transform.is_identity)


def grid_of(dataset: Any) -> Grid:
    """Where the pixels of an open raster lie.

    A raster placed by ground control points only has the north-up grid that it is warped to; one without CRS, or placed
    by rational polynomials only, the grid of its pixels, with the transform of the file beside it.

    Raises:
        RasterError: Its coordinates are none of its CRS.
    """
    points = control_points(dataset)
    if points is not None:
        return points.grid(dataset.height, dataset.width)
    if dataset.crs is None or is_by_polynomials(dataset):
        local = None if dataset.transform.is_identity else dataset.transform
        return Grid(None, PIXELS, dataset.height, dataset.width, local)
    return unwrapped(dataset.crs, dataset.transform, dataset.height, dataset.width)
