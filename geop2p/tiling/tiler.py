"""`tile`: cut two layers covering the same ground into paired chips."""

import dataclasses
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas

from geop2p.config import SPLITS, TileConfig
from geop2p.errors import ChipSetError, GeoP2PError, OutputError
from geop2p.raster.layers import Layer
from geop2p.raster.reading import fingerprint
from geop2p.tiling.balance import with_weights
from geop2p.tiling.chips import DESCRIPTION, INDEX, SIDES, STAGING, ChipSet, Scene, count_splits, layout_of
from geop2p.tiling.index import INDEX_STYLE, joined
from geop2p.tiling.opening import open_pair, reading_files, reading_options, stored_path
from geop2p.tiling.packed import ARRAYS, array_path
from geop2p.tiling.pairs import find_pairs
from geop2p.tiling.preview import PREVIEW, write_preview
from geop2p.tiling.scenes import scene_grid, scene_name, unused
from geop2p.tiling.sides import ENCODING_CHOICES, merged_encoding, scaled_encoding, with_observed_classes
from geop2p.tiling.splits import check_rule, split_chips
from geop2p.tiling.staging import claim_staging, stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileResult:
    """What a chip set holds after tiling.

    Attributes:
        path: Its folder.
        scenes: Scenes in it.
        chips: Chips in it.
        train: Training chips.
        val: Validation chips.
        test: Test chips.
        dropped: Windows that gave no chip: too little valid ground, or too near to another split.
        seconds: Time it took.
    """

    path: str
    scenes: int
    chips: int
    train: int
    val: int
    test: int
    dropped: int
    seconds: float


