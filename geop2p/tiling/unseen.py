"""Classes that a split holds and no training chip does: no model can draw them, so their ground is always wrong."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from geop2p.config import Split
from geop2p.raster.class_table import class_name
from geop2p.raster.encoding import Encoding, MapClass, class_color
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.index import class_columns


def unseen_classes(chipset: ChipSet, target: Encoding, split: Split) -> dict[int, float]:
    """The share of a split's valid ground of each target class that a model does not know, by its code.

    Args:
        chipset: Whose chips.
        target: Encoding of the model's target.
        split: Which chips.
    """
    own = chipset.table().of_split(split)
    if not target.is_classes or not own["valid"].any():
        return {}
    known = {entry.value for entry in target.classes}
    columns = {code: column for code, column in class_columns(own, "target").items() if code not in known}
    return {code: float(np.average(own[column], weights=own["valid"])) for code, column in columns.items()}


def with_classes(target: Encoding, codes: Iterable[int]) -> Encoding:
    """An encoding with further classes, for scores."""
    others = (MapClass(code, class_name(code), class_color(code)) for code in codes)
    return dataclasses.replace(target, classes=(*target.classes, *others))
