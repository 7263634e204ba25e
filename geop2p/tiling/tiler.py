"""`tile`: cut two layers covering the same ground into paired chips."""

import dataclasses
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geop2p.config import SPLITS, TileConfig
from geop2p.config.fields import config_or_default, refuse_unused
from geop2p.errors import ChipSetError, ConfigError, GeoP2PError, NoGroundError, OutputError
from geop2p.raster.features import read_polygons
from geop2p.raster.grid import Grid
from geop2p.raster.layer_names import exists
from geop2p.raster.layers import Layer
from geop2p.raster.source_files import files_of
from geop2p.tiling.chips import DESCRIPTION, SIDES, STAGING, ChipSet, Scene
from geop2p.tiling.opening import layer_path, open_pair, reading_files, reading_options, stored_path
from geop2p.tiling.pairs import find_pairs
from geop2p.tiling.placing import CONVERSION, check_splits, commit_scene, finish, settings_of
from geop2p.tiling.removal import check_removable, lock_chips, make_room
from geop2p.tiling.scenes import check_pixels, scene_grid, scene_name, tell_of_same_target, unused
from geop2p.tiling.sides import merged_encoding, tell_of_strange_values
from geop2p.tiling.splits import check_rule
from geop2p.tiling.staging import claim_staging, differences, no_chip, stage

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
        NoGroundError: The layers have no ground in common; of several pairs, none has any.
        ChipSetError: The folder holds something else, the chip set was made with other settings, or a split
            would be empty.
        ConfigError: The settings do not fit the layers.
    """
    start = time.monotonic()
    config = config_or_default(config, TileConfig)
    folder = Path(chips)
    _ = config.layout  # refuses what is no chip set
    refuse_unused(config, _used(config), "where layers are tiled")
    pairs = find_pairs(source, target)
    if overwrite and folder.exists():
        _check_inputs(folder, pairs, config)
    with lock_chips(folder):
        make_room(folder, overwrite)
        _check_folder(folder)
        try:
            _add_pairs(folder, pairs, config, progress)
        except GeoP2PError:
            finish(folder, progress)  # what was added before the failure makes a whole chip set too
            raise
        finish(folder, progress)
    return summed_up(ChipSet.open(folder), start)


def _used(config: TileConfig) -> set[str]:
    """The settings that count where layers are cut."""
    idle = {"direction"} | (set() if config.split_by == "polygon" else {"split_field"})
    return {field.name for field in dataclasses.fields(config)} - idle


def _check_inputs(folder: Path, pairs: list[tuple[str, str]], config: TileConfig) -> None:
    """Open what a chip set is to be made of, before another one is removed for it.

    Raises:
        GeoP2PError: A layer or a file of the settings cannot be used or belongs to that chip set, or no pair has common
            ground.
    """
    layers: list[str | Path] = [path for pair in pairs for path in pair]
    read = [file for path in (*layers, *filter(None, (config.aoi,))) for file in files_of(path)]
    check_removable(folder, [*read, *map(Path, filter(None, (config.classes, config.split_file)))])
    if config.aoi is not None:
        read_polygons(config.aoi)
    empty: list[NoGroundError] = []
    names = set[str]()
    for number, pair in enumerate(pairs):
        try:
            scene = _scene(folder, open_pair(*pair, config, None), config, None)
        except NoGroundError as error:
            empty.append(error)
            continue
        except ConfigError:
            if number == 0:
                raise
            continue  # what its kinds and classes are may follow from the pairs before it
        if scene.id not in names:  # else it will be given another name
            check_rule(scene, config)
        names.add(scene.id)
    if len(empty) == len(pairs):
        raise empty[0]


def _check_folder(folder: Path) -> None:
    """Refuse to tile into a folder that is neither new nor a chip set.

    Raises:
        ChipSetError: It is not, or a conversion of other chips was interrupted in it.
    """
    if (folder / STAGING / CONVERSION).is_file():
        raise ChipSetError(
            f"{folder}: a conversion with --from was interrupted here; repeat it to finish it, or --overwrite to "
            "replace what there is"
        )
    is_new = not (folder / DESCRIPTION).exists() and not (folder / STAGING).is_dir()
    if is_new and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ChipSetError(f"{folder}: exists and is not a chip set; give a new folder")


def _add_pairs(folder: Path, pairs: list[tuple[str, str]], config: TileConfig, progress: bool) -> None:
    """Add the scenes of all pairs; those without ground in common are named in warnings, unless none has any.

    Raises:
        NoGroundError: No pair gave a chip.
    """
    empty: list[NoGroundError] = []
    for number, pair in enumerate(pairs, start=1):
        try:
            _add_pair(folder, pair, config, progress, last=number == len(pairs))
        except NoGroundError as error:
            empty.append(error)
    if len(empty) == len(pairs):
        raise empty[0] if len(empty) == 1 else NoGroundError(f"none of {len(pairs)} pairs gave a chip; {empty[0]}")
    for left_out in empty:
        log.warning("left out: %s", left_out)
    if empty:
        check_splits(ChipSet.open(folder), config)


def summed_up(chipset: ChipSet, start: float) -> TileResult:
    """What a chip set holds that was begun at a time of the monotonic clock."""
    return TileResult(
        path=str(chipset.folder),
        scenes=len(chipset.scenes),
        chips=sum(chipset.counts.values()),
        **{str(split): chipset.counts[split] for split in SPLITS},
        dropped=sum(sum(scene.dropped.values()) for scene in chipset.scenes),
        seconds=round(time.monotonic() - start, 3),
    )


def _add_pair(folder: Path, pair: tuple[str, str], config: TileConfig, progress: bool, last: bool) -> None:
    """Add the scene of a pair unless the chip set holds it."""
    earlier = ChipSet.open(folder) if (folder / DESCRIPTION).exists() else None
    if earlier is not None:
        _check_settings(earlier, config)
    layers = open_pair(*pair, config, earlier)
    scene = _scene(folder, layers, config, earlier)
    if earlier is not None and (known := _known(scene, earlier)) is not None:
        _follow(known, scene, earlier)
        return
    check_rule(scene, config)
    if earlier is not None:
        check_pixels(scene, earlier)
        tell_of_same_target(scene, earlier)
    for side, layer in zip(SIDES, layers, strict=True):
        log.info("%s: %s holds %s: %s", side, layer.path, layer.kind, layer.reason)
    staging = folder / STAGING / scene.id
    claim_staging(staging, scene, config)
    try:
        drafts = tuple(merged_encoding(layer, side, earlier) for side, layer in zip(SIDES, layers, strict=True))
        tell_of_strange_values(layers, earlier)
        staged = stage(staging, scene, layers, drafts, config, progress)
        commit_scene(staging, staged, config, earlier, last=last)
    except OutputError:  # what is staged waits for a disk that has room
        raise
    except GeoP2PError:
        shutil.rmtree(staging)
        if earlier is None:
            shutil.rmtree(folder / STAGING)
        raise
    shutil.rmtree(staging)


def _scene(folder: Path, layers: tuple[Layer, Layer], config: TileConfig, earlier: ChipSet | None) -> Scene:
    """The scene that two layers make, under a name that the chip set has not given yet."""
    name = scene_name(layers, config)
    grid = scene_grid(layers, config)
    _check_size(name, grid, config)
    return Scene(
        id=name if earlier is None else unused(name, earlier),
        place=grid.to_dict(),
        pixel_size=grid.pixel_size,
        source=stored_path(layers[0].path, folder),
        target=stored_path(layers[1].path, folder),
        fingerprint={side: layer.fingerprint for side, layer in zip(SIDES, layers, strict=True)},
        options=reading_options(layers, config),
        dropped={},
        files=reading_files(config, folder),
    )


def _check_size(name: str, grid: Grid, config: TileConfig) -> None:
    """Refuse chips so much larger than the ground that none can be valid enough, before memory is taken for one.

    Raises:
        NoGroundError: No chip can have the least valid share.
    """
    inside = min(config.size, grid.height) * min(config.size, grid.width)
    if inside / config.size**2 < config.min_valid:
        raise no_chip(name, grid, config, {}, inside / config.size**2)


def _known(scene: Scene, earlier: ChipSet) -> Scene | None:
    """The scene as the chip set holds it already.

    Raises:
        ChipSetError: It holds an older state of the same files, or the same files read in another way.
    """
    for known in earlier.scenes:
        same_files = scene.fingerprint == known.fingerprint
        if same_files and scene.options == known.options:
            return known
        if same_files or (scene.source, scene.target) == (known.source, known.target):
            what = "with other options" if same_files else "from other files"
            pairs = (scene.fingerprint, known.fingerprint), (scene.options, known.options)
            apart = [entry for here, there in pairs for entry in differences(here, there)]
            raise ChipSetError(
                f"{earlier.folder}: scene '{known.id}' ({known.source}, {known.target}) was cut {what} "
                f"({'; '.join(apart)}); tile into another folder, or --overwrite to replace the whole chip set"
            )
    return None


def _follow(known: Scene, scene: Scene, earlier: ChipSet) -> None:
    """Note where the layers of a scene lie now, if they lie elsewhere and not where they were: they have moved."""
    here: dict[str, Any] = {"source": scene.source, "target": scene.target, "files": scene.files}
    there = [layer_path(getattr(known, side), earlier.folder) for side in SIDES]
    if here == {name: getattr(known, name) for name in here}:
        return
    if all(map(exists, there)):
        if (scene.source, scene.target) != (known.source, known.target):
            names = (scene.source, scene.target, known.id, *there)
            log.info("left out: %s and %s are those of scene '%s', %s and %s", *names)
        return
    log.info("scene '%s' is read from %s and %s now", known.id, scene.source, scene.target)
    scenes = tuple(dataclasses.replace(known, **here) if other is known else other for other in earlier.scenes)
    dataclasses.replace(earlier, scenes=scenes).save_description()


def _check_settings(earlier: ChipSet, config: TileConfig) -> None:
    here = settings_of(config) | {"size": config.size, "stride": config.step, "format": config.layout}
    there = earlier.settings | {"size": earlier.size, "stride": earlier.stride, "format": earlier.layout}
    if apart := differences(here, there):
        raise ChipSetError(
            f"{earlier.folder}: made with other settings ({'; '.join(apart)}); use those, another folder, "
            "or --overwrite to replace the chip set"
        )
