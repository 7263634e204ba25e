"""Seeing a chip set: pairs of every split in one picture."""

import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from geop2p.config import SPLITS, Split
from geop2p.raster.atomic import replacing
from geop2p.raster.rendering import render
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.index import SPLIT_COLORS
from geop2p.tiling.layouts import Chip

PREVIEW = "preview.png"
PAIRS = 6  # of each split
LARGEST = 192  # pixels of a chip in the picture
GAP = 6


def write_preview(chipset: ChipSet) -> None:
    """Save pairs of every split as `preview.png`: a row of sources above a row of targets, framed by split.

    The colours of the frames are those that QGIS shows the index in: train blue, val orange, test red.
    """
    picture = Image.fromarray(np.concatenate([_row(chipset, split) for split in SPLITS if chipset.counts[split]]))
    with replacing(chipset.folder / PREVIEW) as temporary:
        picture.save(temporary, compress_level=1, compress_type=zlib.Z_RLE)  # larger than it could be, and much faster


def _row(chipset: ChipSet, split: Split) -> npt.NDArray[np.uint8]:
    """Pairs of a split side by side, uint8 (rows, cols, 3)."""
    shown = np.unique(np.linspace(0, chipset.counts[split] - 1, PAIRS).astype(int))
    with chipset.reader(split) as reader:
        pairs = [_pair(chipset, split, reader.read(int(row))) for row in shown]
    height, width = pairs[0].shape[:2]
    row = np.full((height + GAP, PAIRS * (width + GAP), 3), 255, np.uint8)
    for place, pair in enumerate(pairs):
        row[:height, place * (width + GAP) : place * (width + GAP) + width] = pair
    return row


def _pair(chipset: ChipSet, split: Split, chip: Chip) -> npt.NDArray[np.uint8]:
    """Source above target inside a frame of the split's colour, uint8 (rows, cols, 3)."""
    step = max(1, -(-chipset.size // LARGEST))
    thinned = np.s_[..., ::step, ::step]
    sides = ((chip.source, chipset.source), (chip.target, chipset.target))
    pair = np.concatenate([render(values[thinned], chip.valid[thinned], encoding) for values, encoding in sides])
    framed = np.empty((len(pair) + 6, len(pair[0]) + 6, 3), np.uint8)
    framed[:] = SPLIT_COLORS[split]
    framed[3:-3, 3:-3] = pair
    return framed
