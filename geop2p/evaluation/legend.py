"""What the values of two rasters mean to the scores: the classes of either, the intervals of their bands."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.windows import Window

from geop2p.errors import ConfigError
from geop2p.mosaic.plan import part_windows
from geop2p.raster.aligned import Reader
from geop2p.raster.encoding import Encoding
from geop2p.raster.layers import Layer
from geop2p.raster.scaling import add_values, needs_statistics, with_statistics
from geop2p.raster.statistics import BandStatistics

PART = 2048  # side of what is read at once, in pixels


def legend_of(
    encoding: Encoding,
    layers: Sequence[Layer],
    readers: Sequence[Reader],
    tags: Mapping[str, str],
    ignore: Sequence[str],
) -> tuple[Encoding, list[int]]:
    """The encoding that scores need, and the codes of the reference that mean unlabelled.

    Args:
        encoding: Of both rasters, as far as the files tell it.
        layers: Prediction and reference.
        readers: Theirs, on one grid.
        tags: What the prediction says of its making; see `mosaic_tags`.
        ignore: Names or values of classes that mean unlabelled, besides those that the tags tell.

    Raises:
        ConfigError: Neither raster has such a class.
    """
    if encoding.is_classes:
        encoding = _with_all_classes(encoding, layers, readers)
        told = [int(code) for code in tags.get("ignored", "").split()]
        ignored = list(dict.fromkeys(told + _codes(ignore, encoding)))
        classes = tuple(entry for entry in encoding.classes if entry.value not in ignored)
        return dataclasses.replace(encoding, classes=classes), ignored
    own = _with_intervals(encoding, tags.get("intervals", ""))
    if own is None and needs_statistics(encoding):
        own = _with_ranges(encoding, _statistics(readers[1], encoding))
    return own or encoding, []


def _with_ranges(encoding: Encoding, statistics: list[BandStatistics]) -> Encoding:
    """The encoding with the intervals of the reference's values; of no width where a band has one value alone."""
    found = with_statistics(encoding, statistics)
    bands = [
        dataclasses.replace(band, high=band.low) if values.minimum == values.maximum else band
        for band, values in zip(found.bands, statistics, strict=True)
    ]
    return dataclasses.replace(found, bands=tuple(bands))


def _with_all_classes(encoding: Encoding, layers: Sequence[Layer], readers: Sequence[Reader]) -> Encoding:
    """The encoding with every class that either raster holds."""
    classes = {entry.value: entry for entry in encoding.classes}
    for layer, reader in zip(layers, readers, strict=True):
        named = {entry.value: entry for entry in layer.draft_encoding().classes}
        for window in part_windows(Window(0, 0, reader.grid.width, reader.grid.height), PART):
            values, valid = reader.read(window)
            for value in np.unique(values[0][valid]).tolist():
                classes.setdefault(value, named.get(value) or layer.map_class(value))
    return dataclasses.replace(encoding, classes=tuple(classes[value] for value in sorted(classes)))


def _codes(names: Sequence[str], encoding: Encoding) -> list[int]:
    """The codes of classes that are given by name or value.

    Raises:
        ConfigError: Neither raster has such a class.
    """
    found = []
    for name in names:
        named = [entry.value for entry in encoding.classes if entry.name == name]
        codes = named or [entry.value for entry in encoding.classes if str(entry.value) == name]
        if not codes:
            there = ", ".join(f"{entry.value} {entry.name}" for entry in encoding.classes)
            raise ConfigError(f"ignore_class names '{name}', the rasters have {there or 'no classes'}")
        found += codes
    return found


def _with_intervals(encoding: Encoding, told: str) -> Encoding | None:
    """The encoding with the intervals that a mosaic of geop2p tells; None where it tells none of these bands."""
    try:
        ends = [tuple(map(float, band.split())) for band in told.split(";")]
        bands = [
            dataclasses.replace(band, low=low, high=high)
            for band, (low, high) in zip(encoding.bands, ends, strict=True)
        ]
    except ValueError:
        return None
    return dataclasses.replace(encoding, bands=tuple(bands))


def _statistics(reader: Reader, encoding: Encoding) -> list[BandStatistics]:
    statistics = [BandStatistics() for _ in encoding.bands]
    for window in part_windows(Window(0, 0, reader.grid.width, reader.grid.height), PART):
        add_values(statistics, encoding, *reader.read(window))
    return statistics
