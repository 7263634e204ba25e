"""A chip set made of the chips of another tool."""

import dataclasses
import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from affine import Affine
from tqdm import tqdm

from geop2p.config import SPLITS, KindChoice, Split, TileConfig
from geop2p.config.fields import refuse_unused
from geop2p.errors import ChipSetError, ConfigError
from geop2p.interop.folders import ForeignChip, Side, find_foreign
from geop2p.raster.class_table import FOREIGN, ClassTable, read_class_table
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.layers import Layer, conclude
from geop2p.raster.reading import RasterInfo, describe_raster
from geop2p.tiling.chips import DESCRIPTION, SIDES, STAGING, ChipSet, Scene
from geop2p.tiling.cutting import Region, RegionPair
from geop2p.tiling.layouts import layout_of
from geop2p.tiling.placing import commit_scene
from geop2p.tiling.sides import merged_encoding, with_choices
from geop2p.tiling.slots import Slots
from geop2p.tiling.staging import metadata_of, staged_chips
from geop2p.tiling.survey import Survey

SAMPLE = 16  # chips that a kind is concluded from
USED = (
    "format", "direction", "source_kind", "target_kind", "classes", "image_scaling", "min_valid", "max_shift",
    "max_share",
)  # fmt: skip
SPLITTING = ("split", "split_by", "buffer", "seed")  # settings of a split that no folder gives

log = logging.getLogger(__name__)

Placed = list[tuple[ForeignChip, int, int]]  # chips of a scene with row_off and col_off


@dataclass(frozen=True)
class ForeignSet:
    """The chips of another tool, looked at and not yet imported.

    Attributes:
        config: Settings, as the chips decide them.
        layers: What both sides hold.
        given: Split of every chip by its name; empty: the rule of the settings decides.
        scenes: The scenes that they make, each with its chips in their places.
    """

    config: TileConfig
    layers: tuple[Layer, Layer]
    given: dict[str, Split]
    scenes: list[tuple[Scene, Placed]]


def look_at(origin: Path, config: TileConfig) -> ForeignSet:
    """Find the chips of a folder of another tool, and what they hold.

    Chips with a place on the ground keep it; they are a scene for each grid that they share. Chips without one stand
    side by side in a grid without CRS.

    Raises:
        ChipSetError: The folder holds no chips, or only some have a split.
        ConfigError: The settings do not fit the chips.
    """
    chips = find_foreign(origin, config.direction)
    if config.format == "virtual":
        raise ConfigError(
            f"{origin}: chips of another tool have no layers to read virtual chips from; use another --format"
        )
    named = [chip for chip in chips if chip.split is not None]
    if named and len(named) < len(chips):
        lone = next(chip for chip in chips if chip.split is None)
        raise ChipSetError(f"{lone.files[0]}: lies in no folder of a split, others do ({', '.join(SPLITS)}); move it")
    if named:
        refuse_unused(config, USED, f"for chips of another tool in folders of splits ({origin})")
    refuse_unused(config, (*USED, *SPLITTING), f"for chips of another tool ({origin})")
    if config.split_by not in ("block", "random"):
        raise ConfigError(f"{origin}: splits by scene, file or polygon need layers, not chips of another tool")
    if config.buffer and any(chip.grid is None for chip in chips):
        raise ConfigError(f"{origin}: a buffer of {config.buffer} pixels needs chips with a place on the ground")
    size = chips[0].read()[1][0].shape[1]
    config = dataclasses.replace(config, size=size, stride=None)
    if not named and chips[0].grid is None and config.split_by == "block":
        config = dataclasses.replace(config, split_by="random")
    layers = _layers(origin, chips, config)
    given = {chip.name: chip.split for chip in chips if chip.split is not None}
    if missing := [split for split in SPLITS if given and split not in given.values()]:
        log.warning("%s: has no chips for %s", origin, " and ".join(missing))
    return ForeignSet(config, layers, given, list(_scenes(origin, chips, size, layers)))


