"""What stands where a raster has no data."""

import numpy as np
import numpy.typing as npt
from rasterio.fill import fillnodata

from geop2p.raster.encoding import Mask


def fill_from_nearest(values: npt.NDArray[np.float32], valid: Mask, depth: int) -> npt.NDArray[np.float32]:
    """Give ground without data the values that lie nearest to it.

    What a pixel gets depends on no pixel farther than `depth`.

    Args:
        values: float32 (channels, rows, cols).
        valid: Ground with data (rows, cols).
        depth: Pixels into the ground without data; what lies deeper keeps its values.

    Returns:
        (channels, rows, cols).
    """
    mask = valid.astype(np.uint8)
    planes = [fillnodata(plane.copy(), mask, max_search_distance=depth, INTERPOLATION="NEAREST") for plane in values]
    return np.stack(planes)
