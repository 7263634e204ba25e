"""What a chip set holds, for the person who made it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geop2p.config import SPLITS, Split
from geop2p.tiling.chips import SIDES, ChipSet
from geop2p.tiling.table import ChipTable

CLASSES_SHOWN = 6  # of a side, the most frequent


@dataclass(frozen=True)
class SplitSummary:
    """One split.

    Attributes:
        name: The split.
        chips: Chips in it.
        share: Of the valid ground of all splits, 0 to 1.
        valid: Mean share of valid ground in a chip; None without chips.
        classes: Share of the most frequent classes of all splits on its valid ground, by name; None without chips.
    """

    name: Split
    chips: int
    share: float
    valid: float | None
    classes: dict[str, float | None]


@dataclass(frozen=True)
class Summary:
    """A chip set.

    Attributes:
        splits: Its splits.
        dropped: Windows of all scenes that gave no chip, by reason; reasons that occurred, the most frequent first.
    """

    splits: list[SplitSummary]
    dropped: dict[str, int]


def summarise(chips: str | Path) -> Summary:
    """Count the chips of each split, their valid ground and classes, and what was dropped.

    Raises:
        ChipSetError: It is no chip set.
    """
    chipset = ChipSet.open(chips)
    index = chipset.table()
    columns = _frequent(chipset, index)
    ground, splits = float(index["valid"].sum()), []
    for name in SPLITS:
        own = index.of_split(name)
        valid = own["valid"]
        splits.append(
            SplitSummary(
                name=name,
                chips=len(own),
                share=float(valid.sum()) / ground if ground else 0.0,
                valid=float(valid.mean()) if len(own) else None,
                classes={
                    title: float(np.average(own[column], weights=valid)) if len(own) else None
                    for title, column in columns.items()
                },
            )
        )
    dropped = Counter[str]()
    for scene in chipset.scenes:
        dropped.update(scene.dropped)
    return Summary(splits, {reason: count for reason, count in dropped.most_common() if count})


def _frequent(chipset: ChipSet, index: ChipTable) -> dict[str, str]:
    """Index columns of the most frequent classes, by the name of the class, with its side where both hold classes."""
    both = all(chipset.encoding(side).is_classes for side in SIDES)
    result = {}
    for side in SIDES:
        found = {entry.name: f"{side}_{entry.value}" for entry in chipset.encoding(side).classes}
        ground = {
            name: float((index["valid"] * index[column]).sum()) for name, column in found.items() if column in index
        }
        for name in sorted(ground, key=lambda name: -ground[name])[:CLASSES_SHOWN]:
            result[f"{side} {name}" if both else name] = found[name]
    return result
