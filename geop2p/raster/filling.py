"""What stands where a raster has no data."""

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.fill import fillnodata

from geop2p.errors import GeoP2PError
from geop2p.raster.encoding import Mask

MOST = 2**24 - 1  # pixels that 32-bit floats can number


def fill_from_nearest(values: npt.NDArray[np.float32], valid: Mask, depth: int) -> npt.NDArray[np.float32]:
    """Give ground without data the values that lie nearest to it.

    What a pixel gets depends on no pixel farther than `depth`. Which one is nearest is looked for once, whatever the
    number of channels: GDAL fills the places of the pixels, not their values.

    Args:
        values: float32 (channels, rows, cols), of at most `MOST` pixels.
        valid: Ground with data (rows, cols).
        depth: Pixels into the ground without data; what lies deeper keeps its values.

    Returns:
        (channels, rows, cols).

    Raises:
        ValueError: There are more than `MOST` pixels.
        GeoP2PError: GDAL or rasterio are too old to look for the nearest.
    """
    if valid.size > MOST:
        raise ValueError(f"{valid.shape} are more than {MOST} pixels")
    own = np.arange(1, valid.size + 1, dtype=np.float32).reshape(valid.shape)
    found = fillnodata(own.copy(), valid.astype(np.uint8), max_search_distance=depth, INTERPOLATION="NEAREST")
    found = np.where(found == 0, own, found)  # GDAL leaves 0 where what it found is too far
    places = found.astype(np.intp) - 1
    if (found != places + 1).any():  # older ones average the numbers of places, and say nothing
        raise GeoP2PError(
            f"GDAL {rasterio.__gdal_version__} under rasterio {rasterio.__version__} does not fill with the nearest "
            "value, so mosaics would be wrong around nodata; install rasterio 1.4.4 or newer with GDAL 3.9 or newer"
        )
    return values.reshape(len(values), -1)[:, places]
