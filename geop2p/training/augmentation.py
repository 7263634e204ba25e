"""Chips enlarged, cropped, turned and mirrored, a batch at a time, on the device they lie on.

The draw of a chip is a function of seed, epoch and place in the epoch alone: neither the batch that it is part of nor
the device changes it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from geop2p.training.data import Indices


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
        offsets = np.zeros((len(places), 2), np.int64)
        turns = np.zeros((len(places), 3), bool)
        for number, place in enumerate(places):
            random = np.random.default_rng([self.seed, epoch, int(place), 1])
            offsets[number] = random.integers(0, large - size + 1, 2)
            if self.flip:
                turns[number, 2] = random.random() < 0.5
            if self.d4:
                turns[number] ^= random.integers(0, 2, 3).astype(bool)
        return Draws(size, large, offsets, turns)


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
        wanted = self.offsets[:, :, np.newaxis] + np.arange(self.size)
        places = to_device(((2 * wanted + 1) / self.large - 1).astype(np.float32), device)  # the chip is from -1 to 1
        grid = torch.empty((count, self.size, self.size, 2), device=device)
        grid[..., 0], grid[..., 1] = places[:, 1, None, :], places[:, 0, :, None]
        return [functional.grid_sample(image, grid, padding_mode="border", align_corners=False) for image in images]

    def pick(self, images: Tensor) -> Tensor:
        """The crops of (batch, 1, size, size) of any type, enlarged by nearest neighbour."""
        wanted = self.offsets[:, :, np.newaxis] + np.arange(self.size)
        nearest = to_device((2 * wanted + 1) * self.size // (2 * self.large), images.device)
        flat = nearest[:, 0, :, None] * self.size + nearest[:, 1, None, :]
        return images.flatten(1).gather(1, flat.flatten(1)).view(images.shape)


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
