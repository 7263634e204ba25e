"""How far predictions of the same ground lie apart: of the tile turned, of the tiles that overlap, or with dropout."""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from rasterio.windows import Window
from torch import Tensor

from geop2p.models.dropout import GroundDropout
from geop2p.mosaic.blend import Blend, Floats
from geop2p.mosaic.plan import Lattice
from geop2p.raster.encoding import Array, Band, Encoding

TURNS = 8  # of a square, mirror images included

Translate = Callable[[Tensor], Tensor]
Others = Callable[[Tensor, Tensor, list[Window], Translate], Iterator[Tensor]]


class Spread(Protocol):
    """What is summed over tiles besides their values, and what the sums say.

    Attributes:
        pixel_bytes: Of a pixel of the sums.
    """

    pixel_bytes: int

    def blend(self, window: Window, lattice: Lattice, device: torch.device) -> Blend:
        """Empty sums of a window."""

    def measure(self, made: Tensor, sources: Tensor, places: list[Window], translate: Translate) -> Tensor:
        """What tiles add to the sums (batch, channels, rows, cols).

        Args:
            made: Their translations (batch, channels, rows, cols).
            sources: What these were made of, margins included.
            places: Where on the grid the sources lie.
            translate: Makes translations of such sources.
        """

    def finish(self, sums: Array) -> Floats:
        """The spread (bands, rows, cols) for sums (channels, rows, cols); see `spread_encoding`."""


class VariantSpread:
    """The spread over other translations of each tile, blended as the tiles are.

    Args:
        target: Encoding of the translations.
        others: Gives the translations of a batch that are compared.
    """

    def __init__(self, target: Encoding, others: Others) -> None:
        self._target, self._others = target, others
        self.pixel_bytes = 4 * target.channels

    def blend(self, window: Window, lattice: Lattice, device: torch.device) -> Blend:
        """See `Spread`."""
        return Blend(window, self._target.channels, lattice.size, lattice.overlap, device)

    def measure(self, made: Tensor, sources: Tensor, places: list[Window], translate: Translate) -> Tensor:
        """Their variance; of classes their mean. See `Spread`."""
        mean, squares = torch.zeros_like(made), torch.zeros_like(made)
        count = 0
        for other in self._others(made, sources, places, translate):
            count += 1
            values = other if self._target.is_classes else other.clamp(-1, 1)
            step = values - mean
            mean += step / count
            squares += step * (values - mean)
            del other, values, step  # not to be held while the next is made
        return mean if self._target.is_classes else squares / count

    def finish(self, sums: Array) -> Floats:
        """See `Spread`."""
        return _finished(self._target, sums)


class TileSpread:
    """The spread over the tiles that overlap at a pixel, each counted alike.

    The sums are in double precision, on the processor: the squares of values that agree cancel.

    Args:
        target: Encoding of the translations.
    """

    def __init__(self, target: Encoding) -> None:
        self._target = target
        self._channels = 1 + target.channels * (1 if target.is_classes else 2)
        self.pixel_bytes = 8 * self._channels

    def blend(self, window: Window, lattice: Lattice, device: torch.device) -> Blend:
        """See `Spread`."""
        return Blend(window, self._channels, lattice.size, 0, dtype=torch.float64)

    def measure(self, made: Tensor, sources: Tensor, places: list[Window], translate: Translate) -> Tensor:
        """A one, their values, and the squares of those if they are no probabilities. See `Spread`."""
        values = made.cpu().double()
        one = torch.ones_like(values[:, :1])
        if self._target.is_classes:
            return torch.cat([one, values], dim=1)
        values = values.clamp(-1, 1)
        return torch.cat([one, values, values.square()], dim=1)

    def finish(self, sums: Array) -> Floats:
        """See `Spread`."""
        means = sums[1:] / np.maximum(sums[:1], 1)
        if self._target.is_classes:
            return _finished(self._target, means)
        mean, square = np.split(means, 2)
        return _finished(self._target, square - np.square(mean))


def variant_bytes(in_channels: int, target: Encoding) -> int:
    """What `VariantSpread` holds for each pixel of a tile while another translation is made.

    The first translation, the two sums, and the source that is turned, each a plane of float32 for a channel.
    """
    return 4 * (3 * target.channels + in_channels)


def turned_tiles(made: Tensor, sources: Tensor, _: list[Window], translate: Translate) -> Iterator[Tensor]:
    """The translations of tiles in all turns and mirror images (the group D4), each turned back."""
    yield made
    for turn in range(1, TURNS):
        yield _turned_back(translate(_turned(sources, turn).contiguous()), turn)


def dropout_samples(dropout: GroundDropout, count: int) -> Others:
    """So many translations with dropout."""

    def others(_: Tensor, sources: Tensor, places: list[Window], translate: Translate) -> Iterator[Tensor]:
        corners = [(int(place.row_off), int(place.col_off)) for place in places]
        for sample in range(count):
            with dropout.drawn(sample, corners, sources.shape[2]):
                yield translate(sources)

    return others


def spread_encoding(target: Encoding) -> Encoding:
    """What a raster of the spread holds: standard deviations in the target's units, a band for each of its bands.

    For classes the entropy of the mean probabilities, from 0 (one class is certain) to 1 (all are as likely).
    """
    if target.is_classes:
        return Encoding("image", "float32", (Band("normalised entropy", low=0, high=1),))
    columns = zip(target.band_names, target.bands, target.unit_range.tolist(), strict=True)
    sar = target.kind == "sar"
    bands = (Band(name, "dB" if sar else band.unit, low=0, high=span / 2) for name, band, span in columns)
    return Encoding("image", "float32", tuple(bands))


def _finished(target: Encoding, sums: Array) -> Floats:
    """The spread for mean probabilities of classes, or for variances in the encoded range."""
    if target.is_classes:
        chances = np.clip(sums, 0, 1).astype(np.float64)
        logs = np.log(chances, out=np.zeros_like(chances), where=chances > 0)
        entropy = -(chances * logs).sum(axis=0, keepdims=True) / math.log(max(2, len(chances)))
        within: Floats = np.clip(entropy, 0, 1).astype(np.float32)
        return within
    half = target.unit_range.reshape(-1, 1, 1) / 2
    deviations: Floats = (np.sqrt(np.maximum(sums, 0)) * half).astype(np.float32)
    return deviations


def _turned(images: Tensor, turn: int) -> Tensor:
    """Images (..., rows, cols) with rows and columns exchanged (bit 4 of `turn`), then mirrored (bits 2 and 1)."""
    return images.transpose(-2, -1).flip(_axes(turn)) if turn & 4 else images.flip(_axes(turn))


def _turned_back(images: Tensor, turn: int) -> Tensor:
    """The inverse of `_turned`."""
    straight = images.flip(_axes(turn))
    return straight.transpose(-2, -1) if turn & 4 else straight


def _axes(turn: int) -> list[int]:
    return [axis for bit, axis in ((2, -2), (1, -1)) if turn & bit]
