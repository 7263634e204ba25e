"""Which pixels of a raster are data: by its mask, alpha band, value for no data or NaN."""

from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from geop2p.raster.encoding import Array, Mask


def read_masks(dataset: Any, bands: list[int], window: Window | None, shape: tuple[int, ...] = ()) -> Array | None:
    """0 where not valid, (1 or bands, rows, cols); from the alpha band where there is one. None: all is valid."""
    if ColorInterp.alpha in dataset.colorinterp:
        alpha = [dataset.colorinterp.index(ColorInterp.alpha) + 1]
        return np.asarray(dataset.read(alpha, window=window, out_shape=(1, *shape) if shape else None))
    flags = [dataset.mask_flag_enums[band - 1] for band in bands]
    if all(MaskFlags.all_valid in flag for flag in flags):
        return None
    if all(MaskFlags.per_dataset in flag for flag in flags):
        bands = bands[:1]
    masks = dataset.read_masks(bands, window=window, out_shape=(len(bands), *shape) if shape else None)
    return np.asarray(masks)


def valid_pixels(values: Array, masks: Array | None) -> Mask:
    """Where every band is data: not masked and finite. Read-only where nothing can be missing."""
    valid = _everywhere(values) if masks is None else np.all(masks > 0, axis=0)
    return valid & np.all(np.isfinite(values), axis=0) if values.dtype.kind == "f" else valid


def drawn_pixels(values: Array, masks: Array | None) -> Mask:
    """Where any band is data: a map drawn in colours, whose value for no data is part of many of them."""
    return _everywhere(values) if masks is None else np.any(masks > 0, axis=0)


def _everywhere(values: Array) -> Mask:
    """True for every pixel, in the memory of one."""
    return np.broadcast_to(np.True_, values.shape[1:])
