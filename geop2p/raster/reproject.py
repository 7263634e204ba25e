"""Resampling of arrays: where GDAL's own warp would not do.

For values that must be converted before, for rasters placed by control points, and for those whose valid ground GDAL
would not know (`validity.is_told_once`). All others go through `rasterio.vrt.WarpedVRT`, which ignores control points
where its grid is given (rasterio 1.4).
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject
from rasterio.windows import Window

from geop2p.config import Backscatter
from geop2p.raster.backscatter import from_power, to_power
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid, positions_in
from geop2p.raster.placement import ControlPoints

WARP_TOLERANCE = 0.001  # pixels that GDAL may misplace a position by to save time (its default is 0.125)
# columns within which GDAL may interpolate positions where no tolerance can be given: more for splines, which take long
POLYNOMIAL_STRIP, SPLINE_STRIP = 32, 128


def warp_options(resampling: Resampling) -> dict[str, Any]:
    """Arguments of a `WarpedVRT` for exact positions and the pixels of bilinear resampling."""
    return {"tolerance": WARP_TOLERANCE} | kernel_options(resampling)


def kernel_options(resampling: Resampling) -> dict[str, Any]:
    """Arguments of GDAL's warp for the four pixels around a position, of bilinear resampling.

    Left alone GDAL widens that kernel by how much the window that it computes seems to shrink, so that neighbouring
    blocks are smoothed differently, and pixels that coincide are not copied.
    """
    return {"XSCALE": 1, "YSCALE": 1} if resampling == Resampling.bilinear else {}


@dataclass(frozen=True)
class Conversion:
    """Values in the form in which they may be resampled, and back.

    Attributes:
        nodata: What stands there for pixels that are not valid.
        forward: From values (bands, rows, cols) and valid pixels (rows, cols).
        back: To values of a numpy type and the valid pixels.
    """

    nodata: float
    forward: Callable[[Array, Mask], Array]
    back: Callable[[Array, str], tuple[Array, Mask]]


def _to_signed(codes: Array, valid: Mask) -> npt.NDArray[np.int16]:
    return np.where(valid, codes.astype(np.int16), np.int16(-1))  # in 8 bits -1 would be the class 255


def _from_signed(codes: Array, dtype: str) -> tuple[Array, Mask]:
    found: Mask = codes[0] >= 0
    return np.where(found, codes, 0).astype(dtype), found


def _to_floats(values: Array, valid: Mask) -> Array:
    floats: Array = values.astype(values.dtype if values.dtype.kind == "f" else np.float64)  # halves stay halves
    floats[:, ~valid] = np.nan
    return floats


def _from_floats(values: Array, dtype: str) -> tuple[Array, Mask]:
    found: Mask = np.all(np.isfinite(values), axis=0)
    filled = np.where(found, values, 0)
    is_whole = np.issubdtype(np.dtype(dtype), np.integer)  # halves go up, as in GDAL
    return (np.floor(filled + 0.5) if is_whole else filled).astype(dtype), found


CODES = Conversion(-1, _to_signed, _from_signed)  # 8-bit classes
FLOATS = Conversion(math.nan, _to_floats, _from_floats)  # values as they are; exact for integers up to 52 bits
FLOAT_BYTES = 8  # of a value that is converted, at most
MARGIN = 4  # pixels of a raster that are read around those that are asked for


def through_power(stored: Backscatter, scale: Array, offset: Array) -> Conversion:
    """Backscatter as linear power, in which it may be averaged.

    Args:
        stored: How its physical values are stored.
        scale: Physical value is stored value times scale plus offset (bands, 1, 1).
        offset: See scale.
    """

    def forward(values: Array, valid: Mask) -> Array:
        power: Array = np.where(valid, to_power(np.where(valid, values, 0) * scale + offset, stored), np.nan)
        return power

    def back(power: Array, dtype: str) -> tuple[Array, Mask]:
        found: Mask = np.all(np.isfinite(power) & ((power > 0) | (stored != "dB")), axis=0)
        values = (from_power(np.where(found, power, 1), stored) - offset) / scale
        if np.dtype(dtype).kind in "iu":
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return values.astype(dtype), found

    return Conversion(math.nan, forward, back)


@dataclass(frozen=True)
class Resampler:
    """Windows of a grid from an open raster, converted, resampled and converted back.

    Attributes:
        read: Reads a window that lies inside the raster.
        bands: Bands that it gives.
        dtype: numpy name of their type.
        shape: (rows, columns) of the raster.
        own: Its grid; for one placed by control points the grid that it is warped to.
        points: Its control points if they alone place it.
        grid: Where to read.
        conversion: What happens before and after.
        resampling: How values come from one grid to the other.
    """

    read: Callable[[Window], tuple[Array, Mask]]
    bands: int
    dtype: str
    shape: tuple[int, int]
    own: Grid
    points: ControlPoints | None
    grid: Grid
    conversion: Conversion
    resampling: Resampling

    def __call__(self, window: Window) -> tuple[Array, Mask]:
        """Values (bands, rows, cols) and valid pixels (rows, cols) of a window inside the grid."""
        wanted = self.grid.window(window)
        shape = (self.bands, wanted.height, wanted.width)
        source = self._window_around(wanted)
        if source is None:
            return np.zeros(shape, self.dtype), np.zeros(shape[1:], bool)
        converted = self.conversion.forward(*self.read(source))
        warp = self._by_transform if self.points is None else self._by_points
        return self.conversion.back(warp(converted, source, wanted), self.dtype)

    def _by_transform(self, values: Array, source: Window, wanted: Grid) -> Array:
        """The values of a window of the raster on a grid, through a raster in memory.

        `rasterio.warp.reproject` would take the array itself, but no tolerance.
        """
        own, nodata = self.own.window(source), self.conversion.nodata
        held = {"width": own.width, "height": own.height, "count": self.bands, "dtype": values.dtype}
        held |= {"crs": own.crs, "transform": own.transform, "nodata": nodata}
        with MemoryFile() as file:
            with file.open(driver="GTiff", **held) as dataset:
                dataset.write(values)
            with (
                file.open() as dataset,
                WarpedVRT(
                    dataset,
                    src_crs=own.crs,  # a GeoTIFF knows nothing of its lon_wrap
                    crs=wanted.crs,
                    transform=wanted.transform,
                    width=wanted.width,
                    height=wanted.height,
                    resampling=self.resampling,
                    SAMPLE_GRID="YES",  # a grid may reach beyond what its CRS shows of the earth
                    **warp_options(self.resampling),
                ) as warped,
            ):
                read: Array = warped.read()
        return read

    def _by_points(self, values: Array, source: Window, wanted: Grid) -> Array:
        """The same by control points, in strips so narrow that positions within one lie almost on a line."""
        assert self.points is not None
        result = np.full((self.bands, wanted.height, wanted.width), self.conversion.nodata, values.dtype)
        points = self.points.in_window(source)
        columns = SPLINE_STRIP if self.points.is_spline else POLYNOMIAL_STRIP
        for left in range(0, wanted.width, columns):
            window = Window(left, 0, min(columns, wanted.width - left), wanted.height)
            strip = np.full((self.bands, window.height, window.width), self.conversion.nodata, values.dtype)
            reproject(
                values,
                strip,
                gcps=points,
                src_crs=self.points.crs,
                src_nodata=self.conversion.nodata,
                dst_transform=wanted.window(window).transform,
                dst_crs=wanted.crs,
                dst_nodata=self.conversion.nodata,
                resampling=self.resampling,
                **self.points.warp_options,
                **kernel_options(self.resampling),
            )
            result[:, :, left : left + columns] = strip
        return result

    @functools.cached_property
    def _edge(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Positions along the outline of the raster, (2, points), in its own CRS and in the grid's, which has them."""
        own = np.array(outline(self.own))
        here = np.array(positions_in(self.own.crs, self.grid.crs, *own.tolist()))
        known = np.isfinite(here).all(axis=0)
        return own[:, known], here[:, known]

    def _edge_inside(self, wanted: Grid) -> list[tuple[float, float]]:
        """Positions of the raster's outline that lie inside a grid, as those of a pole that its outline goes around."""
        own, here = self._edge
        cols, rows = ~wanted.transform @ tuple(here)
        inside = (cols > -1) & (cols < wanted.width + 1) & (rows > -1) & (rows < wanted.height + 1)
        return list(map(tuple, own[:, inside].T.tolist()))

    def _window_around(self, wanted: Grid) -> Window | None:
        """The window of the raster that covers a grid on the ground and a margin; None if they are apart."""
        there = self.own.crs if self.points is None else self.points.crs
        xs, ys = positions_in(wanted.crs, there, *outline(wanted))
        known = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
        if self.points is None:
            known += self._edge_inside(wanted)
        if not known:
            return None
        if self.points is None:
            to_pixels = ~self.own.transform
            at = [to_pixels @ position for position in known]
        else:
            at = self.points.to_pixels([x for x, _ in known], [y for _, y in known])
        reach = MARGIN + math.ceil(max(1.0, pixel_ratio(wanted, self.own)))
        cols, rows = zip(*at, strict=True)
        left, right = max(math.floor(min(cols)) - reach, 0), min(math.ceil(max(cols)) + reach, self.shape[1])
        top, bottom = max(math.floor(min(rows)) - reach, 0), min(math.ceil(max(rows)) + reach, self.shape[0])
        if left >= right or top >= bottom:
            return None
        return Window(left, top, right - left, bottom - top)


def pixel_ratio(wanted: Grid, own: Grid) -> float:
    """How many pixels of `own` one pixel of `wanted` spans at most."""
    there, here = wanted.pixel_size, own.pixel_size
    if there is None or here is None:
        return 1.0
    return max(there) / min(here)


def outline(grid: Grid) -> tuple[list[float], list[float]]:
    """Positions along the outline of a grid, as lists of x and y."""
    steps = np.linspace(0, 1, 21)
    corners = [*grid.corners, grid.corners[0]]
    xs, ys = [], []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        xs += list(x0 + steps * (x1 - x0))
        ys += list(y0 + steps * (y1 - y0))
    return xs, ys
