"""Values as a picture: 8-bit RGB for samples, previews and reports. numpy only."""

import numpy as np
import numpy.typing as npt

from geop2p.raster.agreement import color_bands
from geop2p.raster.encoding import Array, Encoding, Mask

NO_DATA_COLOR = (225, 225, 225)


def render(values: Array, valid: Mask, encoding: Encoding) -> npt.NDArray[np.uint8]:
    """Draw stored values as a person would see them in a GIS.

    Args:
        values: (bands, rows, cols).
        valid: (rows, cols); the rest is light grey.
        encoding: Classes take their colours; others stretch each band over its encoded interval: those that are red,
            green and blue, else the first three, or the first as grey.

    Returns:
        uint8 (rows, cols, 3).
    """
    if encoding.is_classes:
        picture = np.full((*valid.shape, 3), NO_DATA_COLOR, np.uint8)
        for entry in encoding.classes:
            picture[values[0] == entry.value] = entry.color
    else:
        unit = (encoding.encode(values, valid) + 1) / 2
        colored = (color_bands(encoding.bands, encoding.color_interp) or [0, 1, 2]) if len(unit) >= 3 else [0, 0, 0]
        shown = unit[colored]
        picture = np.rint(shown * 255).astype(np.uint8).transpose(1, 2, 0)
    picture[~valid] = NO_DATA_COLOR
    return picture
