"""The chips of a split that models are scored on, with their blocks and their distance from the training chips."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geop2p.config import Split
from geop2p.errors import ChipSetError
from geop2p.raster.class_table import listed
from geop2p.raster.encoding import Encoding, MapClass
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.unseen import class_shares, unseen_classes, with_classes
from geop2p.training.data import ChipArrays, Indices

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredChips:
    """Chips to score on.

    Attributes:
        split: Of the chip set.
        size: Side of a chip in pixels.
        source: Encoding of the models' source.
        target: Encoding of the models' target.
        scored: The same with the classes that only other chips than the training's hold, whose ground is always wrong.
        arrays: All chips of the split.
        rows: Those that are scored, rows of `arrays`.
        blocks: Scene and block of each chip of the split.
        notes: What a reader of the scores should know of them.
        distances: Pixels between each chip of the split and the nearest training chip of its scene; infinite without.
        doubt: Why their ground may be known to the models; None where it is not.
    """

    split: Split
    size: int
    source: Encoding
    target: Encoding
    scored: Encoding
    arrays: ChipArrays
    rows: Indices
    blocks: list[str]
    notes: list[str]
    distances: npt.NDArray[np.float64]
    doubt: str | None = None


def check_split(chipset: ChipSet, split: Split) -> None:
    """Refuse a split without chips.

    Raises:
        ChipSetError: The split has no chips.
    """
    if not chipset.counts[split]:
        there = ", ".join(f"{name} has {count}" for name, count in chipset.counts.items() if count)
        raise ChipSetError(f"{chipset.folder}: has no {split} chips ({there}); choose with --split")


def load_scored_chips(
    chipset: ChipSet,
    sides: tuple[Encoding, Encoding],
    split: Split,
    sample: int | None,
    doubt: str | None = None,
    progress: bool = False,
) -> ScoredChips:
    """Read the chips of a split; with `sample` at most so many of them are scored, spread evenly.

    Args:
        chipset: Where they lie.
        sides: Encodings of source and target in the models.
        split: Which of them.
        sample: At most so many; None: all.
        doubt: Why their ground may be known to the models; None where it is not.
        progress: Show a progress bar.

    Raises:
        ChipSetError: The split has none.
    """
    check_split(chipset, split)
    arrays = ChipArrays.load(chipset, split, progress)
    count = min(sample or len(arrays), len(arrays))
    notes = [] if doubt is None else [doubt]
    if sample is not None and count < sample:
        notes.append(f"{chipset.folder} has {count} {split} chips, {sample} were asked for; all are scored.")
        log.warning(notes[-1])
    unseen = unseen_classes(chipset, sides[1], split)
    notes += _told_of(unseen, "can draw it, and its ground counts as wrong")
    notes += _told_of(_unseen_sources(chipset, sides[0], split), "knows what to draw there")
    index = chipset.table()
    blocks = dict(zip(index["id"], index["scene"] + ":" + index["block"], strict=True))
    rows = np.linspace(0, len(arrays) - 1, count).round().astype(np.int64)
    distances = _distances(chipset, split)
    places = [blocks[name] for name in arrays.ids]
    scored = with_classes(sides[1], (entry for entry, _ in unseen))
    return ScoredChips(split, chipset.size, *sides, scored, arrays, rows, places, notes, distances, doubt)


def _unseen_sources(chipset: ChipSet, source: Encoding, split: Split) -> list[tuple[MapClass, float]]:
    """Source classes of a split that the models do not know, each with its share, but those that mean unlabelled.

    Raises:
        ChipSetError: They know none of the split's.
    """
    if not source.is_classes:
        return []
    ignored = {entry.value for entry in (*source.ignored, *chipset.source.ignored)}
    shares = class_shares(chipset, "source", split)
    there = [entry for entry, share in shares.items() if share and entry.value not in ignored]
    known = {entry.value for entry in source.classes}
    unseen = [entry for entry in there if entry.value not in known]
    if there and len(unseen) == len(there):
        found, expected = (listed(f"{entry.value} {entry.name}" for entry in one) for one in (there, source.classes))
        raise ChipSetError(
            f"{chipset.folder}: source has the classes {found}, the model knows {expected}; recode the map and tile it "
            "again"
        )
    return [(entry, shares[entry]) for entry in unseen]


def _told_of(unseen: Iterable[tuple[MapClass, float]], so: str) -> list[str]:
    """A note on classes that the models cannot know, where the split holds any of them."""
    told = ", ".join(f"{entry.name} ({100 * share:.3g} % of the ground)" for entry, share in unseen if share)
    return [f"No chip that was trained on holds {told}: no model {so}."] if told else []


def _distances(chipset: ChipSet, split: Split) -> npt.NDArray[np.float64]:
    """Pixels between each chip of a split and the nearest training chip of its scene, rows or columns, the more."""
    training: dict[str, npt.NDArray[np.float64]] = {}
    for scene in chipset.scenes:
        places = [(entry.row_off, entry.col_off) for entry in chipset.entries("train") if entry.scene == scene.id]
        training[scene.id] = np.array(places, np.float64).reshape(-1, 2)
    found = []
    for entry in chipset.entries(split):
        apart = np.abs(training[entry.scene] - (entry.row_off, entry.col_off)).max(axis=1, initial=0.0)
        found.append(max(0.0, float(apart.min()) - chipset.size) if len(apart) else np.inf)
    return np.array(found)
