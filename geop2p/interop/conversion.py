"""`convert`: chips of one format become chips of another."""

import dataclasses
import json
import shutil
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geop2p.config import SPLITS, ChipFormat, TileConfig
from geop2p.config.fields import config_or_default, refuse_unused
from geop2p.errors import ChipSetError, ConfigError, GeoP2PError, OutputError
from geop2p.interop.foreign import import_chips, look_at
from geop2p.interop.side_by_side import export_pairs
from geop2p.raster.atomic import discard_leftovers, is_bare, write_json
from geop2p.raster.chip_metadata import ChipMetadata
from geop2p.raster.encoding import Encoding
from geop2p.tiling.chips import DESCRIPTION, STAGING, ChipSet, Scene, description_digest
from geop2p.tiling.layouts import layout_of
from geop2p.tiling.opening import layer_path, reopen, stored_path
from geop2p.tiling.placing import CONVERSION, finish
from geop2p.tiling.removal import lock_chips, make_room, remove
from geop2p.tiling.slots import Slots
from geop2p.tiling.table import count_splits
from geop2p.tiling.tiler import TileResult, summed_up


def convert(
    chips: str | Path,
    folder: str | Path,
    config: TileConfig | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> TileResult:
    """Store chips in another way.

    Args:
        chips: A chip set; or, to make one of them, a folder of A|B images (in folders named train, val and test, or in
            one), or an ArcGIS "Export Tiles" folder with `images` and `images2`.
        folder: New chip set, or with format `side-by-side` new folder of A|B images.
        config: `format`; for chips of other tools also the direction, what the sides hold, and the split of chips
            whose folders say none.
        overwrite: Replace the new folder.
        progress: Show a progress bar.

    Raises:
        ChipSetError: `chips` is none of these or damaged, or the new folder is something else.
        ConfigError: The settings do not fit the chips.
        OutputError: The chips cannot be written.
    """
    start, config = time.monotonic(), config_or_default(config, TileConfig)
    origin, folder = Path(chips), Path(folder)
    if folder.resolve() == origin.resolve():
        raise ChipSetError(f"{folder}: is where the chips are; give a new folder")
    if (origin / DESCRIPTION).is_file():
        chipset = ChipSet.open(origin)
        _check_chips(chipset, config)
        with lock_chips(folder):
            if config.format == "side-by-side":
                export_pairs(chipset, folder, config.direction, overwrite, progress)
                return dataclasses.replace(summed_up(chipset, start), path=str(folder))
            _claim(origin, folder, config, overwrite)
            _restore(chipset, folder, config.layout)
            finish(folder, progress)
    else:
        if config.format == "side-by-side":
            raise ConfigError(f"{origin}: is no chip set of geop2p; make one of it first, with another --format")
        foreign = look_at(origin, config)
        with lock_chips(folder):
            _claim(origin, folder, config, overwrite)
            try:
                import_chips(foreign, folder, progress)
            except OutputError:
                raise
            except GeoP2PError:  # nothing of it is of use, and a corrected repeat finds the folder as it was
                remove(folder)
                raise
            finish(folder, progress)
    return summed_up(ChipSet.open(folder), start)


def _check_chips(chipset: ChipSet, config: TileConfig) -> None:
    """Refuse a chip set that cannot be stored as the settings say, before anything is removed for it.

    Raises:
        ChipSetError: It is unfinished, or virtual chips, here or there, would have no layers.
        ConfigError: Settings have no meaning, since the chips are made already.
        RasterError: A layer of virtual chips is missing.
    """
    chipset.check_finished()
    used = ("format", "direction") if config.format == "side-by-side" else ("format",)
    refuse_unused(config, used, f"for the finished chips of {chipset.folder}")
    if "virtual" in (config.format, chipset.layout):
        for scene in chipset.scenes:
            reopen(chipset, scene)


def _claim(origin: Path, folder: Path, config: TileConfig, overwrite: bool) -> None:
    """Begin a conversion, or begin an interrupted one again; with `overwrite` in the place of a chip set.

    Raises:
        ChipSetError: The folder holds something else.
    """
    make_room(folder, overwrite)
    digest = description_digest(origin) if (origin / DESCRIPTION).is_file() else None
    options = {field.name: str(getattr(config, field.name)) for field in dataclasses.fields(config)}
    claim = {"from": str(origin.resolve()), "description": digest, "config": options}
    file = folder / STAGING / CONVERSION
    if not is_bare(folder, file):
        if not file.is_file() or json.loads(file.read_text(encoding="utf-8")) != claim:
            raise ChipSetError(f"{folder}: exists; give a new folder, or --overwrite to replace a chip set")
        remove(folder)
    write_json(file, claim)
    discard_leftovers(file)


def _restore(chipset: ChipSet, folder: Path, layout: ChipFormat) -> None:
    """Write the chips of a chip set, scene by scene, in another layout."""
    index = chipset.table()
    scenes = tuple(_moved(scene, chipset.folder, folder) for scene in chipset.scenes)
    module = layout_of(layout)
    metadata = (_metadata(chipset.source), _metadata(chipset.target))
    done = dataclasses.replace(chipset, folder=folder, layout=layout, scenes=scenes)
    for number, scene in enumerate(scenes, start=1):
        staging = folder / STAGING / scene.id
        staging.mkdir(parents=True)
        table = index.rows(index["scene"] == scene.id)
        codes = np.array([SPLITS.index(split) for split in table["split"]], np.int8)
        slots = Slots(table["row_off"], table["col_off"], codes)
        with closing(module.open_writer(staging, scene.grid, metadata, slots)) as writer:
            for split in SPLITS:
                with chipset.reader(split) as reader:
                    for row, entry in enumerate(chipset.entries(split)):
                        if entry.scene == scene.id:
                            writer.add(entry.id, entry.row_off, entry.col_off, partial(reader.read, row))
        so_far = index.of_scenes({known.id for known in scenes[:number]})
        part = dataclasses.replace(done, counts=count_splits(so_far))
        module.place(staging, part, table, slots)
        shutil.rmtree(staging)
    done.save(index)


def _moved(scene: Scene, here: Path, there: Path) -> Scene:
    """The scene as a chip set in another folder names its layers."""
    paths: dict[str, Any] = {
        side: stored_path(layer_path(getattr(scene, side), here), there) for side in ("source", "target")
    }
    files = {name: stored_path(layer_path(path, here), there) for name, path in scene.files.items()}
    return dataclasses.replace(scene, files=files, **paths)


def _metadata(encoding: Encoding) -> ChipMetadata:
    return ChipMetadata({entry.value: entry.color for entry in encoding.classes}, encoding.bands)