def import_chips(foreign: ForeignSet, folder: Path, progress: bool) -> None:
    """Make a chip set of the chips of another tool.

    Raises:
        ChipSetError: They differ in size, bands or type, or a split would be empty.
        OutputError: They cannot be written.
    """
    config, layers, given = foreign.config, foreign.layers, foreign.given
    for number, (scene, placed) in enumerate(foreign.scenes, start=1):
        earlier = ChipSet.open(folder) if (folder / DESCRIPTION).is_file() else None
        drafts = tuple(merged_encoding(layer, side, earlier) for side, layer in zip(SIDES, layers, strict=True))
        staging = folder / STAGING / scene.id
        staging.mkdir(parents=True)
        slots, metadata = _slots(placed, given), metadata_of(layers, drafts)
        survey, done = Survey(scene.id, layers, drafts, config, len(placed)), []
        with closing(layout_of(config.layout).open_writer(staging, scene.grid, metadata, slots)) as writer:
            for place, (chip, row, col) in enumerate(tqdm(placed, unit="chip", desc=scene.id, disable=not progress)):
                ground = _ground(chip, row, col, config.size, layers)
                found = survey.examine(place, ground)
                for entry in found.entries:
                    entry["id"] = chip.name
                    writer.add(chip.name, row, col, partial(ground.chip, row, col))
                done.append(found)
        staged = staged_chips(scene, layers, drafts, config, done, slots)
        commit_scene(staging, staged, config, earlier, last=number == len(foreign.scenes), given=given or None)
        shutil.rmtree(staging)


def _slots(placed: Placed, given: dict[str, Split]) -> Slots:
    """Chips whose split is given are expected in it, others in one split."""
    codes = [SPLITS.index(given.get(chip.name, SPLITS[0])) for chip, _, _ in placed]
    rows, cols = (np.array(offsets, np.int64) for offsets in list(zip(*placed, strict=True))[1:])
    return Slots(rows, cols, np.array(codes, np.int8))


def _joined(shown: list[tuple[Side, Side]], number: int) -> Side:
    """One side of some chips, side by side."""
    values, valid = zip(*(pair[number] for pair in shown), strict=True)
    return np.concatenate(values, axis=-1), np.concatenate(valid, axis=-1)


def _is_drawn(table: ClassTable, values: Array, valid: Mask) -> bool:
    """Whether a side is a map: one band of whole numbers, or in the colours of the table."""
    if len(values) == 1:
        return values.dtype.kind in "iu"
    return len(values) == 3 and values.dtype == np.uint8 and table.unlisted_share(values, valid)[0] <= FOREIGN


def _layers(origin: Path, chips: list[ForeignChip], config: TileConfig) -> tuple[Layer, Layer]:
    """What both sides hold, from a sample of the chips.

    Raises:
        ConfigError: The settings do not fit them.
    """
    table = None if config.classes is None else read_class_table(config.classes)
    looked_at = [chips[place] for place in np.unique(np.linspace(0, len(chips) - 1, SAMPLE).astype(int))]
    shown = [chip.read() for chip in looked_at]
    for chip, pair in zip(looked_at, shown, strict=True):
        for number, ((values, _), (first, _)) in enumerate(zip(pair, shown[0], strict=True)):
            _check_like(chip, number, values, first.shape, first.dtype.name)
    kinds: list[KindChoice] = [config.source_kind, config.target_kind]
    if table is not None and "classes" not in kinds and kinds.count("auto") == 1:
        side = kinds.index("auto")  # the other one is said to be something else
        if _is_drawn(table, *_joined(shown, side)):
            kinds[side] = "classes"
    if table is not None and "classes" not in kinds:
        raise ConfigError(
            f"{table.path}: say which side is the map with --source-kind classes or --target-kind classes"
        )
    found = []
    for number, kind in enumerate(kinds):
        sample = _joined(shown, number)
        files = chips[0].files
        info = describe_raster(files[number]) if len(files) > 1 else _info(files[0], sample[0])
        own = table if kind == "classes" else None
        layer = conclude(origin, info, kind, own, lambda *_, sample=sample, **__: sample)
        log.info("%s: %s holds %s: %s", SIDES[number], origin, layer.kind, layer.reason)
        found.append(layer)
    return with_choices((found[0], found[1]), config)


