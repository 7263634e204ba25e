"""Scores of values: imagery, backscatter, heights."""

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from geop2p.metrics.similarity import SMALLEST, over_scales, scale_maps
from geop2p.raster.encoding import Array, Encoding, Mask

Sums = npt.NDArray[np.float64]

SIGNED = 0.01  # share of negative values from which a band is no imagery above 0; corrected reflectance has a few


class ImageScores:
    """L1, RMSE, PSNR and SSIM in the target's units: dB for backscatter, however it is stored.

    PSNR = 10 log10(range^2 / MSE). With `full` also, after their usual definitions: MS-SSIM, weighed by the windows
    of the coarsest scale where images are not equally valid; the correlation (Pearson) of each band; for imagery the
    spectral angle (SAM, Kruse et al., RSE 1993) as the mean over pixels in degrees, 90 where one of the two is all
    zero, and ERGAS (Wald, 2000) at a ratio of pixel sizes of 1, over all pixels at once.

    Args:
        encoding: The target's; its encoded interval is the range of PSNR, SSIM and MS-SSIM, which are None for bands
            where it has no width.
        full: Whether to take the scores that cost more.

    Attributes:
        sums: All that was taken in: arrays that add up over scores of one encoding.
    """

    def __init__(self, encoding: Encoding, full: bool = False) -> None:
        self._names, self._full = encoding.band_names, full
        self._in_units, self._range = encoding.in_units, encoding.unit_range
        self._flat = np.array([band.low == band.high for band in encoding.bands])
        self._spectral = encoding.kind == "image"
        self._scale, self._offset = (
            np.array([getattr(band, field) for band in encoding.bands])[:, np.newaxis] for field in ("scale", "offset")
        )
        self._has_offset = not encoding.is_linear_sar and bool(self._offset.any())  # which similarity depends on
        middle = np.array([(band.low + band.high) / 2 for band in encoding.bands])[:, np.newaxis]
        self._middle = middle if encoding.is_linear_sar else middle * np.abs(self._scale)
        self._side = 0  # of the largest image seen
        bands, names = len(encoding.bands), ["absolute", "squared", "similarity"]
        if full:
            names += ["multiscale", "mean_1", "mean_2", "square_1", "square_2", "product", "physical", "negative"]
        self.sums: dict[str, Sums] = {name: np.zeros(bands) for name in names}
        self.sums |= {name: np.zeros(1) for name in ("pixels", "windows", "coarse_windows", "angle")}

    def add(self, predicted: Array, real: Array, valid: Mask) -> None:
        """Take in a pair of stored values (bands, rows, cols) and their valid pixels (rows, cols)."""
        with np.errstate(over="ignore", invalid="ignore"):  # values too large for their squares have no scores
            self._add(predicted, real, valid)

    def _add(self, predicted: Array, real: Array, valid: Mask) -> None:
        first, second = (self._in_units(np.where(valid, side, 0)) for side in (predicted, real))
        here, there = first[:, valid], second[:, valid]
        sums, difference = self.sums, here - there
        sums["absolute"] += np.abs(difference).sum(axis=1)
        sums["squared"] += np.square(difference).sum(axis=1)
        sums["pixels"] += valid.sum()
        seen = (self._physical(predicted), self._physical(real)) if self._has_offset else (first, second)
        scales = scale_maps(*seen, valid, self._range)
        finest = next(scales)
        sums["similarity"] += finest.similarity[:, finest.whole].sum(dim=1).numpy()
        sums["windows"] += int(finest.whole.sum())
        if not self._full:
            return
        self._side = max(self._side, min(valid.shape))
        multiscale, count = over_scales(itertools.chain([finest], scales))
        sums["multiscale"] += multiscale * count
        sums["coarse_windows"] += count
        here, there = here - self._middle, there - self._middle
        for name, values in (("mean_1", here), ("mean_2", there)):
            sums[name] += values.sum(axis=1)
        for name, values in (("square_1", here * here), ("square_2", there * there), ("product", here * there)):
            sums[name] += values.sum(axis=1)
        if self._spectral:
            made, truth = (self._physical(side[:, valid]) for side in (predicted, real))
            sums["physical"] += truth.sum(axis=1)
            sums["negative"] += (truth < 0).sum(axis=1)
            sums["angle"] += _angles(made, truth).sum()

    def _physical(self, values: Array) -> Sums:
        """Stored values (bands, ...) times scale, plus offset."""
        scale, offset = (of.reshape(-1, *[1] * (values.ndim - 1)) for of in (self._scale, self._offset))
        physical: Sums = values.astype(np.float64) * scale + offset
        return physical

    def result(self) -> dict[str, Any]:
        """Means over bands under `l1`, `rmse`, `psnr`, `ssim`, and per band under `bands`; `pixels`.

        With `full` also `ms_ssim`, `correlation`, `sam` (degrees), `ergas`, and under `reasons` why scores are None.
        L1 and RMSE are in physical units, dB for backscatter. Values are None where no pixel (or no window of SSIM)
        was valid.
        """
        pixels = int(self.sums["pixels"][0])
        if not pixels:
            return {"l1": None, "rmse": None, "psnr": None, "ssim": None, "pixels": 0, "bands": {}}
        mse = self.sums["squared"] / pixels
        rmse = np.sqrt(mse)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            relative = np.where(self._flat, np.nan, mse / self._range**2)
            columns = {
                "l1": self.sums["absolute"] / pixels,
                "rmse": rmse,
                "psnr": 0 - 10 * np.log10(relative),  # never -0
                "ssim": np.where(self._flat, np.nan, self.sums["similarity"] / self.sums["windows"]),
            }
            if self._full:
                multiscale = self.sums["multiscale"] / self.sums["coarse_windows"]
                columns["ms_ssim"] = np.where(self._flat, np.nan, multiscale)
                columns["correlation"] = self._correlation(pixels)
            means = {name: _finite(float(values.mean())) for name, values in columns.items()}
            means["rmse"] = _finite(math.sqrt(float(mse.mean())))
            means["psnr"] = _finite(float(0 - 10 * np.log10(relative.mean())))
        bands = {
            name: {score: _finite(float(values[band])) for score, values in columns.items()}
            for band, name in enumerate(self._names)
        }
        spectral = self._spectrum(pixels, rmse) if self._full else {}
        result = means | spectral | {"pixels": pixels, "bands": bands}
        return result | ({"reasons": self._reasons(result)} if self._full else {})

    def _correlation(self, pixels: int) -> Sums:
        first, second = (self.sums[name] / pixels for name in ("mean_1", "mean_2"))
        both = self.sums["product"] / pixels - first * second
        spread = [self.sums[name] / pixels - mean**2 for name, mean in (("square_1", first), ("square_2", second))]
        # a constant's variance is rounding, not a spread
        flat = np.minimum(*spread) <= 1e-12 * self._range**2
        return np.where(flat, np.nan, np.clip(both / np.sqrt(np.abs(spread[0] * spread[1])), -1, 1))

    def _spectrum(self, pixels: int, rmse: Sums) -> dict[str, float | None]:
        """SAM and ERGAS."""
        if not self._spectral:
            return {"sam": None, "ergas": None}
        means, is_signed = self.sums["physical"] / pixels, self.sums["negative"] > SIGNED * pixels
        is_above = (means > 0).all() and not is_signed.any()
        with np.errstate(over="ignore", invalid="ignore"):
            ergas = _finite(100 * math.sqrt(float(np.square(rmse / means).mean()))) if is_above else None
        sam = _finite(float(self.sums["angle"][0] / pixels)) if len(rmse) > 1 else None
        return {"sam": sam, "ergas": ergas}

    def _reasons(self, result: dict[str, Any]) -> dict[str, str]:
        """Why a score is None."""
        small = f"no whole window of SSIM's {SMALLEST} pixels at its coarsest scale (images of {self._side})"
        flat = "a band of the reference has one value alone, and so no range"
        why = {
            "psnr": flat if self._flat.any() else "no error at all",
            "ssim": flat if self._flat.any() else "no window is wholly valid",
            "ms_ssim": flat if self._flat.any() else small,
            "correlation": "a band is constant",
            "sam": "an angle between spectra needs imagery of two bands or more",
            "ergas": "relative to the mean of each band, which must be imagery above 0",
        }
        if result["rmse"] is None:
            large = "values too large to be squared; if they mean no data, tag them so (gdal_edit.py -a_nodata)"
            spectral = ["sam", "ergas"] if self._spectral else []
            why |= dict.fromkeys(["l1", "rmse", "psnr", "ssim", "ms_ssim", "correlation", *spectral], large)
        return {name: why[name] for name in why if result[name] is None}


def _angles(predicted: Sums, real: Sums) -> Sums:
    """Angles in degrees between the spectra (bands, pixels) of each pixel."""
    lengths = np.sqrt(np.square(predicted).sum(axis=0) * np.square(real).sum(axis=0))
    products = (predicted * real).sum(axis=0)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    cosines[~predicted.any(axis=0) & ~real.any(axis=0)] = 1
    angles: Sums = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return angles


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
