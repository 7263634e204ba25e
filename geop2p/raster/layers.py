"""`Layer`: one side of a pair, raster or vector, with what it holds and how to read it on a grid."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geop2p.config import Backscatter, Kind, KindChoice, Scaling, ScalingChoice
from geop2p.errors import ConfigError
from geop2p.raster.aligned import HidingReader, Reader, aligned_reader
from geop2p.raster.blockwise import SIDE
from geop2p.raster.class_table import UNLISTED_SHARE, ClassTable, class_color, class_name
from geop2p.raster.encoding import Array, Band, Encoding, MapClass, Mask
from geop2p.raster.features import is_vector, vector_parts
from geop2p.raster.fingerprints import fingerprint
from geop2p.raster.grid import Grid
from geop2p.raster.kinds import Sampler, conclude_kind
from geop2p.raster.reading import RasterInfo, describe_raster, file_bands, has_colors, read_sample
from geop2p.raster.relief import relief_reader
from geop2p.raster.scaling import add_values, needs_statistics, with_statistics
from geop2p.raster.statistics import BandStatistics
from geop2p.raster.vectors import VectorLayer, VectorReader, read_vector


@dataclass(frozen=True)
class Layer:
    """One side of a pair.

    Attributes:
        path: File or GDAL name.
        kind: What it holds.
        reason: Why `kind` was concluded.
        raster: For a raster: what the file says of itself.
        vector: For a vector layer: its features.
        table: For a map: values, names and colours of its classes, where a file gives them.
        ignored: Classes that mean unlabelled: their ground is not valid.
        is_drawn: Whether it seems to be a map drawn in colours.
        backscatter: For kind `sar`: how it is stored.
        scaling: For kind `image`: where its encoded interval shall come from.
        relief: For kind `elevation`: radius in metres of the ground whose mean is taken off; None: heights as they are.
        drawn_in: For kind `image`: the colours that it is drawn in, where a file gives them.
    """

    path: str
    kind: Kind
    reason: str
    raster: RasterInfo | None = None
    vector: VectorLayer | None = None
    table: ClassTable | None = None
    ignored: tuple[MapClass, ...] = ()
    is_drawn: bool = False
    backscatter: Backscatter = "dB"
    scaling: ScalingChoice = "auto"
    relief: float | None = None
    drawn_in: tuple[tuple[int, int, int], ...] = ()

    @property
    def grid(self) -> Grid | None:
        """Where its pixels lie; None for a vector layer."""
        return None if self.raster is None else self.raster.grid

    @property
    def fingerprint(self) -> dict[str, Any]:
        """To know its files again; see `ends.fingerprint`."""
        return fingerprint(self.path, vector_parts(self.path) if self.raster is None else self.raster.parts)

    @property
    def crs(self) -> Any:
        """Its CRS."""
        return self.vector.features.crs if self.vector is not None else self._info.grid.crs

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in its own CRS."""
        return self.bounds_in(self.crs)

    @property
    def colors(self) -> ClassTable | None:
        """The classes that its colours stand for; None unless it is read as a map drawn in colours."""
        return self.table if self.raster is not None and self.raster.count == 3 else None

    @property
    def palette(self) -> dict[int, tuple[int, int, int]]:
        """Colour of every value of a map that has one."""
        if self.kind != "classes":
            return {}
        listed = self.vector.classes if self.vector is not None else self.table.classes if self.table else ()
        return ({} if self.vector is not None else self._info.palette) | {entry.value: entry.color for entry in listed}

    @property
    def _info(self) -> RasterInfo:
        assert self.raster is not None
        return self.raster

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel in memory, all bands."""
        return 1 if self.raster is None else self.raster.count * np.dtype(self.raster.dtype).itemsize

    def block_on(self, grid: Grid) -> tuple[int, int]:
        """(rows, cols) that are read together on a grid: those of its file, or of the warp."""
        if self.raster is not None and grid.unmirrored.offset_in(self.raster.grid.unmirrored) is None:
            return SIDE, SIDE
        return (1, 1) if self.raster is None else self.raster.block

    def bounds_in(self, crs: Any) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of its ground in a CRS."""
        if self.vector is not None:
            return self.vector.bounds_in(crs)
        return self._info.grid.bounds_in(crs)

    @contextmanager
    def reader(self, grid: Grid) -> Iterator[Reader]:
        """Windows of it on a grid."""
        hidden = [entry.value for entry in self.ignored] + ([self.colors.unlisted] if self.colors else [])
        if self.vector is not None:
            yield HidingReader(VectorReader(self.vector, grid), hidden)
        elif self.relief is not None:
            with relief_reader(self.path, grid, self.relief) as reader:
                yield reader
        else:
            with aligned_reader(self.path, grid, self.kind, colors=self.colors, backscatter=self.backscatter) as reader:
                yield HidingReader(reader, hidden)

    def draft_encoding(self) -> Encoding:
        """Its encoding as far as the file alone tells it: classes with names, imagery by the range of its type.

        Raises:
            ConfigError: Its scaling or relief does not fit what it holds.
        """
        if self.vector is not None or self.colors is not None:
            return self._labelled(Encoding("classes", "uint8", (Band(),), nodata=0.0 if self.vector else None))
        info = self._info
        bands, dtype, nodata = file_bands(info), info.dtype, info.nodata
        scaling = self._scaling()
        if scaling == "dtype":
            limits = np.iinfo(dtype)
            bands = tuple(dataclasses.replace(band, low=float(limits.min), high=float(limits.max)) for band in bands)
        if self.relief is not None:  # differences of heights: no offset, and no height means no data
            bands = tuple(dataclasses.replace(band, offset=0.0) for band in bands)
            dtype, nodata = "float32", None
        encoding = Encoding(
            self.kind,
            dtype,
            bands,
            nodata,
            color_interp=info.color_interp,
            scaling=scaling,
            backscatter=self.backscatter,
            relief=self.relief,
            palette=self.drawn_in,
        )
        return self._labelled(encoding)

    def _labelled(self, encoding: Encoding) -> Encoding:
        """The encoding with the classes that are known by name, but for those that mean no data or unlabelled."""
        unused = {entry.value for entry in self.ignored} | {encoding.nodata}
        classes = tuple(entry for entry in self.named_classes if entry.value not in unused)
        return dataclasses.replace(encoding, classes=classes, ignored=self.ignored)

    @property
    def named_classes(self) -> tuple[MapClass, ...]:
        """The classes whose names are known, if it is a map."""
        if self.vector is not None:
            return self.vector.classes
        if self.kind != "classes":
            return ()
        listed = {entry.value: entry for entry in self.table.classes} if self.table else {}
        if self.colors is None:
            listed = {value: self.map_class(value) for value in self._info.categories} | listed
        return tuple(listed.values())

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
        """Name and colour of a stored value: from the table, the file, or made up."""
        for entry in self.table.classes if self.table else ():
            if entry.value == value:
                return entry
        info = self._info
        name = info.categories.get(value, class_name(value))
        return MapClass(value, name, info.palette.get(value, class_color(value)))


