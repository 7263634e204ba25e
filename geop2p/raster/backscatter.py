"""Radar backscatter as it is stored: in dB, as linear power or as linear amplitude; numpy only.

dB = 10 log10(power) = 20 log10(amplitude). Speckle averages to the mean of the power, so SAR is resampled as power.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from geop2p.config import Backscatter

POWER_FLOOR = 1e-5  # -50 dB, below the noise of any sensor

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[Any]


def to_decibel(linear: Numbers, stored: Backscatter, step: Numbers | float = 1.0) -> Floats:
    """DB of linear backscatter; what lies below a floor, zero and negative values too, becomes the floor.

    Args:
        linear: Power or amplitude, any shape.
        stored: Which of the two. The floor of power is -50 dB, that of amplitude is one step of its numbers.
        step: What one step of stored amplitude is in units of `linear`.
    """
    floor = np.abs(step) if stored == "amplitude" else POWER_FLOOR
    decibel: Floats = _factor(stored) * np.log10(np.maximum(linear.astype(np.float64), floor))
    return decibel


def from_decibel(decibel: Numbers, stored: Backscatter) -> Floats:
    """Linear backscatter of dB: the inverse of `to_decibel` above its floor."""
    linear: Floats = 10 ** (decibel.astype(np.float64) / _factor(stored))
    return linear


def to_power(values: Numbers, stored: Backscatter) -> Floats:
    """Linear power, for averaging."""
    if stored == "dB":
        return from_decibel(values, "power")
    wide: Floats = values.astype(np.float64)
    return np.square(wide) if stored == "amplitude" else wide


def from_power(power: Floats, stored: Backscatter) -> Floats:
    """The stored form of linear power, which must be above 0 for dB: the inverse of `to_power`."""
    if stored == "dB":
        decibel: Floats = 10 * np.log10(power)
        return decibel
    return np.sqrt(power) if stored == "amplitude" else power


def _factor(stored: Backscatter) -> int:
    return 20 if stored == "amplitude" else 10
