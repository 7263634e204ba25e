"""From stored chips to batches for the networks: where the chips lie, and how batches are made of them.

Chips keep their stored type until they are on the device; there a whole batch is turned, encoded, enlarged and cropped
at once. They lie on the device where a bounded share of its memory holds them, else on the host, from where a thread
fetches the next batches while the networks work on this one.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geop2p.raster.encoding import Array, Encoding
from geop2p.training.augmentation import Augmentation, Draws, to_device, turned
from geop2p.training.data import Batch, ChipArrays, Indices
from geop2p.training.encoder import BatchEncoder, as_stored, as_tensor, blank

DEVICE_SHARE = 0.3  # of the free memory of a device, for chips
AHEAD = 2  # fetches that are under way before they are asked for
TOGETHER = 8  # chips of a fetch of small batches: handing one over from a thread takes as long as encoding half a chip
LOT = 4 * 2**20  # bytes of such a fetch, unless one batch has more
PIECE = 256  # chips that are put on the device at once


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
        whole = ((into.source.numpy(), into.target.numpy()), into.valid.numpy())
        for row in range(len(places)):
            sides, valid = [stored.source[row], stored.target[row]], None
            if stored.valid is not None and not stored.valid[row].numpy().all():
                valid = stored.valid[row]
            if draws is not None:
                turn = draws.turns[row].tolist()
                sides, valid = [turned(side, turn) for side in sides], None if valid is None else turned(valid, turn)
            images = [image[row] for image in whole[0]]
            if draws is not None and draws.resizes:
                valid = self._enlarged(draws.of(row), sides, valid, images)
            else:
                for encoding, side, image in zip(self._encodings, sides, images, strict=True):
                    self._encode(encoding, side, valid, image)
            whole[1][row] = 1 if valid is None else valid.numpy()

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


class Chips(Protocol):
    """Where chips come from."""

    def fetch(self, rows: Indices) -> Stored:
        """The chips of some rows of the split."""


class HostChips:
    """Chips in memory or mapped from disk.

    Args:
        arrays: The chips.
        pinned: Fetch them into memory that a GPU copies from without being waited for.
    """

    def __init__(self, arrays: ChipArrays, pinned: bool = False) -> None:
        self._arrays, self._pinned = arrays, pinned

    def fetch(self, rows: Indices) -> Stored:
        """See `Chips`."""
        valid = self._arrays.valid[rows]
        mask = None if valid.all() else self._tensor(valid[:, np.newaxis])
        return Stored(self._tensor(self._arrays.source[rows]), self._tensor(self._arrays.target[rows]), mask)

    def _tensor(self, values: Array) -> Tensor:
        tensor = as_tensor(values)
        return tensor.pin_memory() if self._pinned else tensor


class DeviceChips:
    """Chips that all lie on the device.

    Args:
        arrays: The chips.
        device: Where to put them.
    """

    def __init__(self, arrays: ChipArrays, device: torch.device) -> None:
        host, count = HostChips(arrays), len(arrays)
        self._device, self._whole = device, np.ones(count, bool)
        first = host.fetch(np.arange(min(1, count)))
        self._source, self._target = (
            torch.empty((count, *side.shape[1:]), dtype=side.dtype, device=device)
            for side in (first.source, first.target)
        )
        self._valid = torch.ones((count, 1, *first.source.shape[2:]), dtype=torch.bool, device=device)
        for start in range(0, count, PIECE):
            rows = np.arange(start, min(start + PIECE, count))
            piece, part = host.fetch(rows), slice(start, start + len(rows))
            self._source[part], self._target[part] = piece.source, piece.target
            if piece.valid is not None:
                self._valid[part] = piece.valid.to(device)
                self._whole[part] = piece.valid.flatten(1).all(dim=1).numpy()

    def fetch(self, rows: Indices) -> Stored:
        """See `Chips`."""
        chosen = to_device(rows, self._device)
        valid = None if self._whole[rows].all() else self._valid.index_select(0, chosen)
        return Stored(self._source.index_select(0, chosen), self._target.index_select(0, chosen), valid)


class Feed:
    """The chips of a split as batches on a device.

    Args:
        arrays: The chips.
        source: Encoding of the source.
        target: Encoding of the target.
        device: Where batches are wanted.
        augmentation: What is drawn; None: chips stay as they are.

    Attributes:
        place: Where the chips lie: device, memory or disk.
    """

    def __init__(
        self,
        arrays: ChipArrays,
        source: Encoding,
        target: Encoding,
        device: torch.device,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.device = device
        on_device = device.type == "cuda"  # encoding takes float64, which Apple's GPUs lack
        self._maker = BatchMaker(source, target, device, augmentation) if on_device else None
        self._host = HostMaker(source, target, arrays.source.shape[-1], augmentation)
        a_chip = arrays.nbytes // max(1, len(arrays))
        self._together = min(max(1, LOT // max(1, a_chip)), TOGETHER)
        fits = on_device and arrays.nbytes <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
        self._chips: Chips = DeviceChips(arrays, device) if fits else HostChips(arrays, on_device)
        self.place = "device" if fits else ("disk" if isinstance(arrays.source, np.memmap) else "memory")

    def batch(self, rows: Indices, places: Indices, epoch: int = 0) -> Batch:
        """The batch of some rows of the split, whose places in the order of the epoch decide their augmentation."""
        return self._finish(self._chips.fetch(rows), places, epoch, self._host.room(len(places)))

    def stream(self, pieces: Iterable[tuple[Indices, Indices]], epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, each given by its rows and places, in order.

        Chips that have to come from disk, or from the host to a GPU, are fetched ahead by a thread, those of small
        batches together. A batch on the host is to be used, or copied, before the next one is asked for, which takes
        its memory: new memory for every batch takes a fifth of the time that making it does.
        """
        room: Batch | None = None
        with closing(self._fetched(pieces)) as fetched:
            for stored, places in fetched:
                if room is None or len(room.source) < len(places):
                    room = self._host.room(len(places))
                yield self._finish(stored, places, epoch, room)

    def _fetched(self, pieces: Iterable[tuple[Indices, Indices]]) -> Generator[tuple[Stored, Indices]]:
        """The stored chips of every piece, and its places."""
        if self.place == "device" or (self.place == "memory" and self._maker is None):
            yield from ((self._chips.fetch(rows), places) for rows, places in pieces)
            return
        waiting: deque[tuple[Future[Stored], list[Indices]]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="chips")
        try:
            for group in _together(pieces, self._together):
                rows = np.concatenate([some for some, _ in group])
                waiting.append((pool.submit(self._chips.fetch, rows), [places for _, places in group]))
                if len(waiting) > AHEAD:
                    yield from _apart(*waiting.popleft())
            for fetched, theirs in waiting:
                yield from _apart(fetched, theirs)
        finally:
            pool.shutdown(cancel_futures=True)

    def _finish(self, stored: Stored, places: Indices, epoch: int, room: Batch) -> Batch:
        if self._maker is not None:
            return self._maker(stored.to(self.device), places, epoch)
        batch = room.part(0, len(places))
        self._host(stored, places, epoch, batch)
        return batch.to(self.device)


def _apart(fetched: Future[Stored], theirs: list[Indices]) -> Iterator[tuple[Stored, Indices]]:
    """The chips of a group as those of its pieces."""
    stored, start = fetched.result(), 0
    for places in theirs:
        yield stored.part(start, start + len(places)), places
        start += len(places)


def _together(pieces: Iterable[tuple[Indices, Indices]], chips: int) -> Iterator[list[tuple[Indices, Indices]]]:
    """Pieces in groups of at least so many chips; the last group may have fewer."""
    group: list[tuple[Indices, Indices]] = []
    for piece in pieces:
        group.append(piece)
        if sum(len(rows) for rows, _ in group) >= chips:
            yield group
            group = []
    if group:
        yield group


def encode_batch(arrays: ChipArrays, rows: Indices, source: Encoding, target: Encoding) -> Batch:
    """Some chips as they are, encoded on the host."""
    host = torch.device("cpu")
    return Feed(arrays, source, target, host).batch(rows, rows)