def open_layer(
    path: str | Path,
    kind: KindChoice = "auto",
    field: str | None = None,
    known: tuple[MapClass, ...] = (),
    table: ClassTable | None = None,
) -> Layer:
    """Look at one side of a pair.

    Args:
        path: Raster or vector layer.
        kind: What it holds, or auto to conclude it.
        field: For a vector layer: attribute that names the class.
        known: For a vector layer: classes whose codes are already given.
        table: For a map: its classes; they turn the colours of a drawn one into values.

    Raises:
        RasterError: It cannot be opened, or holds nothing that can be used.
        ConfigError: `kind` does not fit it.
    """
    if is_vector(path):
        if kind not in ("auto", "classes"):
            raise ConfigError(f"{path}: a vector layer holds classes, not {kind}")
        return Layer(str(path), "classes", "a vector layer", vector=read_vector(path, field, known))
    info = describe_raster(path)
    layer = conclude(path, info, kind, table, partial(read_sample, path))
    if layer.table is not None and layer.colors is None:
        layer.table.check_values(layer.path, info.dtype)
    return layer


def conclude(path: str | Path, info: RasterInfo, kind: KindChoice, table: ClassTable | None, look: Sampler) -> Layer:
    """What a raster holds, by what its file says and, where that is not enough, by its values.

    Args:
        path: What it is called in messages.
        info: What its file says.
        kind: See `open_layer`.
        table: See `open_layer`.
        look: Gives a sample of its values.

    Raises:
        ConfigError: `kind` does not fit it.
    """
    concluded, reason, is_drawn, backscatter = conclude_kind(info, kind, look)
    layer = Layer(str(path), concluded, reason, raster=info, is_drawn=is_drawn, backscatter=backscatter)
    return _as_map(layer, info, table, look) if concluded == "classes" else layer


def _as_map(layer: Layer, info: RasterInfo, table: ClassTable | None, look: Sampler) -> Layer:
    """The layer read as classes.

    Raises:
        ConfigError: It does not hold one integer band, nor colours that the table knows.
    """
    if table is not None:
        layer = dataclasses.replace(layer, table=table, reason=f"the classes are those of {table.path}")
    if layer.colors is not None and has_colors(info):
        layer.colors.check_colors()
        layer.colors.report_unlisted(layer.path, *look(as_colors=True), UNLISTED_SHARE)
    elif info.count != 1 or np.dtype(info.dtype).kind == "f":
        hint = "; give the classes of a map in colours with --classes FILE" if has_colors(info) else ""
        hint = "; convert it (gdal_translate -ot Int16)" if info.count == 1 else hint
        raise ConfigError(f"{layer.path}: classes need one integer band, found {info.count} of {info.dtype}{hint}")
    return layer


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
