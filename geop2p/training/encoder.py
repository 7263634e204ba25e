"""The torch twin of `Encoding.encode`: batches of stored values enter the network's range on the device they lie on."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geop2p.raster.backscatter import POWER_FLOOR
from geop2p.raster.encoding import Encoding

# torch has few operations for wide unsigned integers: their bits travel as signed ones
_SIGNED = {np.dtype("uint16"): np.dtype("int16"), np.dtype("uint32"): np.dtype("int32")}
_SIGNED[np.dtype("uint64")] = np.dtype("int64")


def as_tensor(values: npt.NDArray[Any]) -> Tensor:
    """Stored values as a tensor that shares their memory; wide unsigned integers as signed ones of the same bits."""
    return torch.from_numpy(values.view(_SIGNED.get(values.dtype, values.dtype)))


def as_stored(values: Tensor, dtype: str) -> npt.NDArray[Any]:
    """The inverse of `as_tensor`.

    Args:
        values: On the host.
        dtype: numpy name of the stored values.
    """
    array: npt.NDArray[Any] = values.numpy()
    return array.view(dtype)


def blank(images: Iterable[Tensor], valid: Tensor) -> None:
    """Put 0 where float32 images are not valid, whatever stands there; several times faster than `torch.where`.

    Args:
        images: (batch, channels, rows, cols), changed in place.
        valid: Bool (batch, 1, rows, cols).
    """
    kept = valid.to(torch.int32).neg_()
    for image in images:
        image.view(torch.int32).bitwise_and_(kept)


class BatchEncoder:
    """Encodes batches of one side; where they are valid, as `Encoding.encode` does, to the rounding of float32.

    Args:
        encoding: Of the side.
        device: Where the batches lie; float64 must be known there.
    """

    def __init__(self, encoding: Encoding, device: torch.device) -> None:
        self.encoding, self._dtype = encoding, np.dtype(encoding.dtype)
        narrow = self._dtype.itemsize <= 2 and not encoding.is_linear_sar
        self._work = torch.float32 if narrow else torch.float64

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=self._work, device=device).view(1, -1, 1, 1)

        self._low = column([band.low for band in encoding.bands])
        self._factor = column((2 / encoding.data_range).tolist())
        self._scale = column([band.scale for band in encoding.bands])
        self._offset = column([band.offset for band in encoding.bands])
        codes = np.array([entry.value for entry in encoding.classes], np.int64)
        self._codes = torch.from_numpy(codes).to(device).view(1, -1, 1, 1)

    def one_hot(self, codes: Tensor) -> Tensor:
        """Float32 (batch, classes, rows, cols), all 0 where a class is not known.

        Args:
            codes: Stored values (batch, 1, rows, cols), as `as_tensor` gives them.
        """
        return (self._unsigned(codes, torch.int64) == self._codes).float()

    def scaled(self, values: Tensor) -> Tensor:
        """Float32 in [-1, 1] (batch, bands, rows, cols); not a number where the value is none.

        Args:
            values: Stored values (batch, bands, rows, cols), as `as_tensor` gives them.
        """
        wide = self._on_scale(self._unsigned(values, self._work)).sub_(self._low)
        return wide.mul_(self._factor).sub_(1).clamp_(-1, 1).float()

    def _on_scale(self, wide: Tensor) -> Tensor:
        """Linear backscatter in dB, as `geop2p.raster.backscatter.to_decibel` has it; all else as it is."""
        encoding = self.encoding
        if not encoding.is_linear_sar:
            return wide
        linear = wide * self._scale + self._offset
        if encoding.backscatter == "amplitude":
            return torch.maximum(linear, self._scale.abs()).log10_().mul_(20)
        return linear.clamp_(min=POWER_FLOOR).log10_().mul_(10)

    def _unsigned(self, stored: Tensor, dtype: torch.dtype) -> Tensor:
        """A copy of stored values in a wide type, the bits of unsigned integers read as such."""
        if self._dtype == np.uint16:
            return stored.to(torch.int32).bitwise_and_(0xFFFF).to(dtype)
        if self._dtype == np.uint32:
            return stored.to(torch.int64).bitwise_and_(0xFFFFFFFF).to(dtype, copy=True)
        wide = stored.to(dtype, copy=True)
        if self._dtype == np.uint64 and dtype.is_floating_point:
            wide = torch.where(wide < 0, wide + 2.0**64, wide)
        return wide
