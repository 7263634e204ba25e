"""Chips enlarged, cropped, turned and mirrored, a batch at a time, on the device they lie on.

The draw of a chip is a function of seed, epoch and place in the epoch alone: neither the batch that it is part of nor
the device changes it.
"""

import logging
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from geop2p.config import Kind
from geop2p.tiling.chips import ChipSet
from geop2p.training.data import Indices
from geop2p.training.recipes import Recipe

log = logging.getLogger(__name__)

BLOCK = 1024  # places in the epoch whose draws are made together
ONE_SIDED: dict[Kind, str] = {  # turning a chip changes what it, or the other side, shows
    "sar": "radar looks from one side",
    "elevation": "relief is lit from one side wherever imagery shows it",
}


@dataclass(frozen=True)
class Augmentation:
    """What is drawn.

    Attributes:
        seed: Of the training.
        jitter: Factor of the enlargement before the crop.
        flip: Whether to mirror half of the chips left to right.
        d4: Whether to draw one of the eight turns and mirror images of a square.
    """

    seed: int
    jitter: float = 1.0
    flip: bool = False
    d4: bool = False

    def draw(self, places: Indices, epoch: int, size: int) -> "Draws":
        """The draws for some chips.

        Args:
            places: Of the chips in the order of the epoch; a chip that is drawn twice has two.
            epoch: Counted from 0.
            size: Side of a chip in pixels.
        """
        large = round(size * self.jitter)
        drawn = [_block(self.seed, epoch, int(place) // BLOCK)[int(place) % BLOCK] for place in places]
        numbers = np.array(drawn).reshape(-1, 5)
        offsets = (numbers[:, :2] * (large - size + 1)).astype(np.int64)
        turns = numbers[:, 2:] < (0.5 if self.d4 else 0)
        if self.flip and not self.d4:
            turns[:, 2] = numbers[:, 2] < 0.5
        return Draws(size, large, offsets, turns)


@lru_cache(maxsize=16)
def _block(seed: int, epoch: int, block: int) -> npt.NDArray[np.float64]:
    """Numbers for the chips of a block: to begin a generator takes as long as to turn a chip."""
    return np.random.default_rng([seed, epoch, block, 1]).random((BLOCK, 5))


def augmentation_of(chipset: ChipSet, recipe: Recipe, seed: int) -> Augmentation:
    """What a recipe draws for the chips of a set: only what both sides bear."""
    reasons = one_sided(chipset)
    if reasons and (recipe.flip or recipe.d4):
        log.info("chips are not turned or mirrored: %s", " and ".join(reasons))
    return Augmentation(seed, recipe.jitter, recipe.flip and not reasons, recipe.d4 and not reasons)


def one_sided(chipset: ChipSet) -> list[str]:
    """Why the chips of a set must not be turned; empty where they may be."""
    return [reason for kind, reason in ONE_SIDED.items() if kind in (chipset.source.kind, chipset.target.kind)]


@dataclass(frozen=True)
class Draws:
    """How the chips of a batch change: first they are turned, then enlarged and cropped.

    Attributes:
        size: Side of a chip in pixels.
        large: Its side when enlarged.
        offsets: (batch, 2), row and column of the crop in the enlarged chip.
        turns: (batch, 3), whether to exchange rows and columns, then to mirror top to bottom, then left to right;
            together the eight elements of the dihedral group D4.
    """

    size: int
    large: int
    offsets: Indices
    turns: npt.NDArray[np.bool_]

    @property
    def resizes(self) -> bool:
        """Whether chips are enlarged."""
        return self.large > self.size

    def of(self, row: int) -> "Draws":
        """Those of one chip of the batch."""
        return Draws(self.size, self.large, self.offsets[row : row + 1], self.turns[row : row + 1])

    def turn(self, images: Tensor) -> Tensor:
        """Turn and mirror (batch, channels, size, size)."""
        if self.turns[:, 0].any():
            images = _where(self.turns[:, 0], images.transpose(-2, -1), images)
        for column, axis in ((1, -2), (2, -1)):
            if self.turns[:, column].any():
                images = _where(self.turns[:, column], images.flip(axis), images)
        return images

    def sample(self, images: list[Tensor]) -> list[Tensor]:
        """The crops of floats (batch, channels, size, size), enlarged by bilinear interpolation."""
        device, count = images[0].device, len(self.offsets)
        places = to_device(((2 * self._wanted + 1) / self.large - 1).astype(np.float32), device)  # from -1 to 1
        grid = torch.empty((count, self.size, self.size, 2), device=device)
        grid[..., 0], grid[..., 1] = places[:, 1, None, :], places[:, 0, :, None]
        return [functional.grid_sample(image, grid, padding_mode="border", align_corners=False) for image in images]

    def pick(self, images: Tensor) -> Tensor:
        """The crops of (batch, 1, size, size) of any type, enlarged by nearest neighbour."""
        return _gather(images, (2 * self._wanted + 1) * self.size // (2 * self.large))

    def keep(self, valid: Tensor) -> Tensor:
        """Where the crops that `sample` makes stand on true pixels alone, of bools (batch, 1, size, size)."""
        padded = functional.pad(valid, (1, 1, 1, 1), value=True)
        rows = padded[..., 1:, :] & padded[..., :-1, :]
        pairs = rows[..., 1:] & rows[..., :-1]  # the first of them is of the pixel before the first, and the first
        return _gather(pairs, ((2 * self._wanted + 1) * self.size - self.large) // (2 * self.large) + 1)

    @property
    def _wanted(self) -> Indices:
        """Rows and columns (batch, 2, size) of the crops in the enlarged chips."""
        return self.offsets[:, :, np.newaxis] + np.arange(self.size)


def _gather(images: Tensor, places: Indices) -> Tensor:
    """The pixels of (batch, 1, side, side) at rows and columns (batch, 2, size)."""
    batch, _, size = places.shape
    chosen = to_device(places, images.device)
    flat = chosen[:, 0, :, None] * images.shape[-1] + chosen[:, 1, None, :]
    return images.flatten(1).gather(1, flat.flatten(1)).view(batch, 1, size, size)


def turned(image: Tensor, turn: list[bool]) -> Tensor:
    """One image (..., size, size) as `Draws.turn` turns it.

    Args:
        image: Of any type.
        turn: Its row of `Draws.turns`.
    """
    if turn[0]:
        image = image.transpose(-2, -1).contiguous()
    if turn[1] or turn[2]:
        image = image.flip([axis for axis, mirrored in ((-2, turn[1]), (-1, turn[2])) if mirrored])
    return image


def to_device(values: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """A small array on a device; a GPU is not waited for."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _where(chosen: npt.NDArray[np.bool_], changed: Tensor, images: Tensor) -> Tensor:
    if chosen.all():
        return changed.contiguous()
    return torch.where(to_device(chosen, images.device).view(-1, 1, 1, 1), changed, images)
