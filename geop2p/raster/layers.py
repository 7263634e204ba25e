"""`Layer`: one side of a pair, raster or vector, with what it holds and how to read it on a grid."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geop2p.config import Backscatter, Kind, KindChoice, Scaling, ScalingChoice
from geop2p.errors import ConfigError, RasterError
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.encoding import Array, Band, Distribution, Encoding, MapClass, Mask, class_color
from geop2p.raster.grid import Grid
from geop2p.raster.kinds import guess_backscatter, guess_kind
from geop2p.raster.reading import RasterInfo, describe_raster, read_sample
from geop2p.raster.relief import relief_reader
from geop2p.raster.statistics import BandStatistics
from geop2p.raster.vectors import VectorLayer, VectorReader, is_vector, read_vector

RECORDED_PERCENTS = (0.1, 1, 5, 25, 50, 75, 95, 99, 99.9)  # the first and the last are the encoded interval


@dataclass(frozen=True)
class Layer:
    """One side of a pair.

    Attributes:
        path: File or GDAL name.
        kind: What it holds.
        reason: Why `kind` was concluded.
        raster: For a raster: what the file says of itself.
        vector: For a vector layer: its features.
        backscatter: For kind `sar`: how it is stored.
        scaling: For kind `image`: where its encoded interval shall come from.
        relief: For kind `elevation`: radius in metres of the ground whose mean is taken off; None: heights as they are.
    """

    path: str
    kind: Kind
    reason: str
    raster: RasterInfo | None = None
    vector: VectorLayer | None = None
    backscatter: Backscatter = "dB"
    scaling: ScalingChoice = "auto"
    relief: float | None = None

    @property
    def grid(self) -> Grid | None:
        """Where its pixels lie; None for a vector layer."""
        return None if self.raster is None else self.raster.grid

    @property
    def crs(self) -> Any:
        """Its CRS."""
        return self.vector.features.crs if self.vector is not None else self._info.grid.crs

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in its own CRS."""
        return self.bounds_in(self.crs)

    @property
    def _info(self) -> RasterInfo:
        assert self.raster is not None
        return self.raster

    def bounds_in(self, crs: Any) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of its ground in a CRS."""
        if self.vector is not None:
            return self.vector.bounds_in(crs)
        return self._info.grid.bounds_in(crs)

    @contextmanager
    def reader(self, grid: Grid) -> Iterator[Reader]:
        """Windows of it on a grid."""
        if self.vector is not None:
            yield VectorReader(self.vector, grid)
        elif self.relief is not None:
            with relief_reader(self.path, grid, self.relief) as reader:
                yield reader
        else:
            with aligned_reader(self.path, grid, self.kind, self.backscatter) as reader:
                yield reader

    def draft_encoding(self) -> Encoding:
        """Its encoding as far as the file alone tells it: classes with names, imagery by the range of its type.

        Raises:
            ConfigError: Its scaling or relief does not fit what it holds.
        """
        if self.vector is not None:
            return Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=self.vector.classes)
        info = self._info
        bands, dtype, nodata = file_bands(info), info.dtype, info.nodata
        scaling = self._scaling()
        if scaling == "dtype":
            limits = np.iinfo(dtype)
            bands = tuple(dataclasses.replace(band, low=float(limits.min), high=float(limits.max)) for band in bands)
        if self.relief is not None:  # differences of heights: no offset, and no height means no data
            bands = tuple(dataclasses.replace(band, offset=0.0) for band in bands)
            dtype, nodata = "float32", None
        named = [value for value in info.categories if value != info.nodata] if self.kind == "classes" else []
        classes = tuple(self.map_class(value) for value in named)
        return Encoding(
            self.kind, dtype, bands, nodata, classes, info.color_interp, scaling, self.backscatter, self.relief
        )

    def _scaling(self) -> Scaling:
        """Where the encoded interval comes from.

        Raises:
            ConfigError: The range of the type is asked for, and the type is too wide to return exactly.
        """
        if self.kind != "image" or self.scaling == "percentiles":
            return "percentiles"
        dtype = np.dtype(self._info.dtype)
        if self.scaling == "dtype" and not (dtype.kind in "iu" and dtype.itemsize <= 2):
            raise ConfigError(
                f"{self.path}: holds {dtype}, scaling by the range of the type needs integers of 8 or 16 bits; use "
                "--image-scaling percentiles"
            )
        return "dtype" if self.scaling == "dtype" or dtype == np.uint8 else "percentiles"

    def map_class(self, value: int) -> MapClass:
        """Name and colour of a stored value, from the file or made up."""
        info = self._info
        name = info.categories.get(value, f"class {value}")
        return MapClass(value, name, info.palette.get(value, class_color(value)))


def open_layer(
    path: str | Path, kind: KindChoice = "auto", field: str | None = None, known: tuple[MapClass, ...] = ()
) -> Layer:
    """Look at one side of a pair.

    Args:
        path: Raster or vector layer.
        kind: What it holds, or auto to conclude it.
        field: For a vector layer: attribute that names the class.
        known: For a vector layer: classes whose codes are already given.

    Raises:
        RasterError: It cannot be opened, or holds nothing that can be used.
        ConfigError: `kind` does not fit it.
    """
    if is_vector(path):
        if kind not in ("auto", "classes"):
            raise ConfigError(f"{path}: a vector layer holds classes, not {kind}")
        return Layer(str(path), "classes", "a vector layer", vector=read_vector(path, field, known))
    info, backscatter = describe_raster(path), Layer.backscatter
    concluded, reason = (kind if kind != "auto" else "image"), "as asked for"
    if kind in ("auto", "sar"):
        (sample, valid), bands = read_sample(path), file_bands(info)
        if kind == "auto":
            has_palette = bool(info.palette or info.categories)
            concluded, reason = guess_kind(sample, valid, has_palette=has_palette, bands=bands)
        if concluded == "sar":
            backscatter, how = guess_backscatter(sample, valid, bands)
            reason = f"{reason}; {how}"
    if concluded == "classes" and (info.count != 1 or np.dtype(info.dtype).kind == "f"):
        raise ConfigError(f"{path}: classes need one integer band, found {info.count} of {info.dtype}")
    if info.grid.crs is None:
        raise RasterError(f"{path}: has no CRS, so its place on the ground is unknown; assign one (gdal_edit -a_srs)")
    return Layer(str(path), concluded, reason, raster=info, backscatter=backscatter)


def file_bands(info: RasterInfo) -> tuple[Band, ...]:
    """What a file says of each band."""
    columns = zip(info.names, info.units, info.scales, info.offsets, strict=True)
    return tuple(Band(name, unit, scale, offset) for name, unit, scale, offset in columns)


def complete_encoding(layer: Layer, values: Array, valid: Mask) -> Encoding:
    """The layer's encoding with what a piece of it shows: its classes, or the interval of its values.

    Args:
        layer: Where the values come from.
        values: (bands, rows, cols).
        valid: (rows, cols).
    """
    draft = layer.draft_encoding()
    if draft.is_classes:
        known = {entry.value for entry in draft.classes}
        new = [layer.map_class(int(value)) for value in np.unique(values[0][valid]) if int(value) not in known]
        return dataclasses.replace(draft, classes=(*draft.classes, *new))
    if not needs_statistics(draft):
        return draft
    statistics = [BandStatistics() for _ in draft.bands]
    add_values(statistics, draft, values, valid)
    return with_statistics(draft, statistics)


def needs_statistics(encoding: Encoding) -> bool:
    """Whether the encoded interval depends on the training values."""
    return not encoding.is_classes and encoding.scaling == "percentiles"


def add_values(statistics: list[BandStatistics], encoding: Encoding, values: Array, valid: Mask) -> None:
    """Take in the valid pixels of stored values (bands, rows, cols) on the scale of the encoded interval."""
    planes = [plane.ravel() if valid.all() else plane[valid] for plane in values]  # many times faster than [:, valid]
    inside = np.stack(planes)
    for band, plane in zip(statistics, encoding.on_scale(inside), strict=True):
        band.add(plane)


def with_statistics(encoding: Encoding, statistics: list[BandStatistics]) -> Encoding:
    """Note the training values of every band, and where the encoding needs it set the interval to their middle 99.8 %.

    Where these are one value, the interval is that of all values.
    """
    return dataclasses.replace(
        encoding,
        bands=tuple(
            _with_values(band, values, needs_statistics(encoding)) if values.count else band
            for band, values in zip(encoding.bands, statistics, strict=True)
        ),
    )


def _with_values(band: Band, values: BandStatistics, with_interval: bool) -> Band:
    percentiles = values.percentiles(RECORDED_PERCENTS)
    noted = dataclasses.replace(
        band,
        distribution=Distribution(
            values.count,
            values.minimum,
            values.maximum,
            values.mean,
            values.std,
            tuple(zip(RECORDED_PERCENTS, percentiles, strict=True)),
            values.percentile_error,
        ),
    )
    low, high = percentiles[0], percentiles[-1]
    if low == high:
        low, high = values.minimum, values.maximum
    if low == high:
        high = low + max(1.0, abs(low) / 2**20)  # wide enough to differ from `low` in float64
    return dataclasses.replace(noted, low=low, high=high) if with_interval else noted