def _info(file: Path, values: np.ndarray) -> RasterInfo:
    """What half of an image says of itself."""
    bands, rows, cols = values.shape
    colors = ("red", "green", "blue") if bands == 3 else ("gray",)
    return RasterInfo(
        path=str(file),
        grid=Grid(None, Affine.identity(), rows, cols),
        dtype=values.dtype.name,
        count=bands,
        nodata=None,
        names=("",) * bands,
        units=("",) * bands,
        scales=(1.0,) * bands,
        offsets=(0.0,) * bands,
        color_interp=colors,
        palette={},
        categories={},
        has_mask=False,
        block=(rows, cols),
    )


def _scenes(
    origin: Path, chips: list[ForeignChip], size: int, layers: tuple[Layer, Layer]
) -> Iterator[tuple[Scene, Placed]]:
    """The chips of each grid, placed on it; those without ground in a row."""
    groups: list[tuple[Grid, dict[tuple[int, int], ForeignChip]]] = []
    lost = [chip for chip in chips if chip.grid is None]
    for chip in chips:
        if chip.grid is not None:
            for grid, there in groups:
                offset = chip.grid.offset_in(grid)
                if offset is not None and there.setdefault(offset, chip) is chip:  # a turned copy is of another scene
                    break
            else:
                groups.append((chip.grid, {(0, 0): chip}))
    if lost:
        row = Grid(None, Affine(1, 0, 0, 0, -1, 0), size, size * len(lost))
        groups.append((row, {(0, size * number): chip for number, chip in enumerate(lost)}))
    name = origin.resolve().name or "chips"
    for number, (grid, there) in enumerate(groups, start=1):
        placed = [(chip, *offset) for offset, chip in there.items()]
        top, left = min(row for _, row, _ in placed), min(col for _, _, col in placed)
        bottom, right = max(row for _, row, _ in placed) + size, max(col for _, _, col in placed) + size
        corner = grid.transform @ Affine.translation(left, top)
        here = Grid(grid.crs, corner, bottom - top, right - left)
        scene = Scene(
            id=name if len(groups) == 1 else f"{name}-{number}",
            place=here.to_dict(),
            pixel_size=here.pixel_size,
            source=str(origin),
            target=str(origin),
            fingerprint={},
            options={"source_kind": layers[0].kind, "target_kind": layers[1].kind, "imported": True},
            dropped={},
            files={},
        )
        yield scene, sorted(((chip, row - top, col - left) for chip, row, col in placed), key=lambda one: one[1:])


def _ground(chip: ForeignChip, row: int, col: int, size: int, layers: tuple[Layer, Layer]) -> RegionPair:
    """A chip as the reading of a region gives it.

    Raises:
        ChipSetError: It is not like the first one.
    """
    sides = []
    for number, (layer, (values, valid)) in enumerate(zip(layers, chip.read(), strict=True)):
        info = layer.raster
        assert info is not None
        _check_like(chip, number, values, (info.count, size, size), info.dtype)
        if layer.colors is None:
            sides.append((values, valid))
        else:
            codes = layer.colors.codes(values)
            sides.append((codes, valid & (codes[0] != layer.colors.unlisted)))
    (source, first), (target, second) = sides
    return RegionPair(Region((row,), (col,), size), first & second, (lambda _: source, lambda _: target))


def _check_like(chip: ForeignChip, number: int, values: Array, shape: tuple[int, ...], dtype: str) -> None:
    """Refuse one side of a chip, 0 or 1, that is not like that of the first.

    Raises:
        ChipSetError: It has another size, type or number of bands.
    """
    if values.shape != shape or values.dtype.name != dtype:
        file = chip.files[number % len(chip.files)]  # one that holds both sides, or one for each
        raise ChipSetError(
            f"{file}: is {values.shape} of {values.dtype}, the first chip is {shape} of {dtype}; chips of one "
            "set are alike"
        )
