"""Chips under construction: cut in one pass over the layers, put in their place once their split is known."""

import dataclasses
import json
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.config import TileConfig
from geop2p.errors import ChipSetError
from geop2p.raster.atomic import write_json
from geop2p.raster.encoding import Array, Encoding
from geop2p.raster.grid import Grid
from geop2p.raster.layers import Layer
from geop2p.raster.vectors import Area
from geop2p.raster.writing import write_categories, write_chip
from geop2p.tiling.alignment import TRUSTED, Shift, measure_shift, report
from geop2p.tiling.chips import SIDES, ChipSet, Scene
from geop2p.tiling.index import class_shares, share_columns
from geop2p.tiling.scenes import lattice

SHIFTS_MEASURED = 64  # about so many chips of a scene, unless --max-shift asks for all

log = logging.getLogger(__name__)


def claim_staging(staging: Path, scene: Scene, config: TileConfig) -> None:
    """Begin a scene, or go on with one that was begun from the same files with the same settings."""
    claim = {
        "fingerprint": scene.fingerprint,
        "grid": scene.grid.to_dict(),
        "config": {field.name: str(getattr(config, field.name)) for field in dataclasses.fields(config)},
    }
    file = staging / "scene.json"
    if file.exists() and json.loads(file.read_text()) != claim:
        raise ChipSetError(
            f"{staging.parent.parent}: an interrupted run began '{scene.id}' from other files or settings; repeat "
            "that one, or use --overwrite to replace the chip set"
        )
    write_json(file, claim)


def stage(
    staging: Path,
    scene: Scene,
    layers: tuple[Layer, Layer],
    drafts: tuple[Encoding, ...],
    config: TileConfig,
    progress: bool,
) -> tuple[geopandas.GeoDataFrame, dict[str, int]]:
    """Write the chips with enough valid ground to the staging folder.

    Returns:
        A row of the index for each, and how many windows gave no chip, by reason.
    """
    dropped = {"too little valid ground": 0, "nearly one class": 0, "shifted": 0}
    classes = (drafts[0].is_classes, drafts[1].is_classes)
    every = 1 if config.max_shift is not None else math.ceil(len(lattice(scene.grid, config)) / SHIFTS_MEASURED)
    shifts: list[Shift] = []
    kept = 0
    palettes = [layer.palette for layer in layers]
    rows = []
    for row, col, sides, valid in _windows(scene.grid, layers, config, progress):
        share = float(valid.mean())
        if share < config.min_valid:
            dropped["too little valid ground"] += 1
            continue
        window = Window(col, row, config.size, config.size)
        name = f"{scene.id}_r{row:06d}_c{col:06d}"
        entry: dict[str, Any] = {"id": name, "scene": scene.id, "row_off": row, "col_off": col, "valid": share}
        for side, draft, values in zip(SIDES, drafts, sides, strict=True):
            entry |= class_shares(side, values[0][valid]) if draft.is_classes else {}
        if any(entry[column] > config.max_share for column in share_columns(entry)):
            dropped["nearly one class"] += 1
            continue
        kept += 1
        shift = measure_shift(sides[0], sides[1], valid, classes) if kept % every == 0 else None
        shifts += [] if shift is None else [shift]
        if shift is not None and config.max_shift is not None and _is_shifted(shift, config.max_shift):
            dropped["shifted"] += 1
            continue
        entry |= {"shift_rows": math.nan, "shift_cols": math.nan, "shift_confidence": math.nan}
        if shift is not None:
            entry |= {"shift_rows": shift.rows, "shift_cols": shift.cols, "shift_confidence": shift.confidence}
        for side, palette, values in zip(SIDES, palettes, sides, strict=True):
            file = staging / side / f"{name}.tif"
            if not file.exists():
                write_chip(file, values, valid, scene.grid.window(window), palette)
        entry["geometry"] = scene.grid.window(window).footprint
        rows.append(entry)
    log.info("%s", report(scene.id, shifts))
    if not rows:
        uniform = f" and at most {config.max_share:.0%} of one class" if dropped["nearly one class"] else ""
        raise ChipSetError(
            f"{scene.id}: no window of {config.size} pixels has {config.min_valid:.0%} valid ground{uniform} on a grid "
            f"of {scene.grid.describe()}; lower --min-valid or --size{', raise --max-share' if uniform else ''}"
        )
    table = geopandas.GeoDataFrame(rows, geometry="geometry", crs=scene.grid.crs)
    return table.fillna(dict.fromkeys(share_columns(table.columns), 0.0)), dropped


def _is_shifted(shift: Shift, most: float) -> bool:
    return shift.confidence >= TRUSTED and max(abs(shift.rows), abs(shift.cols)) > most


def _windows(
    grid: Grid, layers: tuple[Layer, Layer], config: TileConfig, progress: bool
) -> Iterator[tuple[int, int, list[Array], Array]]:
    """(row_off, col_off, values of both sides, jointly valid pixels) of every window, a strip of rows at a time."""
    places = lattice(grid, config)
    columns = sorted({col for _, col in places})
    width = columns[-1] + config.size
    with ExitStack() as stack, tqdm(total=len(places), unit="chip", desc="tile", disable=not progress) as bar:
        readers = [stack.enter_context(layer.reader(grid)) for layer in layers]
        area = None if config.aoi is None else Area(config.aoi, grid)
        for row in sorted({row for row, _ in places}):
            strips = [reader.read(Window(0, row, width, config.size)) for reader in readers]
            inside = np.zeros((config.size, width), bool)
            inside[: max(0, grid.height - row), : grid.width] = True
            joint = strips[0][1] & strips[1][1] & inside
            if area is not None:
                joint &= area.mask(Window(0, row, width, config.size))
            for col in columns:
                at = (slice(None), slice(col, col + config.size))
                yield row, col, [values[:, :, at[1]] for values, _ in strips], joint[at]
                bar.update()


def move_chips(staging: Path, chipset: ChipSet, table: geopandas.GeoDataFrame) -> None:
    """Put staged chips where the index says they are, class names beside them."""
    for name, split in zip(table["id"], table["split"], strict=True):
        for side in SIDES:
            file = chipset.path(side, split, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            (staging / side / f"{name}.tif").replace(file)
            encoding = chipset.encoding(side)
            if encoding.is_classes:
                write_categories(file, encoding)
