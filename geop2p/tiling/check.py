"""Proof that a chip set is sound: its chips are whole, and no split sees the ground of another."""

import dataclasses
import hashlib
import itertools
from collections import Counter
from contextlib import ExitStack

from rasterio.windows import Window

from geop2p.config import SPLITS, Split
from geop2p.errors import ChipSetError, GeoP2PError
from geop2p.progress import progress_bar
from geop2p.raster.grid import Grid
from geop2p.raster.reading import describe_raster
from geop2p.tiling.chips import SIDES, STAGING, ChipSet, Entry
from geop2p.tiling.counting import present
from geop2p.tiling.geotiff import chip_path
from geop2p.tiling.layouts import Chip
from geop2p.tiling.rows import class_columns
from geop2p.tiling.splits import near
from geop2p.tiling.table import ChipTable, count_splits

ROUNDING = 1e-6  # of shares


def check_chips(chipset: ChipSet, progress: bool = False) -> list[str]:
    """What is wrong with a chip set, a line each; empty if it is sound.

    Every chip is read: both sides must have the size, bands and type that the description promises, GeoTIFFs lie where
    the index says, and as much of a chip is valid, and of every class, as it says. No chip of a split may share ground
    with, or come nearer than the buffer to, a chip of another, measured in pixels of the scene that came later. Chips
    without a place on the ground may not hold the same pixels in two splits. No two chips may have one name.
    """
    index = chipset.table()
    problems = []
    if (chipset.folder / STAGING).is_dir():
        problems.append("tiling was interrupted; repeat the tile command to finish it")
    if count_splits(index) != chipset.counts:
        problems.append(f"the index has {count_splits(index)} chips, the description says {chipset.counts}")
    several = {name: count for name, count in Counter(index["id"]).items() if count > 1}
    problems += [f"{name} is the name of {count} chips, expected one" for name, count in several.items()]
    grids = {scene.id: scene.grid for scene in chipset.scenes}
    nowhere = {name for name, grid in grids.items() if grid.crs is None}
    alike: dict[bytes, list[tuple[Split, str]]] = {}
    with progress_bar(len(index), "check", progress) as advance:
        for split in SPLITS:
            try:
                entries = chipset.entries(split)
            except ChipSetError as error:  # whose pixels are then those of others
                problems.append(str(error))
                continue
            own = index.of_split(split)
            with ExitStack() as stack:
                try:
                    reader = stack.enter_context(chipset.reader(split))
                except GeoP2PError as error:  # of an array that holds them all
                    problems.append(str(error))
                    continue
                for row, entry in enumerate(entries):
                    try:
                        chip = reader.read(row)
                    except GeoP2PError as error:
                        problems.append(str(error))
                    else:
                        problems += _misplaced(chipset, split, entry, grids.get(entry.scene)) or _changed(
                            chipset, chip, own, row
                        )
                        if entry.scene in nowhere:
                            digest = hashlib.sha256(chip.source.tobytes() + chip.target.tobytes()).digest()
                            alike.setdefault(digest, []).append((split, entry.id))
                    advance()
    for twins in alike.values():
        if len({split for split, _ in twins}) > 1:
            problems.append(" and ".join(f"{name} ({split})" for split, name in twins) + " hold the same pixels")
    if chipset.settings["split_by"] in ("scene", "file"):
        for scene in chipset.scenes:
            found = set(index["split"][index["scene"] == scene.id])
            if len(found) > 1:
                told = " and ".join(name for name in SPLITS if name in found)
                problems.append(f"scene '{scene.id}' is in {told}, though its rule gives a scene one split")
    return list(dict.fromkeys(problems + _leaks(chipset, index)))


def _misplaced(chipset: ChipSet, split: Split, entry: Entry, grid: Grid | None) -> list[str]:
    """The files of a chip that lie elsewhere on its scene's grid than the index says, a line each."""
    if chipset.layout != "geotiff" or grid is None or grid.crs is None:
        return []
    here, lines = grid.window(Window(entry.col_off, entry.row_off, chipset.size, chipset.size)), []
    for side in SIDES:
        path = chip_path(chipset.folder, side, split, entry.id)
        there = describe_raster(path).grid
        if there.crs is not None and there.crs.is_geographic and grid.crs.is_geographic:
            there = dataclasses.replace(there, crs=here.crs)  # centred on other longitudes: of what is read, each
        if there.offset_in(here) != (0, 0):
            lines.append(f"{path}: lies on {there.describe()}, the index says {here.describe()}; it is of another chip")
    return lines


def _changed(chipset: ChipSet, chip: Chip, own: ChipTable, row: int) -> list[str]:
    """What the pixels of a chip show otherwise than its row of the index tells, as another chip does, in a line."""
    count = int(chip.valid.sum())
    shares = {"valid": count / chip.valid.size} if "valid" in own else {}
    for side, values in zip(SIDES, (chip.source, chip.target), strict=True):
        if chipset.encoding(side).is_classes and count:
            shares |= dict.fromkeys(class_columns(own, side).values(), 0.0)
            codes, pixels = present(values[0][chip.valid])
            shares |= {f"{side}_{code}": many / count for code, many in zip(codes, pixels, strict=True)}
    told = {name: float(own[name][row]) if name in own else 0.0 for name in shares}
    apart = [name for name in shares if abs(shares[name] - told[name]) > ROUNDING]
    return [
        f"{own['id'][row]}: {name} is {100 * shares[name]:.4g} % of it, the index says {100 * told[name]:.4g} %; its "
        "pixels have changed, or are those of another chip"
        for name in apart[:1]
    ]


def _leaks(chipset: ChipSet, index: ChipTable) -> list[str]:
    """Chips that share ground with another split, or come nearer than the buffer, a line each.

    A scene was split beside those before it, with distances in pixels of its own grid; so they are told here.
    """
    buffer, lines = chipset.settings["buffer"], dict[str, None]()
    names = [scene.id for scene in chipset.scenes]
    for number, scene in enumerate(chipset.scenes):
        grid = scene.grid
        seen = index.of_scenes([scene.id] if grid.crs is None else names[: number + 1])
        seen = seen if grid.crs is None else seen.to_crs(grid.crs)
        own = seen.of_scenes([scene.id])
        for split, other in itertools.permutations(SPLITS, 2):
            for mine, others in ((own, seen), (seen, own)):
                chips = mine.of_split(split)
                for name in chips["id"][near(chips, others.of_split(other), buffer, grid)]:
                    lines[f"{name} ({split}) shares ground with {other} chips, or comes too near"] = None
    return list(lines)
