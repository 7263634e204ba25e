"""Classes that a split holds and a model has never seen."""

import dataclasses
from collections.abc import Iterable

from geop2p.config import Split
from geop2p.raster.class_table import class_color, class_name
from geop2p.raster.encoding import Encoding, MapClass
from geop2p.tiling.chips import INDEX, ChipSet
from geop2p.tiling.rows import class_columns, index_rows


def class_shares(chipset: ChipSet, side: str, split: Split) -> dict[MapClass, float]:
    """The classes of a side of a split, each with its share of the valid ground, which may be 0.

    Args:
        chipset: Whose chips.
        side: source or target, a map.
        split: Which chips.
    """
    own, legend = index_rows(chipset.folder / INDEX, split), chipset.encoding(side)
    pixels = sum(row["valid"] for row in own)
    columns = class_columns(own[0].keys(), side) if pixels else {}
    there = {entry.value: entry for entry in (*legend.classes, *legend.ignored)}
    return {
        there.get(code) or MapClass(code, class_name(code), class_color(code)): sum(
            row[column] * row["valid"] for row in own
        )
        / pixels
        for code, column in columns.items()
    }


def unseen_classes(chipset: ChipSet, target: Encoding, split: Split) -> list[tuple[MapClass, float]]:
    """The target classes of a split that a model does not know, each with its share of the valid ground.

    Args:
        chipset: Whose chips; of the model's training or others.
        target: Encoding of the model's target.
        split: Which chips.
    """
    if not target.is_classes:
        return []
    known = {entry.value for entry in target.classes}
    return [entry for entry in class_shares(chipset, "target", split).items() if entry[0].value not in known]


def with_classes(target: Encoding, others: Iterable[MapClass]) -> Encoding:
    """An encoding with further classes, for scores."""
    return dataclasses.replace(target, classes=(*target.classes, *others))
