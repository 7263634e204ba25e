"""`Encoding`: one side of the translation, from values on the ground to the network's range and back.

numpy only. Arrays are (bands, rows, cols); masks are (rows, cols), true where valid.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geop2p.config import Kind
from geop2p.errors import ConfigError

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_PALETTE = (
    (102, 194, 165), (141, 160, 203), (228, 26, 28), (55, 126, 184), (77, 175, 74), (152, 78, 163),
    (255, 127, 0), (166, 86, 40), (247, 129, 191), (255, 217, 47),
)  # fmt: skip


@dataclass(frozen=True)
class Band:
    """One band of a continuous layer.

    Attributes:
        name: Description, possibly empty.
        unit: Unit of the values, possibly empty.
        scale: Physical value is stored value times scale plus offset.
        offset: See scale.
        low: Stored value that becomes -1.
        high: Stored value that becomes +1.
    """

    name: str = ""
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    low: float = 0.0
    high: float = 255.0


@dataclass(frozen=True)
class MapClass:
    """One class of a map: stored value, name and display colour."""

    value: int
    name: str
    color: tuple[int, int, int]


def class_color(value: int) -> tuple[int, int, int]:
    """A colour for a class that has none."""
    return _PALETTE[value % len(_PALETTE)]


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
    """

    kind: Kind
    dtype: str
    bands: tuple[Band, ...]
    nodata: float | None = None
    classes: tuple[MapClass, ...] = ()
    color_interp: tuple[str, ...] = ()
    ignored: tuple[MapClass, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of the network on this side: classes, or bands."""
        return len(self.classes) or len(self.bands)

    @property
    def scale(self) -> Array:
        """What a step of one stored unit is in physical units, float64 (bands,)."""
        return np.array([abs(band.scale) for band in self.bands])

    @property
    def band_names(self) -> list[str]:
        """A name for every band: its own, else its role (red, green, blue), else its number."""
        roles = self.color_interp if len(set(self.color_interp)) == len(self.bands) > 1 else ("",) * len(self.bands)
        columns = enumerate(zip(self.bands, roles, strict=True), start=1)
        return [band.name or role or f"band {number}" for number, (band, role) in columns]

    @property
    def is_classes(self) -> bool:
        """Whether the layer is a map of classes."""
        return self.kind == "classes"

    @property
    def is_integer(self) -> bool:
        """Whether stored values are integers."""
        return bool(np.issubdtype(np.dtype(self.dtype), np.integer))

    @property
    def data_range(self) -> Array:
        """Width of the encoded interval of every band, in stored units, float64 (bands,)."""
        return np.array([band.high - band.low for band in self.bands])

    def encode(self, values: Array, valid: Mask) -> npt.NDArray[np.float32]:
        """Network input for stored values.

        Args:
            values: Stored values (bands, rows, cols).
            valid: Ground with data (rows, cols).

        Returns:
            float32 (channels, rows, cols): one-hot in {0, 1} for classes (unknown values all zero),
            else in [-1, 1], clipped. 0 where not valid.

        Raises:
            ConfigError: The number of bands is not the encoding's.
        """
        if values.shape[0] != len(self.bands):
            raise ConfigError(f"array has {values.shape[0]} bands, the encoding has {len(self.bands)}")
        if self.is_classes:
            codes = np.array([entry.value for entry in self.classes]).reshape(-1, 1, 1)
            one_hot: npt.NDArray[np.float32] = ((values[:1] == codes) & valid).astype(np.float32)
            return one_hot
        wide = np.where(valid, values, 0).astype(self._work_dtype)
        scaled = (wide - self._column("low")) * (2 / self.data_range.reshape(-1, 1, 1)).astype(wide.dtype) - 1
        return np.where(valid, np.clip(scaled, -1, 1), 0).astype(np.float32)

    def decode(self, encoded: npt.NDArray[np.floating[Any]]) -> Array:
        """Stored values for network output: the inverse of `encode` on valid pixels.

        Args:
            encoded: (channels, rows, cols): scores of the classes, or values in [-1, 1] (clipped).

        Returns:
            (bands, rows, cols) of `dtype`: the class with the highest score, or values, rounded for integers.
        """
        if self.is_classes:
            codes = np.array([entry.value for entry in self.classes], dtype=self.dtype)
            best: Array = codes[encoded.argmax(axis=0)][np.newaxis]
            return best
        half = self.data_range.reshape(-1, 1, 1) / 2
        wide = np.clip(encoded, -1, 1).astype(self._work_dtype)
        values: Array = (wide + 1) * half.astype(wide.dtype) + self._column("low")
        if self.is_integer:
            limits = np.iinfo(self.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return values.astype(self.dtype)

    def clipped_share(self, values: Array, valid: Mask) -> float:
        """Share of valid values outside the encoded interval, which `encode` clips."""
        if self.is_classes or not valid.any():
            return 0.0
        inside = values[:, valid]
        low, high = self._column("low").reshape(-1, 1), self._column("high").reshape(-1, 1)
        return float(((inside < low) | (inside > high)).mean())

    @property
    def _work_dtype(self) -> type[np.floating[Any]]:
        return np.float32 if np.dtype(self.dtype).itemsize <= 2 else np.float64

    def _column(self, field: str) -> Array:
        return np.array([getattr(band, field) for band in self.bands], self._work_dtype).reshape(-1, 1, 1)

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
            bands=tuple(Band(**band) for band in data["bands"]),
            nodata=None if data["nodata"] is None else float(data["nodata"]),
            classes=_map_classes(data["classes"]),
            color_interp=tuple(data["color_interp"]),
            ignored=_map_classes(data.get("ignored", ())),
        )


def _map_classes(entries: Iterable[dict[str, Any]]) -> tuple[MapClass, ...]:
    """Classes from their JSON form."""
    return tuple(MapClass(entry["value"], entry["name"], tuple(entry["color"])) for entry in entries)


def guess_kind(sample: Array, valid: Mask, *, has_palette: bool) -> tuple[Kind, str]:
    """What a layer seems to hold, and why.

    Args:
        sample: Some of its values (bands, rows, cols).
        valid: Which of them are data (rows, cols).
        has_palette: Whether it has a colour table or category names.
    """
    values = sample[:, valid]
    bands, integer = sample.shape[0], bool(np.issubdtype(sample.dtype, np.integer))
    if bands == 1 and integer and has_palette:
        return "classes", "one integer band with a colour table or class names"
    if bands == 1 and integer and values.size and len(np.unique(values)) <= 32:
        return "classes", f"one integer band with {len(np.unique(values))} different values"
    if not integer and values.size:
        low, median, high = np.percentile(values, [1, 50, 99])
        if bands <= 4 and -60 <= low < 0 and median < 0 and high <= 30:
            return "sar", f"{bands} float band(s) between {low:.1f} and {high:.1f}, as backscatter in dB"
        if bands == 1 and high - low > 20:
            return "elevation", f"one float band over a range of {high - low:.0f}"
    return "image", f"{bands} band(s) of {sample.dtype}"
