"""Which chip trains, validates or tests. Opens no files but those that say the split."""

import dataclasses
import logging
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from geop2p.config import SPLITS, Split, TileConfig
from geop2p.errors import ChipSetError
from geop2p.raster.csv_rows import read_rows
from geop2p.raster.grid import Grid
from geop2p.tiling.areas import codes_on, read_areas
from geop2p.tiling.blocks import FREE, ChipLattice, Codes, Mask, Values, assign_with_classes, lacking, split_block_side
from geop2p.tiling.chips import Scene
from geop2p.tiling.rows import share_columns
from geop2p.tiling.table import ChipTable

NEAR_SPLIT = "near another split"
NEAR_SCENE = "near another split of an earlier scene"
ACROSS_AREAS = "on the areas of several splits"

log = logging.getLogger(__name__)


def read_split_file(path: Path) -> dict[str, Split]:
    """Split of every scene from a CSV with the columns scene, split and optionally group.

    Raises:
        ConfigError: It is missing or lacks a column.
        ChipSetError: It names another split, or a scene or group is in two splits.
    """
    rows = read_rows(path, ("scene", "split"), ("group",))
    result: dict[str, Split] = {}
    groups: dict[str, Split] = {}
    for number, row in enumerate(rows, start=2):
        scene, found, group = row["scene"], row["split"], row["group"]
        split = next((name for name in SPLITS if name == found), None)
        if split is None:
            raise ChipSetError(f"{path}: line {number} has split '{found}', expected {', '.join(SPLITS)}")
        if result.setdefault(scene, split) != split:
            raise ChipSetError(f"{path}: scene '{scene}' is in {result[scene]} and in {split}")
        if group and groups.setdefault(group, split) != split:
            raise ChipSetError(f"{path}: group '{group}' is in {groups[group]} and in {split}; a group has one split")
    return result


def near(chips: ChipTable, others: ChipTable, buffer: float, grid: Grid) -> Mask:
    """Which chips share ground with others or come nearer to them than the buffer.

    Args:
        chips: Footprints in any CRS, or in pixels without CRS.
        others: Footprints in any CRS; without CRS those of other scenes lie elsewhere.
        buffer: In pixels of `grid`, along its rows as along its columns.
        grid: The grid in whose pixels distances are told. Touching edges are told from overlap to a hundredth of one.

    Returns:
        bool, one for each row of `chips`.
    """
    result = np.zeros(len(chips), bool)
    if chips.crs is None and len(chips):
        others = others.of_scenes(set(chips["scene"]))
    if len(chips) and len(others):
        here, there = _in_pixels(chips, grid), _in_pixels(others, grid)
        inner = shapely.buffer(here, -0.01, join_style="mitre")
        result[np.unique(shapely.STRtree(there).query(inner, predicate="dwithin", distance=buffer)[0])] = True
    return result


def _in_pixels(chips: ChipTable, grid: Grid) -> npt.NDArray[np.object_]:
    """Footprints as (column, row) of a grid; None for those that have no place in its CRS."""
    shapes = (chips if grid.crs is None else chips.to_crs(grid.crs)).shapes.copy()
    shapes[~np.isfinite(shapely.bounds(shapes)).all(axis=1)] = None
    placed: npt.NDArray[np.object_] = shapely.transform(
        shapes, lambda places: np.column_stack(~grid.transform @ tuple(places.T))
    )
    return placed


def find_leaks(index: ChipTable, buffer: float, grid: Grid) -> Mask:
    """Which chips of a scene must go, so that no two splits share ground or come nearer than the buffer.

    Test chips stay before validation chips, these before training chips.

    Args:
        index: The scene's chips with the column `split`.
        buffer: In pixels of the scene's grid.
        grid: The scene's grid.

    Returns:
        bool, one for each row of `index`.
    """
    split = index["split"]
    dropped = np.zeros(len(index), bool)
    for name, stronger in (("val", ("test",)), ("train", ("val", "test"))):
        own = split == name
        others = index.rows(np.isin(split, stronger) & ~dropped)
        dropped[own] |= near(index.rows(own), others, buffer, grid)
    return dropped


def split_chips(
    table: ChipTable, scene: Scene, fixed: ChipTable, config: TileConfig
) -> tuple[ChipTable, dict[str, int]]:
    """Add the columns split and block, and leave out chips that come too near to another split.

    Chips of earlier scenes keep their split, so chips on their ground take it too where the rule leaves a choice.

    Args:
        table: The scene's chips in its CRS, with row_off, col_off (pixels), valid (share) and class shares.
        scene: Where they lie.
        fixed: Chips of earlier scenes.
        config: Rule, shares, buffer and seed.

    Returns:
        The chips that are left, and how many are not, by reason.

    Raises:
        ChipSetError: The split file, or the polygons that say the split, are bad or lack the scene.
    """
    buffer, grid = config.buffer, scene.grid
    beside = np.stack([_near_earlier(table, fixed.of_split(name), buffer, grid) for name in SPLITS])
    beside_one = beside.sum(axis=0) == 1
    areas = np.where(beside.sum(axis=0) > 1, 0.0, table["valid"])  # near two splits it will be dropped
    given = np.where(beside_one, beside.argmax(axis=0), FREE).astype(np.int8)
    lattice = lattice_of(table["row_off"], table["col_off"], areas, given, config)
    codes = _codes(lattice, table, scene, fixed, config)
    blocks = np.array([f"{row}_{col}" for row, col in lattice.blocks], object)
    named = table.assign(split=np.array([*SPLITS, ""], object)[codes], block=blocks)  # FREE is -1, the last
    nowhere = codes == FREE
    taken = (beside & (np.arange(len(SPLITS))[:, None] != codes)).any(axis=0) & ~nowhere
    if taken.any():
        _say_overlap(named.rows(taken), fixed, buffer, grid)
    rest = named.rows(~nowhere & ~taken)
    leaks = find_leaks(rest, buffer, grid)
    dropped = {NEAR_SPLIT: int(leaks.sum()), NEAR_SCENE: int(taken.sum()), ACROSS_AREAS: int(nowhere.sum())}
    return rest.rows(~leaks), dropped


