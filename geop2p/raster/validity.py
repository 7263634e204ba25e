"""Which pixels of a raster are data: by its mask, alpha band, value for no data or NaN."""

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
    """What reads 0 where a dataset is not valid, (1 or bands, rows, cols), from the alpha band where there is one.

    It takes a window, None for all, and the (rows, cols) to read it in, () for its own. None: all is valid.
    """
    if ColorInterp.alpha in dataset.colorinterp:
        read, masked = dataset.read, [dataset.colorinterp.index(ColorInterp.alpha) + 1]
    else:
        flags = [dataset.mask_flag_enums[band - 1] for band in bands]
        if all(MaskFlags.all_valid in flag for flag in flags):
            return lambda window, shape=(): None
        same = all(MaskFlags.per_dataset in flag for flag in flags)
        read, masked = dataset.read_masks, bands[:1] if same else bands

    def masks(window: Window | None, shape: tuple[int, ...] = ()) -> Array:
        return np.asarray(read(masked, window=window, out_shape=(len(masked), *shape) if shape else None))

    return masks


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
