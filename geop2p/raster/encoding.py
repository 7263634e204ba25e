"""`Encoding`: one side of the translation, from values on the ground to the network's range and back.

numpy only. Arrays are (bands, rows, cols); masks are (rows, cols), true where valid.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from geop2p.config import Backscatter, Kind, Scaling
from geop2p.errors import ConfigError
from geop2p.raster.backscatter import from_decibel, to_decibel
from geop2p.raster.palette import nearest_colors
from geop2p.raster.statistics import Distribution

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Band:
    """One band of a continuous layer.

    Attributes:
        name: Description, possibly empty.
        unit: Unit of the values, possibly empty.
        scale: Physical value is stored value times scale plus offset.
        offset: See scale.
        low: Stored value that becomes -1; its dB for linear backscatter.
        high: Stored value that becomes +1; its dB for linear backscatter.
        distribution: The training values; None before they are known.
    """

    name: str = ""
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    low: float = 0.0
    high: float = 255.0
    distribution: Distribution | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Band":
        """Read the JSON form."""
        found = data["distribution"]
        return cls(**data | {"distribution": None if found is None else Distribution.from_dict(found)})


@dataclass(frozen=True)
class MapClass:
    """One class of a map: stored value, name and display colour."""

    value: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Encoding:
    """What a layer holds and how its values enter and leave a network.

    Attributes:
        kind: image, classes, sar or elevation.
        dtype: numpy name of the stored values.
        bands: One entry a band.
        nodata: Value of the layer that means no data, if it has one.
        classes: For kind `classes`: in channel order.
        color_interp: GDAL's names of the bands' roles (red, green, blue, gray, palette, undefined).
        ignored: For kind `classes`: those that mean unlabelled; they encode to all zero.
        scaling: Where the encoded interval comes from: the integer type, or percentiles of the training values.
        backscatter: For kind `sar`: stored in dB, or as linear power or amplitude, which enter the network as dB.
        relief: For kind `elevation`: radius in metres of the ground whose mean is taken off; None: heights as they are.
        palette: For kind `image` of 8-bit red, green and blue: the only colours that come out; empty: any.
    """

    kind: Kind
    dtype: str
    bands: tuple[Band, ...]
    nodata: float | None = None
    classes: tuple[MapClass, ...] = ()
    color_interp: tuple[str, ...] = ()
    ignored: tuple[MapClass, ...] = ()
    scaling: Scaling = "percentiles"
    backscatter: Backscatter = "dB"
    relief: float | None = None
    palette: tuple[tuple[int, int, int], ...] = ()

    @property
    def channels(self) -> int:
        """Channels of the network on this side: classes, or bands."""
        return len(self.classes) or len(self.bands)

    @property
    def given_names(self) -> list[str]:
        """What the layer calls every band: by name, else by its role (red, green, blue), else nothing; some alike."""
        roles = self.color_interp if len(set(self.color_interp)) == len(self.bands) > 1 else ("",) * len(self.bands)
        return [band.name or role for band, role in zip(self.bands, roles, strict=True)]

    @property
    def band_names(self) -> list[str]:
        """A name for every band, no two alike: what the layer calls it, with its number where that is not enough."""
        given = self.given_names
        numbered = [f"{name or 'band'} {number}" for number, name in enumerate(given, start=1)]
        pairs = zip(given, numbered, strict=True)
        names = [name if name and given.count(name) == 1 else longer for name, longer in pairs]
        return names if len(set(names)) == len(names) else numbered  # where a name is another with its number

    @property
    def is_classes(self) -> bool:
        """Whether the layer is a map of classes."""
        return self.kind == "classes"

    @property
    def is_integer(self) -> bool:
        """Whether stored values are integers."""
        return bool(np.issubdtype(np.dtype(self.dtype), np.integer))

    @property
    def is_linear_sar(self) -> bool:
        """Whether stored values are linear backscatter, which enters the network as dB."""
        return self.kind == "sar" and self.backscatter != "dB"

    @property
    def data_range(self) -> Array:
        """Width of the encoded interval of every band, float64 (bands,); 1 for an interval of no width."""
        width = np.array([band.high - band.low for band in self.bands])
        return np.where(width > 1e-300, width, 1)  # the inverse of less is no number

    @property
    def unit_range(self) -> Array:
        """Width of the encoded interval of every band in the units of `in_units`, float64 (bands,)."""
        return self.data_range if self.is_linear_sar else self.data_range * self._scale

    def in_units(self, values: Array) -> npt.NDArray[np.float64]:
        """Stored values (bands, ...) in the units that errors are told in: dB for backscatter, else physical units.

        The offset of physical units is left out, as no error depends on it.
        """
        if self.is_linear_sar:
            return self.on_scale(values)
        scaled: npt.NDArray[np.float64] = values.astype(np.float64)
        if any(band.scale != 1 for band in self.bands):
            scaled *= self._scale.reshape(-1, *[1] * (values.ndim - 1))
        return scaled

    def on_scale(self, values: Array) -> Array:
        """Values (bands, ...) on the scale that the encoded interval stands on: dB for linear backscatter, else stored.

        Raises:
            ConfigError: The number of bands is not the encoding's.
        """
        self._check_bands(values)
        if not self.is_linear_sar:
            return values
        scale, offset = (self._column(name, values.ndim) for name in ("scale", "offset"))
        return to_decibel(values * scale + offset, self.backscatter, step=scale)

    def encode(self, values: Array, valid: Mask, out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
        """Network input for stored values.

        Args:
            values: Stored values (bands, rows, cols).
            valid: Ground with data (rows, cols).
            out: Where to put the result; none: a new array.

        Returns:
            float32 (channels, rows, cols): one-hot in {0, 1} for classes (unknown values all zero),
            else in [-1, 1], clipped. 0 where not valid.

        Raises:
            ConfigError: The number of bands is not the encoding's.
        """
        self._check_bands(values)
        result = np.empty((self.channels, *valid.shape), np.float32) if out is None else out
        if self.is_classes:
            codes = np.array([entry.value for entry in self.classes]).reshape(-1, 1, 1)
            np.copyto(result, (values[:1] == codes) & valid)
            return result
        everywhere, (low, factor, leaves) = bool(valid.all()), self._interval
        is_number = everywhere or (self.is_integer and not self.is_linear_sar)
        known = self.on_scale(values if is_number else np.where(valid, values, 0))
        wide = result if low.dtype == np.float32 else np.empty(result.shape)
        with np.errstate(over="ignore"):  # values far outside a narrow interval: clipped like all outside it
            if low.any():
                np.subtract(known, low, out=wide, dtype=wide.dtype)
                wide *= factor
            else:
                np.multiply(known, factor, out=wide, dtype=wide.dtype)
            wide -= 1
        if leaves:
            np.clip(wide, -1, 1, out=result)
        if not everywhere:
            np.copyto(result, 0, where=~valid)
        return result

    def decode(self, encoded: npt.NDArray[np.floating[Any]]) -> Array:
        """Stored values for network output: the inverse of `encode` on valid pixels.

        Args:
            encoded: (channels, rows, cols): scores of the classes, or values in [-1, 1] (clipped).

        Returns:
            (bands, rows, cols) of `dtype`: the class with the highest score; or values, rounded or of the palette.
        """
        if self.is_classes:
            codes = np.array([entry.value for entry in self.classes], dtype=self.dtype)
            best: Array = codes[encoded.argmax(axis=0)][np.newaxis]
            return best
        half = self.data_range.reshape(-1, 1, 1) / 2
        values: Array = np.clip(encoded, -1, 1).astype(self._work_dtype, copy=False)
        values += 1
        values *= half.astype(values.dtype)
        values += self._column("low")
        if self.is_linear_sar:
            values = (from_decibel(values, self.backscatter) - self._column("offset")) / self._column("scale")
        if self.is_integer:
            limits = np.iinfo(self.dtype)
            most = float(limits.max) if np.dtype(self.dtype).itemsize < 8 else np.nextafter(float(limits.max), 0)
            np.clip(np.rint(values, out=values), limits.min, most, out=values)
        return nearest_colors(values, self.palette).astype(self.dtype) if self.palette else values.astype(self.dtype)

    def clipped_share(self, values: Array, valid: Mask) -> float:
        """Share of valid values outside the encoded interval, which `encode` clips."""
        if self.is_classes or not valid.any():
            return 0.0
        inside = self.on_scale(values[:, valid]).astype(np.float64)
        low, high = np.array([(band.low, band.high) for band in self.bands]).T[..., np.newaxis]
        return float(((inside < low) | (inside > high)).mean())

    @cached_property
    def _interval(self) -> tuple[Array, Array, bool]:
        """Of every band (bands, 1, 1) the low end and what encodes one stored unit; whether values may leave it."""
        low = self._column("low")
        factor = (2 / self.data_range.reshape(-1, 1, 1)).astype(low.dtype)
        if low.dtype != np.float32 or not self.is_integer:
            return low, factor, True
        limits = np.iinfo(self.dtype)
        ends = np.array([limits.min, limits.max], np.float32)
        return low, factor, bool((np.abs((ends - low) * factor - 1) > 1).any())

    @property
    def _scale(self) -> Array:
        return np.array([abs(band.scale) for band in self.bands])

    @property
    def _work_dtype(self) -> type[np.floating[Any]]:
        narrow = np.dtype(self.dtype).itemsize <= 2 and not self.is_linear_sar
        return np.float32 if narrow else np.float64

    def _column(self, field: str, dimensions: int = 3) -> Array:
        values = np.array([getattr(band, field) for band in self.bands], self._work_dtype)
        return values.reshape(-1, *[1] * (dimensions - 1))

    def _check_bands(self, values: Array) -> None:
        if values.shape[0] != len(self.bands):
            raise ConfigError(f"array has {values.shape[0]} bands, the encoding has {len(self.bands)}")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        data = dataclasses.asdict(self)
        data["nodata"] = None if self.nodata is None else repr(self.nodata)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Encoding":
        """Read `to_dict`'s form."""
        return cls(
            kind=data["kind"],
            dtype=data["dtype"],
            bands=tuple(Band.from_dict(band) for band in data["bands"]),
            nodata=None if data["nodata"] is None else float(data["nodata"]),
            classes=_map_classes(data["classes"]),
            color_interp=tuple(data["color_interp"]),
            ignored=_map_classes(data["ignored"]),
            scaling=data["scaling"],
            backscatter=data["backscatter"],
            relief=data["relief"],
            palette=tuple(tuple(color) for color in data["palette"]),
        )


def _map_classes(entries: Iterable[dict[str, Any]]) -> tuple[MapClass, ...]:
    """Classes from their JSON form."""
    return tuple(MapClass(entry["value"], entry["name"], tuple(entry["color"])) for entry in entries)