def _near_earlier(table: ChipTable, earlier: ChipTable, buffer: float, grid: Grid) -> Mask:
    """Which chips come too near to chips of earlier scenes; scenes without CRS have no common ground."""
    if table.crs is None or earlier.crs is None:
        return np.zeros(len(table), bool)
    return near(table, earlier, buffer, grid)


def lattice_of(
    row_offs: npt.NDArray[np.int64], col_offs: npt.NDArray[np.int64], areas: Values, given: Codes, config: TileConfig
) -> ChipLattice:
    """Where chips lie in steps of the stride, with their valid ground and the splits that they have already."""
    rows, cols = row_offs // config.step, col_offs // config.step
    across = max(int(rows.max(initial=0)), int(cols.max(initial=0)))  # strides that no two chips are further apart than
    return ChipLattice(
        rows=rows,
        cols=cols,
        areas=areas,
        given=given,
        side=split_block_side(list(zip(rows, cols, strict=True)), math.ceil(config.size / config.step)),
        reach=min((config.size + config.buffer - 1) // config.step, across),
    )


def _codes(lattice: ChipLattice, table: ChipTable, scene: Scene, fixed: ChipTable, config: TileConfig) -> Codes:
    """The split of every chip by the rule of the settings, as its place in `SPLITS`, or `FREE` if it has none."""
    shares = config.split_shares
    held = {split: float(fixed.of_split(split)["valid"].sum()) for split in SPLITS}
    match config.split_by:
        case "polygon":
            return codes_on(read_areas(config, scene.grid), table)
        case "file":
            return np.full(len(table), SPLITS.index(_split_of_scene(scene, fixed, config)), np.int8)
        case "scene":
            grounds = [lattice.areas[lattice.given == code].sum() for code in range(len(SPLITS))]
            split = SPLITS[int(np.argmax(grounds))] if any(grounds) else lacking(held, shares)
            return np.full(len(table), SPLITS.index(split), np.int8)
        case "random":
            log.warning(
                "chips split at random lie side by side with the training: scores will be better than the model"
            )
            lattice = dataclasses.replace(lattice, side=1)
    known = fixed.of_split("train")
    columns = [name for name in share_columns(table) if name not in known or not (known[name] > 0).any()]
    classes = np.array([table[name] for name in columns], np.float64).reshape(-1, len(table))
    return assign_with_classes(lattice, shares, f"{config.seed}:{scene.id}", held, classes)


def check_rule(scene: Scene, config: TileConfig) -> None:
    """Refuse a split file or polygons that do not fit a scene, before it is cut.

    Raises:
        ChipSetError: The split file, or the polygons that say the split, are bad or lack the scene.
    """
    if config.split_by == "file":
        _given_split(scene, config)
    if config.split_by == "polygon":
        read_areas(config, scene.grid)


def _given_split(scene: Scene, config: TileConfig) -> dict[str, Split]:
    """The split file, if it has the scene."""
    assert config.split_file is not None
    given = read_split_file(config.split_file)
    if scene.id not in given:
        raise ChipSetError(f"{config.split_file}: has no row for scene '{scene.id}'; it has {', '.join(given)}")
    return given


def _split_of_scene(scene: Scene, fixed: ChipTable, config: TileConfig) -> Split:
    """The split that the split file gives a scene; for earlier scenes it must still say what it said then."""
    given = _given_split(scene, config)
    for name, split in zip(fixed["scene"], fixed["split"], strict=True):
        if given.get(name, split) != split:
            raise ChipSetError(
                f"{config.split_file}: scene '{name}' is in {given[name]}, the chip set has it in {split}; put the row "
                "back, or --overwrite to replace the chip set"
            )
    return given[scene.id]


def _say_overlap(lost: ChipTable, fixed: ChipTable, buffer: float, grid: Grid) -> None:
    """Name the scenes whose ground costs chips of a new one."""
    found = []
    for scene, split in sorted(set(zip(fixed["scene"], fixed["split"], strict=True))):
        chips = fixed.rows((fixed["scene"] == scene) & (fixed["split"] == split))
        count = int(near(lost.rows(lost["split"] != split), chips, buffer, grid).sum())
        found += [f"{count} near {split} chips of '{scene}'"] if count else []
    name, splits = lost["scene"][0], " and ".join(sorted(set(lost["split"])))
    log.warning("scene '%s' overlaps: %d of its %s chips are dropped, %s", name, len(lost), splits, ", ".join(found))
