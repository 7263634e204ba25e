"""Random numbers of places: the same ground has the same, in whatever tile or raster it lies."""

from collections.abc import Sequence

import torch
from torch import Tensor

BITS = 32  # of the numbers
_ALL = (1 << BITS) - 1
_APART = (4093, 4099)  # rows and columns between two chips; squares then begin anywhere in them


def numbers_of(keys: Sequence[int], *spans: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Integers from 0 to 2**32 - 1, of every place its own.

    Args:
        keys: What they depend on besides the place.
        spans: First coordinate, which may be negative, and length of each axis.
        device: Where to make them.

    Returns:
        int64, an axis for each span.
    """
    numbers = torch.zeros((), dtype=torch.int64, device=device)
    for key in keys:
        numbers = _mixed(numbers + key)
    for first, count in spans:
        numbers = _mixed(numbers[..., None] + torch.arange(first, first + count, device=device))
    return numbers


def ground_noise(row: int, col: int, shape: tuple[int, int], octaves: int) -> Tensor:
    """Noise of mean 0 and variance 1, uniform, each octave constant over squares of twice the side of the one before.

    Args:
        row: Of the first pixel on the ground, counted from any origin that other tiles share.
        col: The same.
        shape: (rows, cols).
        octaves: How many, the first of single pixels.

    Returns:
        float32 (octaves, rows, cols).
    """
    made = [torch.empty(0, *shape)]
    for octave in range(octaves):
        side = 2**octave
        starts = (row % side, col % side)
        spans = [(first // side, _squares(start, count, side))
                 for first, start, count in zip((row, col), starts, shape, strict=True)]  # fmt: skip
        squares = _unit(numbers_of((octave,), *spans) / (1 << BITS))
        made.append(_of_pixels(squares, side, starts, shape)[None])
    return torch.cat(made)


def on_ground_of_its_own(chips: Tensor, numbers: Sequence[int], octaves: int) -> Tensor:
    """Chips with the noise of a place that their number alone decides, far from those of others.

    Args:
        chips: (batch, channels, rows, cols).
        numbers: One a chip.
        octaves: How many; 0: the chips stay as they are.

    Returns:
        (batch, channels + octaves, rows, cols).
    """
    if not octaves:
        return chips
    size = (chips.shape[2], chips.shape[3])
    noise = [ground_noise(number * _APART[0], number * _APART[1], size, octaves) for number in numbers]
    return torch.cat([chips, torch.stack(noise).to(chips)], dim=1)


def drawn_noise(like: Tensor, octaves: int) -> Tensor:
    """The same of places that torch's generator draws.

    Args:
        like: (batch, channels, rows, cols).
        octaves: How many.

    Returns:
        (batch, octaves, rows, cols), of the same type and device.
    """
    shape, made = (like.shape[2], like.shape[3]), []
    for octave in range(octaves):
        side = 2**octave
        starts = (int(torch.randint(side, ())), int(torch.randint(side, ())))
        counts = [_squares(start, count, side) for start, count in zip(starts, shape, strict=True)]
        squares = _unit(torch.rand(len(like), *counts, device=like.device))
        made.append(_of_pixels(squares, side, starts, shape))
    return torch.stack(made, dim=1).to(like.dtype)


def _squares(start: int, count: int, side: int) -> int:
    """How many squares so many pixels touch, from a pixel of the first on."""
    return (start + count - 1) // side + 1


def _of_pixels(squares: Tensor, side: int, starts: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """The values of squares for each of their pixels (..., rows, cols), from a pixel of the first on."""
    rows, cols = (torch.arange(start, start + count, device=squares.device) // side
                  for start, count in zip(starts, shape, strict=True))  # fmt: skip
    return squares[..., rows[:, None], cols]


def _unit(uniform: Tensor) -> Tensor:
    """Numbers from 0 to 1 as float32 of mean 0 and variance 1."""
    return ((uniform - 0.5) * 12**0.5).float()


def _mixed(numbers: Tensor) -> Tensor:
    """A hash of integers to 32 bits: the mixing of MurmurHash3, in 64 bits with the upper ones thrown away."""
    numbers = numbers & _ALL
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        numbers = ((numbers ^ (numbers >> shift)) * factor) & _ALL
    return numbers ^ (numbers >> 16)