def tile(
    source: str | Path,
    target: str | Path,
    chips: str | Path,
    config: TileConfig | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> TileResult:
    """Cut two layers covering the same ground into paired chips.

    Repeated with another pair it adds a scene; repeated with the same pair it does nothing, or finishes what was
    interrupted.

    Args:
        source: Raster or vector layer to translate from, or a folder of them.
        target: Raster or vector layer to translate to, or a folder of them; files of two folders are paired by stem.
        chips: Folder of the chip set.
        config: Settings.
        overwrite: Replace the whole chip set.
        progress: Show a progress bar.

    Raises:
        RasterError: A layer is missing, unreadable or has no CRS.
        GridMismatchError: The layers have no ground in common.
        ChipSetError: The folder holds something else, the chip set was made with other settings, or a split
            would be empty.
        ConfigError: The settings do not fit the layers.
    """
    start = time.monotonic()
    config = config or TileConfig()
    folder = Path(chips)
    if overwrite:
        _remove(folder)
    is_new = not (folder / DESCRIPTION).exists() and not (folder / STAGING).is_dir()
    if is_new and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ChipSetError(f"{folder}: exists and is not a chip set; give a new folder")
    pairs = find_pairs(source, target)
    try:
        for number, pair in enumerate(pairs, start=1):
            _add_pair(folder, pair, config, progress, last=number == len(pairs))
    except GeoP2PError:
        _finish(folder, progress)  # what was added before the failure makes a whole chip set too
        raise
    _finish(folder, progress)
    result = ChipSet.open(folder)
    return TileResult(
        path=str(folder),
        scenes=len(result.scenes),
        chips=sum(result.counts.values()),
        **{str(split): result.counts[split] for split in SPLITS},
        dropped=sum(sum(scene.dropped.values()) for scene in result.scenes),
        seconds=round(time.monotonic() - start, 3),
    )


def _add_pair(folder: Path, pair: tuple[str, str], config: TileConfig, progress: bool, last: bool) -> None:
    """Add the scene of a pair unless the chip set holds it."""
    earlier = ChipSet.open(folder) if (folder / DESCRIPTION).exists() else None
    if earlier is not None:
        _check_settings(earlier, config)
    layers = open_pair(*pair, config, earlier)
    scene = _scene(folder, layers, config, earlier)
    if earlier is not None and _is_done(scene, earlier):
        return
    check_rule(scene, config)
    for side, layer in zip(SIDES, layers, strict=True):
        log.info("%s: %s holds %s: %s", side, layer.path, layer.kind, layer.reason)
    staging = folder / STAGING / scene.id
    claim_staging(staging, scene, config)
    try:
        _cut_and_place(staging, scene, layers, config, earlier, progress, last)
    except OutputError:  # what is staged waits for a disk that has room
        raise
    except GeoP2PError:
        shutil.rmtree(staging)
        if earlier is None:
            shutil.rmtree(folder / STAGING)
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    shutil.rmtree(staging)


def _scene(folder: Path, layers: tuple[Layer, Layer], config: TileConfig, earlier: ChipSet | None) -> Scene:
    """The scene that two layers make, under a name that the chip set has not given yet."""
    name = scene_name(layers, config)
    grid = scene_grid(layers, config)
    return Scene(
        id=name if earlier is None else unused(name, earlier),
        place=grid.to_dict(),
        pixel_size=grid.pixel_size,
        source=stored_path(layers[0].path, folder),
        target=stored_path(layers[1].path, folder),
        fingerprint={side: fingerprint(layer.path) for side, layer in zip(SIDES, layers, strict=True)},
        options=reading_options(layers, config),
        dropped={},
        files=reading_files(config, folder),
    )


def _is_done(scene: Scene, earlier: ChipSet) -> bool:
    """Whether the chip set holds the scene already.

    Raises:
        ChipSetError: It holds an older state of the same files, or the same files read in another way.
    """
    for known in earlier.scenes:
        same_files = scene.fingerprint == known.fingerprint
        if same_files and scene.options == known.options:
            return True
        if same_files or (scene.source, scene.target) == (known.source, known.target):
            what = "was cut with other options" if same_files else "has changed since it was cut"
            raise ChipSetError(
                f"{earlier.folder}: scene '{known.id}' ({known.source}, {known.target}) {what}; tile into another "
                "folder, or --overwrite to replace the whole chip set"
            )
    return False


def _cut_and_place(
    staging: Path,
    scene: Scene,
    layers: tuple[Layer, Layer],
    config: TileConfig,
    earlier: ChipSet | None,
    progress: bool,
    last: bool,
) -> None:
    """Cut the chips, split them, move them to their places, and write index and description."""
    drafts = tuple(merged_encoding(layer, side, earlier) for side, layer in zip(SIDES, layers, strict=True))
    staged = stage(staging, scene, layers, drafts, config, progress)
    fixed = earlier.index() if earlier is not None else staged.table.iloc[:0].assign(split="")
    table, lost = split_chips(staged.table, scene, fixed, config)
    dropped = staged.dropped | lost
    index = with_weights(joined(fixed, table))
    if last:
        _check_splits(count_splits(index), scene, config)

    encodings = tuple(
        with_observed_classes(draft, layer, index, side)
        for side, draft, layer in zip(SIDES, drafts, layers, strict=True)
    )
    chipset = ChipSet(
        folder=staging.parents[1],
        layout=config.format,
        size=config.size,
        stride=config.step,
        settings=_settings(config),
        scenes=(*(earlier.scenes if earlier else ()), dataclasses.replace(scene, dropped=dropped)),
        source=encodings[0],
        target=encodings[1],
        counts=count_splits(index),
    )
    layout_of(config.format).place(staging, chipset, table, staged.order)
    chipset.save(index)


def _finish(folder: Path, progress: bool) -> None:
    """Scale the encodings by the training chips of all scenes, and draw the preview, unless nothing was added."""
    if not (folder / STAGING).is_dir() or not (folder / DESCRIPTION).exists():
        return
    chipset = ChipSet.open(folder)
    index = chipset.index()
    chipset = dataclasses.replace(
        chipset,
        source=scaled_encoding(chipset, "source", progress),
        target=scaled_encoding(chipset, "target", progress),
    )
    chipset.save_description()
    write_preview(chipset)
    _warn_of_missing(chipset, index)
    shutil.rmtree(folder / STAGING)


def _warn_of_missing(chipset: ChipSet, index: geopandas.GeoDataFrame) -> None:
    """Name the classes that no training chip holds: the model cannot learn them."""
    train = index[index["split"] == "train"]
    for side in SIDES:
        encoding = chipset.encoding(side)
        columns = {entry.name: f"{side}_{entry.value}" for entry in encoding.classes}
        missing = [name for name, column in columns.items() if column not in train or not (train[column] > 0).any()]
        if missing:
            log.warning("no training chip holds the %s class %s", side, ", ".join(missing))


def _check_splits(counts: dict[str, int], scene: Scene, config: TileConfig) -> None:
    """Refuse a block split that leaves a split without chips."""
    if config.split_by in ("file", "scene", "polygon"):  # as somebody drew them, or filled scene by scene
        return
    empty = [split for split in SPLITS if config.split_shares[split] > 0 and not counts[split]]
    if empty:
        smaller = max(16, config.size // 2)
        raise ChipSetError(
            f"{scene.id}: no chip is left for {' and '.join(empty)} ({scene.grid.width}x{scene.grid.height} pixels, "
            f"size {config.size}, stride {config.step}, buffer {config.buffer}); try --size {smaller} "
            f"--stride {smaller}, a smaller --buffer, or give splits by scene with --split-by file --split-file CSV"
        )


def _settings(config: TileConfig) -> dict[str, Any]:
    """The settings that all scenes of a chip set share, as JSON holds them."""
    split = ("split", "split_by", "buffer", "seed")
    ground = ("min_valid", "max_shift", "max_share", "grid", "pixel_grid", "ignore_class")
    return {name: getattr(config, name) for name in (*ground, *split, *ENCODING_CHOICES)}


def _check_settings(earlier: ChipSet, config: TileConfig) -> None:
    here = _settings(config) | {"size": config.size, "stride": config.step, "format": config.format}
    there = (
        _settings(TileConfig())
        | earlier.settings
        | {"size": earlier.size, "stride": earlier.stride, "format": earlier.layout}
    )
    differences = [f"{name} is {here[name]}, there it is {there[name]}" for name in here if here[name] != there[name]]
    if differences:
        raise ChipSetError(
            f"{earlier.folder}: made with other settings ({'; '.join(differences)}); use those, another folder, "
            "or --overwrite to replace the chip set"
        )


def _remove(folder: Path) -> None:
    """Delete a chip set, and nothing else that may lie in its folder."""
    if not folder.exists():
        return
    if not (folder / DESCRIPTION).exists() and not (folder / STAGING).exists():
        raise ChipSetError(f"{folder}: exists and is not a chip set, so --overwrite leaves it alone; give a new folder")
    for name in (*SIDES, STAGING):
        shutil.rmtree(folder / name, ignore_errors=True)
    arrays = [array_path(folder, split, name) for split in SPLITS for name in ARRAYS]
    for file in (*arrays, *(folder / name for name in (DESCRIPTION, INDEX, INDEX_STYLE, PREVIEW))):
        file.unlink(missing_ok=True)
