"""Chips as they are stored, and the order of an epoch, which is a function of seed and epoch alone."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from geop2p.config import Split
from geop2p.errors import ChipSetError, RasterError
from geop2p.raster.encoding import Array, Mask
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.packed import PackedMasks, map_split
from geop2p.training.caching import check_fits

log = logging.getLogger(__name__)

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
    def load(
        cls,
        chipset: ChipSet,
        split: Split,
        progress: bool = False,
        skip_bad: bool | None = None,
        cache: Path | None = None,
    ) -> Self:
        """Read every chip of a split once.

        Args:
            chipset: Whose chips.
            split: Which of them.
            progress: Show a progress bar.
            skip_bad: Leave out chips that cannot be used, and log which; packed ones are mapped, not looked at. None:
                nobody can ask for that.
            cache: Folder that has the chips as packed arrays; None: they come from the chip set.

        Raises:
            ChipSetError: The chip set is not finished, a chip is not what it promises, or they do not fit into memory.
        """
        chipset.check_finished()
        entries = chipset.entries(split)
        ids = [entry.id for entry in entries]
        weights = np.array([entry.weight for entry in entries], np.float32)
        if cache is not None:
            return cls(ids, *map_split(dataclasses.replace(chipset, folder=cache, layout="packed"), split), weights)
        if chipset.layout == "packed":
            return cls(ids, *map_split(chipset, split), weights)
        check_fits(chipset, split)
        side, size = len(ids), chipset.size
        source = np.zeros((side, len(chipset.source.bands), size, size), chipset.source.dtype)
        target = np.zeros((side, len(chipset.target.bands), size, size), chipset.target.dtype)
        valid = np.zeros((side, size, size), bool)
        bad: list[str] = []
        with chipset.reader(split) as reader:
            for row in tqdm(range(side), desc=f"read {split}", unit="chip", disable=not progress):
                try:
                    chip = reader.read(row)
                except (ChipSetError, RasterError) as error:
                    if not skip_bad:
                        way_out = "cut the chips again" if skip_bad is None else "--skip-bad leaves such chips out"
                        raise ChipSetError(f"{error}; {way_out}") from error
                    bad.append(ids[row])
                    continue
                source[row], target[row], valid[row] = chip.source, chip.target, chip.valid
        arrays = cls(ids, source, target, valid, weights)
        return arrays._without(bad, chipset, split) if bad else arrays

    def _without(self, bad: list[str], chipset: ChipSet, split: Split) -> Self:
        log.warning("%s: left out %d of %d %s chips: %s", chipset.folder, len(bad), len(self), split, ", ".join(bad))
        good = np.flatnonzero(~np.isin(self.ids, bad))
        if not len(good):
            raise ChipSetError(f"{chipset.folder}: none of the {len(self)} {split} chips can be used; tile again")
        arrays = (self.source[good], self.target[good], self.valid[good], self.weights[good])
        return type(self)([self.ids[row] for row in good], *arrays)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes that the chips take where each valid pixel is one."""
        return self.source.nbytes + self.target.nbytes + len(self) * int(np.prod(self.source.shape[2:]))


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

    @classmethod
    def empty(cls, chips: int, channels: tuple[int, int], size: int) -> "Batch":
        """Memory for a batch on the host.

        Args:
            chips: How many.
            channels: Of source and target.
            size: Side of a chip in pixels.
        """
        return cls(*(torch.empty(chips, count, size, size) for count in (*channels, 1)))

    def part(self, start: int, stop: int) -> "Batch":
        """Some of the chips, in the same memory."""
        return Batch(self.source[start:stop], self.target[start:stop], self.valid[start:stop])

    def blinded(self) -> "Batch":
        """The batch with nothing valid: it adds nothing to a loss, while norms see ground rather than zeros."""
        return Batch(self.source, self.target, torch.zeros_like(self.valid))

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(self.source.to(device), self.target.to(device), self.valid.to(device))


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


def batches(order: Indices, size: int) -> list[Indices]:
    """An order cut into pieces of a size; the last may be smaller."""
    return [order[start : start + size] for start in range(0, len(order), size)]
