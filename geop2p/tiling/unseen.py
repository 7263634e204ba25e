"""Classes that a split holds and a model has never seen: it cannot draw them, so their ground is always wrong."""

import dataclasses
from collections.abc import Iterable

from geop2p.config import Split
from geop2p.raster.class_table import class_color, class_name
from geop2p.raster.encoding import Encoding, MapClass
from geop2p.tiling.chips import INDEX, ChipSet
from geop2p.tiling.rows import class_columns, index_rows


def unseen_classes(chipset: ChipSet, target: Encoding, split: Split) -> list[tuple[MapClass, float]]:
    """The target classes of a split that a model does not know, each with its share of the valid ground.

    Args:
        chipset: Whose chips; of the model's training or others.
        target: Encoding of the model's target.
        split: Which chips.
    """
    if not target.is_classes:
        return []
    own, known = index_rows(chipset.folder / INDEX, split), {entry.value for entry in target.classes}
    pixels = sum(row["valid"] for row in own)
    columns = class_columns(own[0].keys(), "target") if pixels else {}
    there = {entry.value: entry for entry in (*chipset.target.classes, *chipset.target.ignored)}
    return [
        (
            there.get(code) or MapClass(code, class_name(code), class_color(code)),
            sum(row[column] * row["valid"] for row in own) / pixels,
        )
        for code, column in columns.items()
        if code not in known
    ]


def with_classes(target: Encoding, others: Iterable[MapClass]) -> Encoding:
    """An encoding with further classes, for scores."""
    return dataclasses.replace(target, classes=(*target.classes, *others))
