"""A small copy of a mosaic that is left in parts, so that drawing all of it does not open every one of them."""

import dataclasses
import math
from pathlib import Path

from geop2p.raster.atomic import write_text
from geop2p.raster.encoding import Band, Encoding
from geop2p.raster.vrt import Overview, TiledRaster, mask_xml, vrt_xml
from geop2p.raster.writing import fill_value, write_cog

COARSEST = 256  # pixels of the side of a part in its last overview
COPY, MASK = "overview.tif", "overview_mask.tif"
VALID = Encoding("image", "uint8", (Band(),))


def levels(part_side: int) -> int:
    """How many overviews a part has, each half the side of the one before: one at least."""
    return max(1, math.ceil(math.log2(part_side / COARSEST)))


def write_overview(folder: Path, raster: TiledRaster, part_side: int) -> Overview:
    """Write a mosaic in the size of its parts' last overviews, as a COG.

    Integer imagery has a second one, of where it is valid: GDAL takes overviews of a mask from a band only.

    Args:
        folder: Where they go, beside the parts.
        raster: The mosaic.
        part_side: Of the parts.
    """
    grid, factor = raster.grid, 2 ** levels(part_side)
    small = grid.resized(-(-grid.height // factor), -(-grid.width // factor))
    texts = {COPY: (vrt_xml(dataclasses.replace(raster, grid=small), seen_on=grid), raster.encoding)}
    if fill_value(raster.encoding) is None:
        texts[MASK] = mask_xml(small, raster.parts, grid), VALID
    for name, (text, kind) in texts.items():
        vrt = (folder / name).with_suffix(".vrt")
        write_text(vrt, text)
        write_cog(vrt, folder / name, kind)
        vrt.unlink()
    return Overview(COPY, MASK if MASK in texts else None, small)
