"""Chips in memory, and batches of them: order and augmentation are functions of seed, epoch and place alone."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from geop2p.config import Split
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.packed import PackedMasks, map_split

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChipArrays:
    """All chips of one split as they are stored: in memory, or mapped from packed files.

    Attributes:
        ids: Their names.
        source: (chips, bands, rows, cols).
        target: (chips, bands, rows, cols).
        valid: (chips, rows, cols).
        weights: float32 (chips), how often each is to be drawn, mean 1.
    """

    ids: list[str]
    source: Array
    target: Array
    valid: Mask | PackedMasks
    weights: npt.NDArray[np.float32]

    @classmethod
    def load(cls, chipset: ChipSet, split: Split, progress: bool = False) -> Self:
        """Read every chip of a split once.

        Raises:
            ChipSetError: The chip set is not finished, or a chip is not what it promises.
        """
        chipset.check_finished()
        entries = chipset.entries(split)
        ids = [entry.id for entry in entries]
        weights = np.array([entry.weight for entry in entries], np.float32)
        if chipset.layout == "packed":
            return cls(ids, *map_split(chipset, split), weights)
        side, size = len(ids), chipset.size
        source = np.zeros((side, len(chipset.source.bands), size, size), chipset.source.dtype)
        target = np.zeros((side, len(chipset.target.bands), size, size), chipset.target.dtype)
        valid = np.zeros((side, size, size), bool)
        with chipset.reader(split) as reader:
            for row in tqdm(range(side), desc=f"read {split}", unit="chip", disable=not progress):
                chip = reader.read(row)
                source[row], target[row], valid[row] = chip.source, chip.target, chip.valid
        return cls(ids, source, target, valid, weights)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    """Encoded chips for the networks.

    Attributes:
        source: float32 (batch, channels, rows, cols).
        target: float32 (batch, channels, rows, cols).
        valid: float32 (batch, 1, rows, cols), 0 or 1.
    """

    source: Tensor
    target: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(self.source.to(device), self.target.to(device), self.valid.to(device))


def encode_batch(arrays: ChipArrays, rows: Indices, source: Encoding, target: Encoding) -> Batch:
    """Encode some chips as they are."""
    sides = []
    for values, encoding in ((arrays.source, source), (arrays.target, target)):
        sides.append(np.stack([encoding.encode(values[row], arrays.valid[row]) for row in rows]))
    valid = torch.from_numpy(arrays.valid[rows].astype(np.float32))[:, None]
    return Batch(torch.from_numpy(sides[0]), torch.from_numpy(sides[1]), valid)


def epoch_order(seed: int, epoch: int, chips: int, weights: npt.NDArray[np.float32] | None = None) -> Indices:
    """A permutation of the chips, or as many draws in proportion to weights.

    Draws are systematic: marks at equal distances, with one random start, on the weights laid end to end in random
    order. A chip of w times the mean weight is drawn w times rounded down or up, w times in the mean; equal weights
    give a permutation.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(chips)
    if weights is None:
        return order
    ends = np.cumsum(weights[order], dtype=np.float64)
    marks = (np.arange(chips) + random.random()) * (ends[-1] / chips)
    return random.permutation(order[np.minimum(np.searchsorted(ends, marks, side="right"), chips - 1)])


def augment(
    batch: Batch,
    places: Indices,
    seed: int,
    epoch: int,
    jitter: float,
    flip: bool,
    classes: tuple[bool, bool],
    d4: bool = False,
) -> Batch:
    """Enlarge, crop and mirror a batch; the draw depends on seed, epoch and place alone.

    Classes are enlarged by nearest neighbour, all else bilinear; a pixel stays valid only if all that it is
    made of was.

    Args:
        batch: Encoded chips.
        places: Theirs in the order of the epoch; a chip that is drawn twice has two.
        seed: Of the training.
        epoch: Counted from 0.
        jitter: Factor of the enlargement before the crop.
        flip: Whether to mirror half of the chips.
        classes: Whether source and target are maps of classes.
        d4: Whether to draw one of the eight turns and mirror images of a square.
    """
    size = batch.valid.shape[-1]
    large = round(size * jitter)
    source = _enlarge(batch.source, large, classes[0])
    target = _enlarge(batch.target, large, classes[1])
    holes = _enlarge(1 - batch.valid, large, nearest=all(classes))
    everything = torch.cat([source, target, holes], dim=1)
    crops = []
    for image, place in zip(everything, places, strict=True):
        draw = np.random.default_rng([seed, epoch, int(place), 1])
        top, left = (int(value) for value in draw.integers(0, large - size + 1, 2))
        crop = image[:, top : top + size, left : left + size]
        crop = crop.flip(-1) if flip and draw.random() < 0.5 else crop
        crops.append(_turned(crop, int(draw.integers(8))) if d4 else crop)
    stacked = torch.stack(crops)
    source, target, holes = torch.split(stacked, [source.shape[1], target.shape[1], 1], dim=1)
    valid = (holes == 0).float()
    return Batch(source * valid, target * valid, valid)


def _turned(image: Tensor, element: int) -> Tensor:
    """An element of the dihedral group D4: quarter turns, and from the fifth on mirrored first."""
    return torch.rot90(image.flip(-1) if element >= 4 else image, element % 4, (-2, -1))


def _enlarge(image: Tensor, side: int, nearest: bool) -> Tensor:
    if side == image.shape[-1]:
        return image
    if nearest:
        return functional.interpolate(image, (side, side), mode="nearest-exact")
    return functional.interpolate(image, (side, side), mode="bilinear", align_corners=False)


def batches(order: Indices, size: int) -> list[Indices]:
    """An order cut into pieces of a size; the last may be smaller."""
    return [order[start : start + size] for start in range(0, len(order), size)]
