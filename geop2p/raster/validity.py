"""Which pixels of a raster are data: by its mask, alpha band, value for no data or NaN."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from geop2p.raster.encoding import Array, Mask


class MaskReader(Protocol):
    """See `mask_reader`."""

    def __call__(self, window: Window | None, shape: tuple[int, ...] = ()) -> Array | None:
        """Masks of a window; None: all is valid."""


def mask_reader(dataset: Any, bands: list[int]) -> MaskReader:
    """What reads 0 where a dataset is not valid, (1 or bands, rows, cols), by all that it says of it.

    GDAL's masks know one statement alone: a mask hides the value for no data, and this hides an alpha band.
    It takes a window, None for all, and the (rows, cols) to read it in, () for its own. None: all is valid.
    """
    flags = [dataset.mask_flag_enums[band - 1] for band in bands]
    has_alpha = ColorInterp.alpha in dataset.colorinterp
    has_nodata = any(dataset.nodatavals[band - 1] is not None for band in bands)
    hidden = has_alpha and any(MaskFlags.alpha in flag or MaskFlags.nodata in flag for flag in flags)
    statements: list[Callable[[Window | None, tuple[int, ...]], Array]] = []
    if has_alpha:
        statements.append(partial(_read, dataset.read, [dataset.colorinterp.index(ColorInterp.alpha) + 1]))
    if not hidden and not all(MaskFlags.all_valid in flag for flag in flags):
        same = all(MaskFlags.per_dataset in flag for flag in flags)
        statements.append(partial(_read, dataset.read_masks, bands[:1] if same else bands))
    if has_nodata and (hidden or not any(MaskFlags.nodata in flag for flag in flags)):
        statements.append(partial(_read_by_value, dataset, bands))

    def joint(window: Window | None, shape: tuple[int, ...] = ()) -> Array | None:
        found = None
        for read in statements:
            masks = read(window, shape)
            found = masks if found is None else (found > 0) & (masks > 0)
        return found

    return joint


def is_said_nothing(dataset: Any) -> bool:
    """Whether a file says in no way what is no data."""
    return all([MaskFlags.all_valid] == flags for flags in dataset.mask_flag_enums)


def is_said_once(dataset: Any, bands: list[int]) -> bool:
    """Whether a file says in one way at most what is no data, of all bands alike."""
    missing = {dataset.nodatavals[band - 1] for band in bands}
    has_nodata, has_mask = any(value is not None for value in missing), _has_mask(dataset, bands)
    return len(set(map(str, missing))) == 1 and has_nodata + has_mask + (ColorInterp.alpha in dataset.colorinterp) <= 1


def is_told_once(dataset: Any, bands: list[int]) -> bool:
    """Whether a warp by GDAL knows what is valid: it sees one statement, and of several bands none by values.

    By values it takes the bands one by one, so that a hole of one band would be filled from around it. Floats may be
    NaN, whether the file says so or not, which is a statement, too. Masks of single bands it does not see, and alpha
    of other types it takes for shares of their range.
    """
    if not is_said_once(dataset, bands):
        return False
    missing, kinds = dataset.nodatavals[bands[0] - 1], {np.dtype(dataset.dtypes[band - 1]).kind for band in bands}
    known = {MaskFlags.all_valid, MaskFlags.per_dataset, MaskFlags.nodata, MaskFlags.alpha}
    if any(not known & set(dataset.mask_flag_enums[band - 1]) for band in bands):
        return False
    if ColorInterp.alpha in dataset.colorinterp:
        return "f" not in kinds and dataset.dtypes[dataset.colorinterp.index(ColorInterp.alpha)] == "uint8"
    if "f" in kinds:
        return len(bands) == 1 and (missing is None or math.isnan(missing)) and not _has_mask(dataset, bands)
    return len(bands) == 1 or missing is None


def _has_mask(dataset: Any, bands: list[int]) -> bool:
    flags = [dataset.mask_flag_enums[band - 1] for band in bands]
    return any(MaskFlags.per_dataset in flag and MaskFlags.alpha not in flag for flag in flags)


def _read(read: Callable[..., Array], bands: list[int], window: Window | None, shape: tuple[int, ...]) -> Array:
    """Some bands of a window, or their masks."""
    return np.asarray(read(bands, window=window, out_shape=(len(bands), *shape) if shape else None))


def _read_by_value(dataset: Any, bands: list[int], window: Window | None, shape: tuple[int, ...]) -> Array:
    """Where each band of a window does not hold its value for no data, (bands, rows, cols)."""
    values = _read(dataset.read, bands, window, shape)
    missing = [dataset.nodatavals[band - 1] for band in bands]
    pairs = zip(values, missing, strict=True)
    return np.stack([everywhere(plane.shape) if value is None else plane != value for plane, value in pairs])


def valid_pixels(values: Array, masks: Array | None) -> Mask:
    """Where every band is data: not masked and finite. Read-only where nothing can be missing."""
    valid = everywhere(values.shape[1:]) if masks is None else np.all(masks > 0, axis=0)
    return valid & np.all(np.isfinite(values), axis=0) if values.dtype.kind == "f" else valid


def drawn_pixels(values: Array, masks: Array | None) -> Mask:
    """Where any band is data: a map drawn in colours, whose value for no data is part of many of them."""
    return everywhere(values.shape[1:]) if masks is None else np.any(masks > 0, axis=0)


def everywhere(shape: tuple[int, ...]) -> Mask:
    """True for every pixel (rows, cols), in the memory of one; read-only."""
    return np.broadcast_to(np.True_, shape)
