"""Misregistration: how far target and source of a chip are apart, by phase correlation of their edges.

Phase correlation after Kuglin and Hines (1975); the peak is refined by evaluating the Fourier sum around it
(Guizar-Sicairos et al., Optics Letters 33, 2008). Pure: opens no files.
"""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from geop2p.raster.encoding import Array, Mask
from geop2p.tiling.counting import present

LIKELY = 12  # pixels of shift that are believed easily; further ones, to half a chip, must be plain
TRUSTED = 10.0  # confidence above which the shift of a single chip is believed
TRUSTED_FAR_AWAY = 20.0  # the same of a shift that is not likely: real chips that lie well reach 15 by chance
LEAST_TRUSTED = 5  # chips that a median needs
SMOOTHING = 0.12  # cycles a pixel: finer detail is noise to the other side
HIGHEST = 3 * SMOOTHING  # cycles a pixel that the refinement looks at: the rest weighs a hundredth at most
COARSE_STEP = 0.25  # pixels between the places at which the peak is looked for: SMOOTHING makes it wider than that
STEP = 0.05  # pixels between the places at which it is refined
MARGIN = 1.0  # pixels around the peak that are refined

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """Where the target lies relative to the source.

    Attributes:
        rows: Pixels that the target lies below the source.
        cols: Pixels that it lies to the right of the source.
        confidence: Height of the correlation's peak in its standard deviations; below `TRUSTED` it may be chance.
    """

    rows: float
    cols: float
    confidence: float


def measure_shift(source: Array, target: Array, valid: Mask, classes: tuple[bool, bool]) -> Shift:
    """The shift of the target against the source of a chip.

    Args:
        source: Stored values (bands, rows, cols).
        target: Stored values (bands, rows, cols).
        valid: (rows, cols).
        classes: Whether source and target are maps of classes, which are told by their boundaries.
    """
    sides = zip((source, target), classes, strict=True)
    # The scale is of no account; without one numpy 2.4 takes six times as long for 32-bit floats
    first, second = (np.fft.rfft2(edges(values, valid, is_classes), norm="ortho") for values, is_classes in sides)
    cross = second * np.conj(first)
    cross *= _smooth(*valid.shape) / np.maximum(np.abs(cross), 1e-17)
    surface = np.fft.irfft2(cross, valid.shape)
    likely = _near_zero(*valid.shape)
    near = _refined(cross, surface, np.where(likely, surface, -np.inf))
    if not likely.flat[np.argmax(surface)]:
        further = _refined(cross, surface, surface)
        if further.confidence >= TRUSTED_FAR_AWAY:
            return further
    is_peak = max(abs(near.rows), abs(near.cols)) <= LIKELY  # else the slope of one that is further away
    return near if is_peak else dataclasses.replace(near, confidence=0.0)


def _refined(cross: npt.NDArray[Any], surface: Floats, among: Floats) -> Shift:
    """The shift that the highest of some places of a correlation surface stands for."""
    peak, deviation = np.unravel_index(np.argmax(among), surface.shape), float(surface.std())
    row, col = (
        int(place) if place <= side // 2 else int(place) - side for place, side in zip(peak, surface.shape, strict=True)
    )
    fine_row, fine_col, height = _refine(cross, surface.shape, row, col)
    return Shift(fine_row, fine_col, height / deviation if deviation else 0.0)


def edges(values: Array, valid: Mask, is_classes: bool) -> npt.NDArray[np.float32]:
    """Strength of the edges (rows, cols), tapered to the border; 0 beside ground that is not valid.

    Boundaries for classes; else the gradient, each band scaled by its own mean so that none outweighs the others.
    """
    is_whole = bool(valid.all())
    if is_classes:
        gradients = (_boundary(values[0] == code) for code in present(values[0][valid])[0])
    else:
        known = values if is_whole else np.where(valid, values, 0)
        peaks = [max(float(plane.max()), -float(plane.min())) or 1.0 for plane in known]
        scaled = (np.asarray(plane / np.float32(peak), np.float32) for plane, peak in zip(known, peaks, strict=True))
        gradients = (_gradient(plane) for plane in scaled)
    strength = np.zeros(valid.shape, np.float32)
    for gradient in gradients:
        inside = gradient if is_whole else gradient[valid]
        if inside.size:
            strength += gradient / (np.float32(inside.mean()) or 1)
    if is_whole:
        return (strength - np.float32(strength.mean())) * _taper(*valid.shape)
    whole = valid.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            whole &= np.roll(valid, step, axis)
    centred = np.where(whole, strength - (strength[whole].mean() if whole.any() else 0.0), np.float32(0))
    return centred * _taper(*valid.shape)


