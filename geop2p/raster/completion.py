"""Encodings of layers that no chip set describes."""

import dataclasses

import numpy as np

from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.layers import Layer
from geop2p.raster.scaling import add_values, needs_statistics, with_statistics
from geop2p.raster.statistics import BandStatistics


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
