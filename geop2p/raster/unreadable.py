"""Which file of a virtual raster cannot be read."""

import math
from typing import Any

from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from geop2p.errors import RasterError
from geop2p.raster.folder import SIDECARS
from geop2p.raster.grid import Grid
from geop2p.raster.placement import grid_of
from geop2p.raster.reading import opened


def unreadable_file(dataset: Any, window: Window) -> str | None:
    """The first file behind a window that fails when it is read alone; None if none does.

    GDAL names it only where it decodes on one thread.

    Args:
        dataset: Open raster, perhaps a warped view of one.
        window: Of it, that could not be read.
    """
    source = getattr(dataset, "src_dataset", dataset)
    if source.driver != "VRT":
        return None
    ground = grid_of(dataset).window(window)
    for file in source.files:
        if file == source.name or file.lower().endswith(SIDECARS):
            continue
        try:
            with opened(file) as part:
                seen = _shared(grid_of(part), ground)
                if seen is not None:
                    part.read(window=seen)
        except (RasterError, RasterioIOError):
            return str(file)
    return None


def _shared(grid: Grid, ground: Grid) -> Window | None:
    """The pixels of a grid that see any of the ground of another."""
    left, bottom, right, top = ground.bounds_in(grid.crs)
    cols, rows = zip(*(~grid.transform @ (x, y) for x in (left, right) for y in (bottom, top)), strict=True)
    col, row = max(0, math.floor(min(cols))), max(0, math.floor(min(rows)))
    width, height = min(grid.width, math.ceil(max(cols))) - col, min(grid.height, math.ceil(max(rows))) - row
    return Window(col, row, width, height) if width > 0 and height > 0 else None
