"""Where the chips of a scene will probably end, so that most can be written there at once. Opens no files."""

import numpy as np
import numpy.typing as npt

from geop2p.config import SPLITS, TileConfig
from geop2p.raster.grid import Grid
from geop2p.tiling.blocks import FREE, assign_blocks
from geop2p.tiling.scenes import lattice_axis
from geop2p.tiling.splits import lattice_of

Integers = npt.NDArray[np.int64]


class Slots:
    """The split that every chip is expected in, and its rank among the chips of that split.

    Args:
        rows: row_off of every chip that there may be, in order of the index.
        cols: col_off of each.
        codes: Expected split of each, as its place in `SPLITS`; the next number: in none.
    """

    def __init__(self, rows: Integers, cols: Integers, codes: npt.NDArray[np.int8]) -> None:
        ranks = np.empty(len(codes), np.int64)
        for code in np.unique(codes):
            ranks[codes == code] = np.arange(np.count_nonzero(codes == code))
        keys = _keys(rows, cols)
        order = np.argsort(keys)
        self._keys, self._codes, self._ranks = keys[order], codes[order].astype(np.int64), ranks[order]

    @property
    def codes(self) -> list[int]:
        """The expected splits that there are."""
        return [int(code) for code in np.unique(self._codes)]

    def find(self, rows: Integers, cols: Integers) -> tuple[Integers, Integers]:
        """Expected split and rank of chips."""
        at = np.searchsorted(self._keys, _keys(rows, cols))
        return self._codes[at], self._ranks[at]


def _keys(rows: Integers, cols: Integers) -> Integers:
    keys: Integers = rows << 32 | cols
    return keys


def expected_slots(scene: str, grid: Grid, config: TileConfig) -> Slots:
    """What the split is if all ground is valid, training lacks no class, and earlier scenes hold nothing.

    Where the split does not come from blocks all chips are expected in one.
    """
    axes = [np.array(lattice_axis(side, config)) for side in (grid.height, grid.width)]
    rows, cols = (places.ravel() for places in np.meshgrid(*axes, indexing="ij"))
    codes = np.full(len(rows), len(SPLITS), np.int8)
    down, across = (
        np.minimum(config.size, side - axis) / config.size
        for side, axis in zip((grid.height, grid.width), axes, strict=True)
    )
    inside = np.outer(down, across).ravel()
    fits = inside >= config.min_valid
    if config.split_by != "block":
        codes[fits] = 0
    elif fits.any():
        free = np.full(np.count_nonzero(fits), FREE, np.int8)
        lattice = lattice_of(rows[fits], cols[fits], inside[fits], free, config)
        found, stays = assign_blocks(lattice, config.split_shares, f"{config.seed}:{scene}")
        codes[fits] = np.where(stays, found, len(SPLITS))
    return Slots(rows, cols, codes)