@lru_cache(maxsize=4)
def _taper(rows: int, cols: int) -> npt.NDArray[np.float32]:
    """A window (Hann) that falls to nearly nothing at the border."""
    return np.outer(np.hanning(rows + 2)[1:-1], np.hanning(cols + 2)[1:-1]).astype(np.float32)


def _gradient(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Strength of the gradient by central differences; 0 along the border, where the taper hides it."""
    down, across = plane[2:, 1:-1] - plane[:-2, 1:-1], plane[1:-1, 2:] - plane[1:-1, :-2]
    down *= down
    across *= across
    down += across
    strength = np.zeros_like(plane)
    np.sqrt(down, out=strength[1:-1, 1:-1])
    return strength


def _boundary(flags: Mask) -> npt.NDArray[np.float32]:
    """`_gradient` of a plane of zeros and ones."""
    changes = (flags[2:, 1:-1] != flags[:-2, 1:-1]).view(np.uint8)
    changes += (flags[1:-1, 2:] != flags[1:-1, :-2]).view(np.uint8)
    strength = np.zeros(flags.shape, np.float32)
    np.sqrt(changes, out=strength[1:-1, 1:-1], dtype=np.float32)
    return strength


@lru_cache(maxsize=4)
def _near_zero(*shape: int) -> Mask:
    """Places of a correlation surface that stand for a likely shift."""
    rows, cols = (np.minimum(np.arange(side), side - np.arange(side)) <= LIKELY for side in shape)
    near: Mask = rows[:, None] & cols
    return near


@lru_cache(maxsize=4)
def _smooth(*shape: int) -> npt.NDArray[np.float32]:
    """Weight of every frequency of a transform of real values."""
    rows, cols = _frequencies(shape)
    return np.exp(-(rows[:, None] ** 2 + cols**2) / (2 * SMOOTHING**2)).astype(np.float32)


def _frequencies(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Of the rows and of the columns of a transform of real values, in cycles a pixel."""
    return np.fft.fftfreq(shape[0]).astype(np.float64), np.fft.rfftfreq(shape[1]).astype(np.float64)


def _refine(cross: npt.NDArray[Any], shape: tuple[int, ...], row: int, col: int) -> tuple[float, float, float]:
    """Row, column and height of the peak of the correlation near a pixel of it."""
    rows, cols = _frequencies(shape)
    twice = np.where((cols > 0) & (cols < 0.5), 2, 1).astype(np.float32)  # the other half of the plane mirrors this one
    low_rows, low_cols = np.abs(rows) < HIGHEST, cols < HIGHEST
    rows, cols, weighed = rows[low_rows], cols[low_cols], (cross * twice)[low_rows][:, low_cols]
    at_row, at_col, peak = float(row), float(col), 0.0
    for margin, step in ((MARGIN, COARSE_STEP), (COARSE_STEP, STEP)):
        offsets = np.arange(-margin, margin + step / 2, step)
        down = np.exp(2j * np.pi * np.outer(at_row + offsets, rows)).astype(np.complex64)
        across = np.exp(2j * np.pi * np.outer(cols, at_col + offsets)).astype(np.complex64)
        lines = np.einsum("ij,jk->ik", down, weighed)  # not @: starting BLAS threads costs more than the sums
        surface = np.einsum("ij,jk->ik", lines, across).real / (shape[0] * shape[1])
        best_row, best_col = np.unravel_index(np.argmax(surface), surface.shape)
        at_row, at_col = at_row + offsets[best_row], at_col + offsets[best_col]
        peak = float(surface[best_row, best_col])
    return float(at_row), float(at_col), peak


def report(scene: str, shifts: list[Shift]) -> str:
    """One line on the shifts of a scene's chips: their median and spread, and whether to worry."""
    trusted = [shift for shift in shifts if shift.confidence >= TRUSTED]
    if len(trusted) < LEAST_TRUSTED:
        return (
            f"{scene}: too few edges in common, or too far apart, to tell whether source and target lie on each other"
        )
    places = np.array([(shift.rows, shift.cols) for shift in trusted])
    median = np.median(places, axis=0)
    spread = float(1.4826 * np.median(np.abs(places - median)))
    line = (
        f"{scene}: the target lies {median[0]:+z.2f} rows, {median[1]:+z.2f} columns from the source "
        f"(median of {len(trusted)} chips, spread {spread:.2f})"
    )
    return line + ("; check their georeference" if np.abs(median).max() > max(1.0, spread) else "")
