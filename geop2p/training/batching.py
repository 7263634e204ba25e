"""Batches for the networks, made of stored chips: on a device a whole batch at once, on the host chip after chip."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geop2p.raster.encoding import Encoding
from geop2p.training.augmentation import Augmentation, Draws, turned
from geop2p.training.data import Batch, Indices
from geop2p.training.encoder import BatchEncoder, as_stored, blank


@dataclass(frozen=True)
class Stored:
    """Chips of a batch as they are stored.

    Attributes:
        source: (batch, bands, rows, cols), as `as_tensor` gives them.
        target: The same.
        valid: Bool (batch, 1, rows, cols); None: all of it.
    """

    source: Tensor
    target: Tensor
    valid: Tensor | None

    def to(self, device: torch.device) -> "Stored":
        """The batch on a device; a GPU is not waited for, where the batch lies in pinned memory."""
        valid = None if self.valid is None else self.valid.to(device, non_blocking=True)
        return Stored(self.source.to(device, non_blocking=True), self.target.to(device, non_blocking=True), valid)

    def part(self, start: int, stop: int) -> "Stored":
        """A batch of some of the chips, which lie on the host."""
        chosen = slice(start, stop)
        valid = None if self.valid is None or self.valid[chosen].numpy().all() else self.valid[chosen]
        return Stored(self.source[chosen], self.target[chosen], valid)


class BatchMaker:
    """Encodes and augments batches of stored chips on the device that they lie on.

    Args:
        source: Encoding of the source.
        target: Encoding of the target.
        device: Where the chips lie.
        augmentation: What is drawn; None: chips stay as they are.
    """

    def __init__(
        self, source: Encoding, target: Encoding, device: torch.device, augmentation: Augmentation | None = None
    ) -> None:
        self._encoders = (BatchEncoder(source, device), BatchEncoder(target, device))
        self._augmentation = augmentation

    def __call__(self, stored: Stored, places: Indices, epoch: int = 0) -> Batch:
        """A batch for the networks.

        Classes are enlarged by nearest neighbour, all else bilinear; a pixel stays valid only if all that it is made
        of was.

        Args:
            stored: The chips.
            places: Theirs in the order of the epoch.
            epoch: Counted from 0.
        """
        maps = [encoder.encoding.is_classes for encoder in self._encoders]
        sides, valid, draws = [stored.source, stored.target], stored.valid, None
        if self._augmentation is not None:
            draws = self._augmentation.draw(places, epoch, stored.source.shape[-1])
            sides, valid = [draws.turn(side) for side in sides], None if valid is None else draws.turn(valid)
        for number, (encoder, is_map) in enumerate(zip(self._encoders, maps, strict=True)):
            if not is_map:
                sides[number] = encoder.scaled(sides[number])
        if draws is not None and draws.resizes:
            if valid is not None:
                blank([side for side, is_map in zip(sides, maps, strict=True) if not is_map], valid)
            sides, valid = _enlarge(draws, sides, maps, valid)
        for number, (encoder, is_map) in enumerate(zip(self._encoders, maps, strict=True)):
            if is_map:
                sides[number] = encoder.one_hot(sides[number])
        if valid is None:
            return Batch(sides[0], sides[1], torch.ones_like(sides[0][:, :1]))
        blank(sides, valid)
        return Batch(sides[0], sides[1], valid.view(torch.uint8).float())  # of bools it takes seven times as long


class HostMaker:
    """What `BatchMaker` does, on the host: chip after chip, so that what is made of one stays in the processor's cache.

    Args:
        source: Encoding of the source.
        target: Encoding of the target.
        size: Side of a chip in pixels.
        augmentation: What is drawn; None: chips stay as they are.
    """

    def __init__(self, source: Encoding, target: Encoding, size: int, augmentation: Augmentation | None = None) -> None:
        self._encodings, self._augmentation = (source, target), augmentation
        self._everywhere = np.ones((size, size), bool)

    def room(self, chips: int) -> Batch:
        """Memory for a batch."""
        source, target = self._encodings
        return Batch.empty(chips, (source.channels, target.channels), len(self._everywhere))

    def __call__(self, stored: Stored, places: Indices, epoch: int, into: Batch) -> None:
        """Make a batch in the memory of `into`."""
        draws = None
        if self._augmentation is not None:
            draws = self._augmentation.draw(places, epoch, len(self._everywhere))
        whole, weights = (into.source.numpy(), into.target.numpy()), into.valid.numpy()
        for row in range(len(places)):
            sides, valid = [stored.source[row], stored.target[row]], None
            if stored.valid is not None and not stored.valid[row].numpy().all():
                valid = stored.valid[row]
            if draws is not None:
                turn = draws.turns[row].tolist()
                sides, valid = [turned(side, turn) for side in sides], None if valid is None else turned(valid, turn)
            images = [image[row] for image in whole]
            if draws is not None and draws.resizes:
                valid = self._enlarged(draws.of(row), sides, valid, images)
            else:
                for encoding, side, image in zip(self._encodings, sides, images, strict=True):
                    self._encode(encoding, side, valid, image)
            weights[row] = 1 if valid is None else valid.numpy()

    def _enlarged(
        self, draws: Draws, sides: list[Tensor], valid: Tensor | None, images: list[npt.NDArray[np.float32]]
    ) -> Tensor | None:
        """Encode, enlarge and crop both sides of a chip into `images`; returns the valid pixels of the crop."""
        maps = [encoding.is_classes for encoding in self._encodings]
        for number, (encoding, is_map) in enumerate(zip(self._encodings, maps, strict=True)):
            if not is_map:
                encoded = np.empty(images[number].shape, np.float32)
                self._encode(encoding, sides[number], valid, encoded)
                sides[number] = torch.from_numpy(encoded)
        crops, kept = _enlarge(draws, [side[None] for side in sides], maps, None if valid is None else valid[None])
        for encoding, is_map, crop, image in zip(self._encodings, maps, crops, images, strict=True):
            if is_map:
                self._encode(encoding, crop[0], None if kept is None else kept[0], image)
                continue
            if kept is not None:
                blank([crop], kept)
            np.copyto(image, crop[0].numpy())
        return None if kept is None else kept[0]

    def _encode(self, encoding: Encoding, side: Tensor, valid: Tensor | None, into: npt.NDArray[np.float32]) -> None:
        """Encode the stored values of one chip."""
        known = self._everywhere if valid is None else valid[0].numpy()
        encoding.encode(as_stored(side, encoding.dtype), known, into)


def _enlarge(
    draws: Draws, sides: list[Tensor], maps: list[bool], valid: Tensor | None
) -> tuple[list[Tensor], Tensor | None]:
    """Crops of both sides and of the valid pixels."""
    images = [side for side, is_map in zip(sides, maps, strict=True) if not is_map]
    sampled = iter(draws.sample(images) if images else [])
    enlarged = [draws.pick(side) if is_map else next(sampled) for side, is_map in zip(sides, maps, strict=True)]
    if valid is not None:
        valid = draws.keep(valid) if images else draws.pick(valid)
    return enlarged, valid
