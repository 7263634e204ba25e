"""The intervals that encodings map to the network's range, from the values of training chips. numpy only."""

import dataclasses

import numpy as np

from geop2p.raster.encoding import Array, Band, Encoding, Mask
from geop2p.raster.statistics import BandStatistics, Distribution

RECORDED_PERCENTS = (0.1, 1, 5, 25, 50, 75, 95, 99, 99.9)  # the first and the last are the encoded interval


NO_MEASURE = 1e30  # magnitudes beyond it are no measures but fill values that no file declares


def needs_statistics(encoding: Encoding) -> bool:
    """Whether the encoded interval depends on the training values."""
    return not encoding.is_classes and encoding.scaling == "percentiles"


def undeclared_fill(encoding: Encoding) -> float | None:
    """The farthest of the known values that are no measures; None where there are none such."""
    known = [band.distribution for band in encoding.bands if band.distribution is not None]
    ends = [end for values in known for end in (values.minimum, values.maximum) if abs(end) > NO_MEASURE]
    return max(ends, key=abs, default=None)


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
