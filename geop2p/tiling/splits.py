"""Which chip trains, validates or tests. Opens no files but the split file."""

import csv
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from geopandas import GeoDataFrame

from geop2p.config import SPLITS, Split, TileConfig
from geop2p.errors import ChipSetError
from geop2p.tiling.chips import Scene

MOST_CHIPS_A_BLOCK = 8  # a side
LEAST_BLOCKS = 40

Block = tuple[int, int]

log = logging.getLogger(__name__)


def block_side(positions: Sequence[tuple[int, int]]) -> int:
    """Chips along the side of a block: the largest number up to 8 that leaves at least 40 blocks, else 1.

    Args:
        positions: (row, column) of every chip with valid ground, counted in strides.
    """
    for side in range(MOST_CHIPS_A_BLOCK, 1, -1):
        if len({(row // side, col // side) for row, col in positions}) >= LEAST_BLOCKS:
            return side
    return 1


def assign_blocks(
    areas: Mapping[Block, float],
    shares: Mapping[Split, float],
    key: str,
    held: Mapping[Split, float] | None = None,
) -> dict[Block, Split]:
    """Give every block a split, so that the valid ground of the splits is as the shares ask.

    Blocks are taken in an order hashed from `key`; each goes to the split that lacks the largest part of its
    share, so that no split stays empty while there are blocks.

    Args:
        areas: Valid ground of every block, any unit.
        shares: Share of each split, summing to 1; splits of share 0 get nothing.
        key: Seed and scene; the same key gives the same split.
        held: Valid ground that the splits have from earlier scenes.
    """

    def order(block: Block) -> bytes:
        return hashlib.sha256(f"{key}:{block[0]}:{block[1]}".encode()).digest()

    given: dict[Split, float] = dict.fromkeys(SPLITS, 0.0) | dict(held or {})
    result: dict[Block, Split] = {}
    for block in sorted(areas, key=order):
        split = lacking(given, shares)
        result[block] = split
        given[split] += areas[block]
    return result


def lacking(given: Mapping[Split, float], shares: Mapping[Split, float]) -> Split:
    """The split that has least of what its share asks for, training first where they are equal."""
    return min((split for split in SPLITS if shares[split] > 0), key=lambda split: given[split] / shares[split])


def read_split_file(path: Path) -> dict[str, Split]:
    """Split of every scene from a CSV with the columns scene, split and optionally group.

    Raises:
        ChipSetError: It is missing, lacks a column, names another split, or a group is in two splits.
    """
    if not path.is_file():
        raise ChipSetError(f"{path}: no such split file")
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except UnicodeDecodeError as error:
        raise ChipSetError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    if not rows or not {"scene", "split"} <= set(rows[0]):
        raise ChipSetError(f"{path}: expected a CSV with the columns scene, split and optionally group")
    result: dict[str, Split] = {}
    groups: dict[str, Split] = {}
    for number, row in enumerate(rows, start=2):
        found = (row["split"] or "").strip()
        split = next((name for name in SPLITS if name == found), None)
        if split is None:
            raise ChipSetError(f"{path}: line {number} has split '{found}', expected {', '.join(SPLITS)}")
        scene, group = (row["scene"] or "").strip(), (row.get("group") or "").strip()
        if result.setdefault(scene, split) != split:
            raise ChipSetError(f"{path}: scene '{scene}' is in {result[scene]} and in {split}")
        if group and groups.setdefault(group, split) != split:
            raise ChipSetError(f"{path}: group '{group}' is in {groups[group]} and in {split}; a group has one split")
    return result


def near(chips: GeoDataFrame, others: GeoDataFrame, distance: float, pixel: float) -> npt.NDArray[np.bool_]:
    """Which chips share ground with others or come nearer to them than a distance.

    Args:
        chips: Footprints in a projected or geographic CRS, or in pixels without CRS.
        others: Footprints in any CRS; without CRS those of other scenes lie elsewhere.
        distance: In units of the CRS of `chips`.
        pixel: Side of a pixel in the same units; touching edges are told from overlap to a hundredth of it.

    Returns:
        bool, one for each row of `chips`.
    """
    result = np.zeros(len(chips), bool)
    if chips.crs is None and len(chips):
        others = others[others["scene"].isin(chips["scene"])]
    if len(chips) and len(others):
        inner = shapely.buffer(chips.geometry.to_numpy(), -0.01 * pixel, join_style="mitre")
        there = others if chips.crs is None else others.to_crs(chips.crs)
        tree = shapely.STRtree(there.geometry.to_numpy())
        result[np.unique(tree.query(inner, predicate="dwithin", distance=distance)[0])] = True
    return result


def find_leaks(index: GeoDataFrame, fixed: GeoDataFrame, buffer: float, pixel: float) -> npt.NDArray[np.bool_]:
    """Which chips of a new scene must go, so that no two splits share ground or come nearer than the buffer.

    Test chips stay before validation chips, these before training chips; chips of earlier scenes stay.

    Args:
        index: The scene's chips with the column `split`, in the scene's CRS.
        fixed: Chips of earlier scenes with the column `split`, in any CRS.
        buffer: In units of the scene's CRS.
        pixel: Side of a pixel in units of the scene's CRS.

    Returns:
        bool, one for each row of `index`.
    """
    split = index["split"].to_numpy()
    dropped = np.zeros(len(index), bool)
    for name in SPLITS:
        own = split == name
        dropped[own] |= near(index.loc[own], fixed.loc[fixed["split"] != name], buffer, pixel)
    for name, stronger in (("val", ("test",)), ("train", ("val", "test"))):
        own = split == name
        others = index.loc[np.isin(split, stronger) & ~dropped]
        dropped[own] |= near(index.loc[own], others, buffer, pixel)
    return dropped


def split_chips(table: GeoDataFrame, scene: Scene, fixed: GeoDataFrame, config: TileConfig) -> GeoDataFrame:
    """Add the columns split and block, and leave out chips that come too near to another split.

    Args:
        table: The scene's chips in its CRS, with row_off, col_off (pixels) and valid (share).
        scene: Where they lie.
        fixed: Chips of earlier scenes.
        config: Rule, shares, buffer and seed.

    Raises:
        ChipSetError: The split file is bad or lacks the scene.
    """
    positions = list(zip(table["row_off"] // config.step, table["col_off"] // config.step, strict=True))
    side = block_side(positions)
    blocks = [(int(row) // side, int(col) // side) for row, col in positions]
    splits = _splits(blocks, table, scene, fixed, config)
    named = table.assign(split=splits, block=[f"{row}_{col}" for row, col in blocks])
    pixel = math.sqrt(abs(scene.grid.transform.determinant))
    leaks = find_leaks(named, fixed, config.buffer * pixel, pixel)
    return named[~leaks].reset_index(drop=True)


def _splits(
    blocks: list[tuple[int, int]],
    table: GeoDataFrame,
    scene: Scene,
    fixed: GeoDataFrame,
    config: TileConfig,
) -> list[Split]:
    """The split of every chip by the rule of the settings."""
    key, shares = f"{config.seed}:{scene.id}", config.split_shares
    if config.split_file is not None:
        given = read_split_file(config.split_file)
        if scene.id not in given:
            raise ChipSetError(f"{config.split_file}: has no row for scene '{scene.id}'; it has {', '.join(given)}")
        return [given[scene.id]] * len(blocks)
    held = {split: float(fixed.loc[fixed["split"] == split, "valid"].sum()) for split in SPLITS}
    if config.split_by == "scene":
        return [lacking(held, shares)] * len(blocks)
    places = list(enumerate([0] * len(blocks))) if config.split_by == "random" else blocks
    if config.split_by == "random":
        log.warning("chips split at random lie side by side with the training: scores will be better than the model")
    areas: Counter[tuple[int, int]] = Counter()
    for place, valid in zip(places, table["valid"], strict=True):
        areas[place] += valid
    assigned = assign_blocks(areas, shares, key, held)
    return [assigned[place] for place in places]
