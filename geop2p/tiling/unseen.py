"""Classes that a split holds and a model has never seen: it cannot draw them, so their ground is always wrong."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from geop2p.config import Split
from geop2p.raster.class_table import class_name
from geop2p.raster.encoding import Encoding, MapClass, class_color
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.index import class_columns


def unseen_classes(chipset: ChipSet, target: Encoding, split: Split) -> list[tuple[MapClass, float]]:
    """The target classes of a split that a model does not know, each with its share of the valid ground.

    Args:
        chipset: Whose chips; of the model's training or others.
        target: Encoding of the model's target.
        split: Which chips.
    """
    own = chipset.table().of_split(split)
    if not target.is_classes or not own["valid"].any():
        return []
    known = {entry.value for entry in target.classes}
    there = {entry.value: entry for entry in (*chipset.target.classes, *chipset.target.ignored)}
    return [
        (
            there.get(code) or MapClass(code, class_name(code), class_color(code)),
            float(np.average(own[column], weights=own["valid"])),
        )
        for code, column in class_columns(own, "target").items()
        if code not in known
    ]


def with_classes(target: Encoding, others: Iterable[MapClass]) -> Encoding:
    """An encoding with further classes, for scores."""
    return dataclasses.replace(target, classes=(*target.classes, *others))
