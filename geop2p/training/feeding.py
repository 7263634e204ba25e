"""From stored chips to batches for the networks: where the chips lie, and when they are fetched.

They lie on the device where a bounded share of its memory holds them, else on the host, from where a thread fetches the
next batches while the networks work on this one. Until then they keep their stored type.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from geop2p.raster.encoding import Array, Encoding
from geop2p.training.augmentation import Augmentation, to_device
from geop2p.training.batching import BatchMaker, HostMaker, Stored
from geop2p.training.data import Batch, ChipArrays, Indices
from geop2p.training.encoder import as_tensor

DEVICE_SHARE = 0.3  # of the free memory of a device, for chips
AHEAD = 2  # fetches that are under way before they are asked for
TOGETHER = 8  # chips of a fetch of small batches: handing one over from a thread takes as long as encoding half a chip
LOT = 4 * 2**20  # bytes of such a fetch, unless one batch has more
PIECE = 256  # chips that are put on the device at once


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
