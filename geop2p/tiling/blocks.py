"""Blocks of chips: which of them train, validate or test. Opens no files.

What counts is the ground that is left: a validation block costs its own chips and the training chips around it that
share ground with it, so shares are counted after that loss, while the blocks are given out.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geop2p.config import SPLITS, Split

MOST_CHIPS_A_BLOCK = 8  # a side, counted in chips that lie side by side
LEAST_BLOCKS = 40
FREE = -1  # no split yet
TRAIN, VAL, TEST = range(len(SPLITS))

Block = tuple[int, int]
Codes = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


def split_block_side(positions: Sequence[tuple[int, int]], across: int = 1) -> int:
    """Strides along the side of a block: the largest that leaves at least 40 blocks, from one chip to eight.

    Args:
        positions: (row, column) of every chip with valid ground, counted in strides.
        across: Strides that a chip is wide, rounded up; above 1 where chips overlap.
    """
    places = np.array(positions)
    for side in range(MOST_CHIPS_A_BLOCK * across, across, -1):
        if len(np.unique(places // side, axis=0)) >= LEAST_BLOCKS:
            return side
    return across


def lacking(given: Mapping[Split, float], shares: Mapping[Split, float]) -> Split:
    """The split that has least of what its share asks for, training first where they are equal."""
    return min((split for split in SPLITS if shares[split] > 0), key=lambda split: given[split] / shares[split])


@dataclass(frozen=True)
class ChipLattice:
    """The chips of a scene, counted in strides; every array has one entry a chip.

    Attributes:
        rows: int.
        cols: int.
        areas: Valid ground, any unit.
        given: Split of chips that have one already, as its place in `SPLITS`, else `FREE`.
        side: Strides along the side of a block.
        reach: Two chips share ground, or come nearer than the buffer, if they are at most so many strides apart
            along both axes. (At the corners this is a little more than the buffer asks.)
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    areas: Values
    given: Codes
    side: int
    reach: int

    @property
    def blocks(self) -> list[Block]:
        """(row, column) of every chip's block."""
        return [(int(row) // self.side, int(col) // self.side) for row, col in zip(self.rows, self.cols, strict=True)]

    def around(self, chip: int) -> set[Block]:
        """The blocks whose chips may not be of another split than this one, if it is to stay."""
        near = np.maximum(abs(self.rows - self.rows[chip]), abs(self.cols - self.cols[chip])) <= self.reach
        pairs = zip(self.rows[near] // self.side, self.cols[near] // self.side, strict=True)
        return {(int(row), int(col)) for row, col in pairs}


class _Ground:
    """The lattice as an image, and the ground that each split keeps."""

    def __init__(self, lattice: ChipLattice) -> None:
        shape = (int(lattice.rows.max()) + 1, int(lattice.cols.max()) + 1)
        self.reach = lattice.reach
        self.areas = np.zeros(shape)
        self.codes = np.full(shape, FREE, np.int8)
        self.is_free = np.zeros(shape, bool)
        self.near = np.zeros((len(SPLITS), *shape), bool)  # within reach of a chip of the split
        self.areas[lattice.rows, lattice.cols] = lattice.areas
        self.is_free[lattice.rows, lattice.cols] = True

    def keeps(self, code: int, at: tuple[slice, slice]) -> Mask:
        """Chips of a split that no chip of a stronger one is near: test before validation before training."""
        stays: Mask = self.codes[at] == code
        for stronger in range(code + 1, len(SPLITS)):
            stays &= ~self.near[stronger][at]
        return stays

    def give(self, top: int, left: int, chosen: Mask, code: int) -> Values:
        """Give chips of a window to a split; how much ground each split gains or loses by it."""
        height, width = chosen.shape
        pad = self.reach
        at = (slice(max(0, top - pad), top + height + pad), slice(max(0, left - pad), left + width + pad))
        before = self._grounds(at)
        inner = (slice(top, top + height), slice(left, left + width))
        self.codes[inner][chosen] = code
        self.is_free[inner] &= ~chosen
        spread = np.zeros_like(self.is_free[at])
        spread[top - at[0].start :, left - at[1].start :][:height, :width] = chosen
        self.near[code][at] |= dilated(spread, pad)
        return self._grounds(at) - before

    def _grounds(self, at: tuple[slice, slice]) -> Values:
        return np.array([self.areas[at][self.keeps(code, at)].sum() for code in range(len(SPLITS))], np.float64)


def dilated(mask: Mask, reach: int) -> Mask:
    """Every cell with one of the mask at most `reach` away along both axes."""
    result = mask.copy()
    for lines in (result, result.T):
        covered = 0
        while covered < reach:  # moved as far as it reaches, it reaches twice as far, and loses nothing at the border
            step = min(covered + 1, reach - covered)
            before = lines.copy()
            lines[step:] |= before[:-step]
            lines[:-step] |= before[step:]
            covered += step
    return result


def assign_blocks(
    lattice: ChipLattice,
    shares: Mapping[Split, float],
    key: str,
    held: Mapping[Split, float] | None = None,
    pinned: Collection[Block] = (),
) -> tuple[Codes, Mask]:
    """Give every block a split, so that the valid ground that the splits keep is as the shares ask.

    Chips that have a split already keep it, and the rest of their block takes the one that has most of the block.
    The other blocks are taken in an order hashed from `key`; each goes to the split that lacks the largest part of
    its share, so that no split stays empty while there are blocks.

    Args:
        lattice: The chips.
        shares: Share of each split, summing to 1; splits of share 0 get nothing.
        key: Seed and scene; the same key gives the same split.
        held: Valid ground that the splits have from earlier scenes.
        pinned: Blocks that train, whatever the balance.

    Returns:
        The split of every chip, as its place in `SPLITS`, and which chips are left when those near a stronger split
        are dropped.
    """
    ground = _Ground(lattice)
    kept = np.array([(held or {}).get(split, 0.0) for split in SPLITS])
    blocks = lattice.blocks
    for code in range(len(SPLITS)):
        chosen = np.zeros_like(ground.is_free)
        chosen[lattice.rows[lattice.given == code], lattice.cols[lattice.given == code]] = True
        kept += ground.give(0, 0, chosen, code) if chosen.any() else 0.0
    inherited = _majorities(lattice)

    def order(block: Block) -> tuple[bool, bool, bytes]:
        digest = hashlib.sha256(f"{key}:{block[0]}:{block[1]}".encode()).digest()
        return block not in inherited, block not in pinned, digest

    for block in sorted(set(blocks), key=order):
        top, left = block[0] * lattice.side, block[1] * lattice.side
        chosen = ground.is_free[top : top + lattice.side, left : left + lattice.side].copy()
        least = SPLITS.index(lacking(dict(zip(SPLITS, kept.tolist(), strict=True)), shares))
        kept += ground.give(top, left, chosen, inherited.get(block, TRAIN if block in pinned else least))
    everywhere = (slice(None), slice(None))
    stays = np.any([ground.keeps(code, everywhere) for code in range(len(SPLITS))], axis=0)
    return ground.codes[lattice.rows, lattice.cols], stays[lattice.rows, lattice.cols]


def _majorities(lattice: ChipLattice) -> dict[Block, int]:
    """The split that has most ground of every block in which some chips have one already."""
    grounds: dict[Block, Values] = {}
    for block, code, area in zip(lattice.blocks, lattice.given.tolist(), lattice.areas, strict=True):
        if code != FREE:
            grounds.setdefault(block, np.zeros(len(SPLITS)))[code] += area
    return {block: int(areas.argmax()) for block, areas in grounds.items()}


def assign_with_classes(
    lattice: ChipLattice,
    shares: Mapping[Split, float],
    key: str,
    held: Mapping[Split, float],
    classes: Values,
) -> Codes:
    """Assign blocks so that training keeps a chip of every class, where that leaves no other split empty.

    A class that no training chip would hold pins the surroundings of the chip that holds most of it to training,
    and the blocks are given out again.

    Args:
        lattice: The chips.
        shares: As `assign_blocks` takes them.
        key: As `assign_blocks` takes it.
        held: As `assign_blocks` takes it.
        classes: Share of each class that earlier training chips lack, in every chip: (classes, chips).
    """
    codes, stays = assign_blocks(lattice, shares, key, held)
    pinned: set[Block] = set()
    free = lattice.given == FREE
    untried = [row for row in np.argsort((classes > 0).sum(axis=1), kind="stable") if (classes[row] * free).any()]
    while missing := [row for row in untried if not classes[row][stays & (codes == TRAIN)].any()]:
        untried.remove(missing[0])
        most = int(np.argmax(classes[missing[0]] * lattice.areas * free))
        wanted = pinned | lattice.around(most)
        again = assign_blocks(lattice, shares, key, held, wanted)
        if _filled(*again) >= _filled(codes, stays):
            pinned, (codes, stays) = wanted, again
    return codes


def _filled(codes: Codes, stays: Mask) -> set[int]:
    """The splits that keep chips."""
    return set(codes[stays].tolist())
