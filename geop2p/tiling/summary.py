"""What a chip set holds, for the person who made it."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geop2p.config import SPLITS, Split, TileConfig
from geop2p.raster.class_table import class_name, class_titles
from geop2p.tiling.chips import SIDES, ChipSet
from geop2p.tiling.rows import class_columns
from geop2p.tiling.table import ChipTable

CLASSES_SHOWN = 6  # of a side, the most frequent
SCENE_RULES = ("scene", "polygon", "file")  # that fill the splits scene by scene, so that one may wait for more

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitSummary:
    """One split.

    Attributes:
        name: The split.
        chips: Chips in it.
        share: Of the valid pixels of all chips, 0 to 1; ground under several chips counts several times.
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
        ChipSetError: The folder is no chip set.
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


def _class_columns(chipset: ChipSet, index: ChipTable, side: str) -> dict[str, str]:
    """Index columns of a side's classes, by name: those of its encoding, then those that no training chip holds."""
    classes = chipset.encoding(side).classes
    named = dict(zip((entry.value for entry in classes), class_titles(classes), strict=True))
    others = {class_name(code): column for code, column in class_columns(index, side).items() if code not in named}
    return {title: f"{side}_{code}" for code, title in named.items()} | others


def report_gaps(chipset: ChipSet, index: ChipTable) -> None:
    """Name the splits that wait for scenes, and the classes that no training chip holds, in warnings.

    The model cannot learn these classes. Those that no file names are none to it at all: their ground is no class in
    its source and no target, which the validation of a training leaves out and `evaluate` counts as wrong.
    """
    shares = TileConfig(split=chipset.settings["split"]).split_shares
    empty = [split for split in SPLITS if shares[split] > 0 and not chipset.counts[split]]
    if empty and chipset.settings["split_by"] in SCENE_RULES:
        overlap = chipset.settings["split_by"] == "scene" and len(chipset.scenes) >= len(SPLITS)
        log.warning(
            "no chip is in %s so far; add scenes that fill them%s", " and ".join(empty),
            ", or give the split of each with --split-by file: those that overlap share one" if overlap else "",
        )  # fmt: skip
    train, others = index.of_split("train"), index.rows(index["split"] != "train")
    ground = float(others["valid"].sum()) or 1.0
    for side in SIDES:
        missing = {}
        for name, column in _class_columns(chipset, index, side).items():
            if column not in train or not (train[column] > 0).any():
                share = float((others["valid"] * others[column]).sum()) / ground if column in others else 0.0
                missing[name] = f"{name} ({100 * share:.3g}% of the ground of val and test)" if share else name
        if missing:
            log.warning("no training chip holds the %s class %s", side, ", ".join(missing.values()))


def _frequent(chipset: ChipSet, index: ChipTable) -> dict[str, str]:
    """Index columns of the most frequent classes, by the name of the class, with its side where both hold classes."""
    both = all(chipset.encoding(side).is_classes for side in SIDES)
    result = {}
    for side in SIDES:
        found = _class_columns(chipset, index, side)
        ground = {
            name: float((index["valid"] * index[column]).sum()) for name, column in found.items() if column in index
        }
        for name in sorted(ground, key=lambda name: -ground[name])[:CLASSES_SHOWN]:
            result[f"{side} {name}" if both else name] = found[name]
    return result
