"""A small copy of a mosaic that is left in parts, so that drawing all of it does not open every one of them."""

import math
from collections.abc import Sequence
from pathlib import Path

from geop2p.raster.atomic import write_text
from geop2p.raster.encoding import Band, Encoding
from geop2p.raster.grid import Grid
from geop2p.raster.vrt import BandSummary, Overview, Part, mask_xml, vrt_xml
from geop2p.raster.writing import fill_value, write_cog

COARSEST = 256  # pixels of the side of a part in its last overview
COPY, MASK = "overview.tif", "overview_mask.tif"
VALID = Encoding("image", "uint8", (Band(),))


def levels(part_side: int) -> int:
    """How many overviews a part has, each half the side of the one before: one at least."""
    return max(1, math.ceil(math.log2(part_side / COARSEST)))


def write_overview(
    folder: Path,
    grid: Grid,
    encoding: Encoding,
    parts: Sequence[Part],
    part_side: int,
    summaries: Sequence[BandSummary],
    tags: dict[str, str],
) -> Overview:
    """Write a mosaic in the size of its parts' last overviews, as a COG.

    Integer imagery has a second one, of where it is valid: GDAL takes overviews of a mask from a band only.

    Args:
        folder: Where they go, beside the parts.
        grid: Of the mosaic.
        encoding: What it holds.
        parts: Its files.
        part_side: Of the parts.
        summaries: Statistics of each band.
        tags: What it says of its making.
    """
    factor = 2 ** levels(part_side)
    small = grid.resized(-(-grid.height // factor), -(-grid.width // factor))
    texts = {COPY: (vrt_xml(small, encoding, parts, summaries, tags, seen_on=grid), encoding)}
    if fill_value(encoding) is None:
        texts[MASK] = mask_xml(small, parts, grid), VALID
    for name, (text, kind) in texts.items():
        vrt = (folder / name).with_suffix(".vrt")
        write_text(vrt, text)
        write_cog(vrt, folder / name, kind)
        vrt.unlink()
    return Overview(COPY, MASK if MASK in texts else None, small)
