"""What a layer seems to hold, concluded from its type and a sample of its values, and why."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from geop2p.config import Backscatter, Kind, KindChoice
from geop2p.errors import ConfigError
from geop2p.raster.agreement import DB, FEET, METRES, SURVEY_FEET, unit_of
from geop2p.raster.class_table import DRAWN_COLORS, count_colors, is_photograph
from geop2p.raster.encoding import Array, Band, Mask
from geop2p.raster.reading import RasterInfo, file_bands, has_colors

DECIBELS: Backscatter = "dB"
MOST_CLASSES = 32  # different values of one integer band that still count as classes
MOST_CODES = 256  # different values that a map can have: each is a channel of the network
ASKED = "as asked for"  # why a layer is read so whose kind somebody said
LEAST_RELIEF = 20  # physical units that the heights of an elevation layer span at least
NO_DB = -100.0  # below it lies no backscatter in dB
LENGTHS = (METRES[0], FEET[0], SURVEY_FEET[0])


class Sampler(Protocol):
    """`read_sample` of a raster."""

    def __call__(
        self, as_colors: bool = False, enough: Callable[[Array, Mask], bool] | None = None
    ) -> tuple[Array, Mask]:
        """Values (bands, rows, cols) and which of them are data (rows, cols)."""


def conclude_kind(info: RasterInfo, kind: KindChoice, look: Sampler) -> tuple[Kind, str, bool, Backscatter]:
    """What a raster holds, why, whether it seems to be a map drawn in colours, and for radar how it is stored.

    Args:
        info: What its file says.
        kind: What it is said to hold, or auto.
        look: Gives a sample of its values.
    """
    concluded, reason, is_drawn, backscatter = kind if kind != "auto" else "image", ASKED, False, DECIBELS
    if kind == "auto" and info.count == 1 and np.dtype(info.dtype).kind in "iu" and (info.palette or info.categories):
        return "classes", "one integer band with a colour table or class names", False, DECIBELS
    if kind in ("auto", "sar"):
        may_be_drawn = kind == "auto" and has_colors(info) and set(info.scales) == {1.0}
        sample, valid = look(enough=is_photograph if may_be_drawn else None)
        bands = file_bands(info)
        if kind == "auto":
            concluded, reason = guess_kind(sample, valid, bands)
            if concluded == "image" and has_colors(info):
                is_drawn = 1 < (count := count_colors(sample, valid)) <= DRAWN_COLORS
                reason += f", only {count} colours: if it is a map, read it with --classes FILE" if is_drawn else ""
        if concluded == "sar":
            backscatter, how = guess_backscatter(sample, valid, bands)
            reason = f"{reason}; {how}"
    return concluded, reason, is_drawn, backscatter


def check_count(path: str, found: int) -> None:
    """Refuse more classes than a network has channels for.

    Raises:
        ConfigError: A network cannot tell so many classes.
    """
    if found > MOST_CODES:
        raise ConfigError(
            f"{path}: holds {found} different values or more, a map has at most {MOST_CODES} classes; say what it is "
            "(image, elevation), or put the values into classes first"
        )


def guess_kind(sample: Array, valid: Mask, bands: Sequence[Band] = ()) -> tuple[Kind, str]:
    """What a layer seems to hold that names no classes, and why.

    One integer band of few values: classes. Otherwise units decide where the file names any, then physical values: up
    to four bands in the range of backscatter in dB: sar; one band of floats or signed integers over a large range:
    elevation (SRTM is int16; imagery of one band comes unsigned); else image.

    Args:
        sample: Some of its values (bands, rows, cols).
        valid: Which of them are data (rows, cols).
        bands: What the file says of each band: unit, scale and offset; may be left out.
    """
    values = sample[:, valid]
    count, kind = len(sample), sample.dtype.kind
    if count == 1 and kind in "iu" and values.size and (found := len(np.unique(values))) <= MOST_CLASSES:
        hint = "; if they are heights of flat ground, say that its kind is elevation"
        return "classes", f"one integer band with {found} different values{hint if _runs_on(sample, valid) else ''}"
    what = f"{count} band(s) of {sample.dtype}"
    if not values.size:
        return "image", f"{what} without a valid pixel in a sample, so it is a guess"
    units = {unit_of(band.unit) for band in bands}
    if units == {DB[0]}:
        return "sar", f"{count} band(s) in dB"
    is_scaled = any(band.scale != 1 for band in bands)
    if kind == "u" and count > 1 and not is_scaled:  # whatever the values
        return "image", what
    low, median, high = np.percentile(_physical(values, bands), [1, 50, 99])
    if count == 1 and len(units) == 1 and units <= set(LENGTHS) and high > low:
        return "elevation", f"one band in {bands[0].unit}"
    if (kind == "f" or is_scaled) and count <= 4 and -60 <= low < -5 and median < 0 and high <= 30:
        return "sar", f"{count} band(s) between {low:.1f} and {high:.1f}, as backscatter in dB"
    if count == 1 and high - low > LEAST_RELIEF and (kind == "f" or sample.dtype in (np.int16, np.int32)):
        return "elevation", f"one {sample.dtype} band over a range of {high - low:.0f}"
    if kind == "f" and count <= 4 and low >= 0 and median < 0.5 and high > 4 * median:
        what += ", none negative, with a long tail; if it is backscatter in linear power, say that its kind is sar"
    return "image", what


def guess_backscatter(sample: Array, valid: Mask, bands: Sequence[Band] = ()) -> tuple[Backscatter, str]:
    """How a SAR layer stores its backscatter, and why.

    Values in dB are negative for nearly all ground; without negative values, floats are linear power (calibrated
    products) and integers linear amplitude (the digital numbers of detected products).

    Args:
        sample: Some of its values (bands, rows, cols).
        valid: Which of them are data (rows, cols).
        bands: What the file says of each band: unit, scale and offset; may be left out.
    """
    values = _physical(sample[:, valid], bands)
    if {unit_of(band.unit) for band in bands} == {DB[0]}:
        return "dB", "its unit is dB"
    if not values.size:
        return "dB", "no valid pixel in a sample, taken as dB"
    share = float((values < 0).mean())
    if share > 0.01:  # noise removal leaves some negative power
        if (usual := float(np.median(values))) < NO_DB:
            told = f"but {usual:.4g} is no dB: is the scale missing (gdal_edit.py -scale 0.01, for hundredths)?"
            return "dB", f"{share:.0%} of the values are negative, so they are taken for dB, {told}"
        return "dB", f"{share:.0%} of the values are negative, so they are dB"
    stored: Backscatter = "power" if sample.dtype.kind == "f" else "amplitude"
    return stored, f"{sample.dtype} without negative values is linear {stored} (a band unit of dB would say otherwise)"


def _runs_on(sample: Array, valid: Mask) -> bool:
    """Whether eight values or more step by one from pixel to pixel, as heights do and classes do not."""
    steps = np.abs(np.diff(sample[0].astype(np.int64), axis=1))[valid[:, 1:] & valid[:, :-1]]
    changes = steps[steps > 0]
    return bool(len(np.unique(sample[0][valid])) >= 8 and changes.size and (changes == 1).mean() > 0.8)


def _physical(values: npt.NDArray[Any], bands: Sequence[Band]) -> npt.NDArray[np.float64]:
    """Stored values (bands, values) in the file's units."""
    wide: npt.NDArray[np.float64] = values.astype(np.float64)
    if bands:
        wide = wide * np.array([[band.scale] for band in bands]) + np.array([[band.offset] for band in bands])
    return wide
