"""`Layer`: one side of a pair, raster or vector, with what it holds and how to read it on a grid."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geop2p.config import Kind, KindChoice
from geop2p.errors import ConfigError, RasterError
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.encoding import Array, Band, Encoding, MapClass, Mask, class_color, guess_kind
from geop2p.raster.grid import Grid
from geop2p.raster.reading import RasterInfo, describe_raster, read_sample
from geop2p.raster.statistics import BandStatistics
from geop2p.raster.vectors import VectorLayer, VectorReader, is_vector, read_vector

CLIPPED_PERCENT = 0.1  # of the training values at each end lie outside the encoded interval


@dataclass(frozen=True)
class Layer:
    """One side of a pair.

    Attributes:
        path: File or GDAL name.
        kind: What it holds.
        reason: Why `kind` was concluded.
        raster: For a raster: what the file says of itself.
        vector: For a vector layer: its features.
    """

    path: str
    kind: Kind
    reason: str
    raster: RasterInfo | None = None
    vector: VectorLayer | None = None

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

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel in memory, all bands."""
        return 1 if self.raster is None else self.raster.count * np.dtype(self.raster.dtype).itemsize

    @property
    def block(self) -> tuple[int, int]:
        """(rows, cols) that its file stores together; (1, 1) for a vector layer."""
        return (1, 1) if self.raster is None else self.raster.block

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
        else:
            with aligned_reader(self.path, grid, self.kind) as reader:
                yield reader

    def draft_encoding(self) -> Encoding:
        """Its encoding as far as the file alone tells it: classes with names, 8-bit imagery by its range."""
        if self.vector is not None:
            return Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=self.vector.classes)
        info = self._info
        columns = zip(info.names, info.units, info.scales, info.offsets, strict=True)
        bands = tuple(Band(name, unit, scale, offset) for name, unit, scale, offset in columns)
        named = [value for value in info.categories if value != info.nodata] if self.kind == "classes" else []
        classes = tuple(self.map_class(value) for value in named)
        return Encoding(self.kind, info.dtype, bands, info.nodata, classes, info.color_interp)

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
    info = describe_raster(path)
    if kind == "auto":
        sample, valid = read_sample(path)
        concluded, reason = guess_kind(sample, valid, has_palette=bool(info.palette or info.categories))
    else:
        concluded, reason = kind, "as asked for"
    if concluded == "classes" and (info.count != 1 or np.dtype(info.dtype).kind == "f"):
        raise ConfigError(f"{path}: classes need one integer band, found {info.count} of {info.dtype}")
    if info.grid.crs is None:
        raise RasterError(f"{path}: has no CRS, so its place on the ground is unknown; assign one (gdal_edit -a_srs)")
    return Layer(str(path), concluded, reason, raster=info)


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
    for band, plane in zip(statistics, values, strict=True):
        band.add(plane[valid])
    return with_statistics(draft, statistics)


def needs_statistics(encoding: Encoding) -> bool:
    """Whether the encoded interval depends on the training values."""
    return not encoding.is_classes and not (encoding.kind == "image" and encoding.dtype == "uint8")


def with_statistics(encoding: Encoding, statistics: list[BandStatistics]) -> Encoding:
    """Set the encoded interval of every band to the middle 99.8 % of its training values."""
    bands = []
    for band, values in zip(encoding.bands, statistics, strict=True):
        low, high = values.percentile(CLIPPED_PERCENT), values.percentile(100 - CLIPPED_PERCENT)
        bands.append(dataclasses.replace(band, low=low, high=high if high > low else low + 1))
    return dataclasses.replace(encoding, bands=tuple(bands))
