"""Chips under construction: cut in one pass over the layers, put in their place once their split is known."""

import dataclasses
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.config import TileConfig
from geop2p.errors import ChipSetError
from geop2p.raster.atomic import write_json, writing
from geop2p.raster.encoding import Encoding
from geop2p.raster.layers import Layer
from geop2p.tiling.alignment import TRUSTED, Shift, measure_shift, report
from geop2p.tiling.chips import SIDES, Chip, Scene, Writer, layout_of
from geop2p.tiling.cutting import Ground, plan_regions, read_regions
from geop2p.tiling.index import class_shares, share_columns

SHIFTS_MEASURED = 32  # about so many chips of a scene, unless --max-shift asks for all
JOURNAL = "journal.jsonl"

log = logging.getLogger(__name__)


@dataclass
class Found:
    """What a region gave, as a line of the journal.

    Attributes:
        entries: Rows of the index, without geometry, of the chips that were staged.
        dropped: Windows that gave no chip, by reason.
        shifts: (rows, cols, confidence) where the shift was measured, on dropped chips too.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    dropped: dict[str, int] = field(
        default_factory=lambda: {"too little valid ground": 0, "nearly one class": 0, "shifted": 0}
    )
    shifts: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Staged:
    """Chips of a scene that wait for their split.

    Attributes:
        table: A row of the index for each, in order of their place.
        dropped: Windows that gave no chip, by reason.
        order: Names in the order in which they were staged.
    """

    table: geopandas.GeoDataFrame
    dropped: dict[str, int]
    order: list[str]


def claim_staging(staging: Path, scene: Scene, config: TileConfig) -> None:
    """Begin a scene, or go on with one that was begun from the same files with the same settings."""
    claim = {
        "fingerprint": scene.fingerprint,
        "grid": scene.place,
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
) -> Staged:
    """Write the chips with enough valid ground to the staging folder, going on where an interrupted run was.

    Raises:
        ChipSetError: No window gave a chip.
        RasterError: A layer cannot be read.
        OutputError: The chips cannot be written.
    """
    regions = plan_regions(scene.grid, layers, config)
    windows = sum(len(region.rows) * len(region.cols) for region in regions)
    done = _read_journal(staging / JOURNAL)
    cutter = _Cutter(scene, drafts, config, math.ceil(windows / SHIFTS_MEASURED), done)
    writer = layout_of(config.format).open_writer(staging, (layers[0].palette, layers[1].palette))
    with tqdm(total=windows, unit="chip", desc="tile", disable=not progress) as bar, writing(staging):
        bar.update(sum(len(region.rows) * len(region.cols) for region in regions[: len(done)]))
        writer.resume(sum(len(found.entries) for found in done))
        try:
            with (staging / JOURNAL).open("a", encoding="utf-8") as journal:
                for ground in read_regions(scene.grid, layers, config.aoi, regions[len(done) :]):
                    found = cutter.cut(ground, writer)
                    writer.flush()
                    journal.write(json.dumps(vars(found)) + "\n")
                    journal.flush()
                    done.append(found)
                    bar.update(len(ground.region.rows) * len(ground.region.cols))
        finally:
            writer.close()
    log.info("%s", report(scene.id, [Shift(*shift) for found in done for shift in found.shifts]))
    return _staged(scene, config, done)


def _read_journal(file: Path) -> list[Found]:
    """The regions that an interrupted run has staged; a line that it did not finish is cut off."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    return [Found(**json.loads(line)) for line in whole.splitlines()]


class _Cutter:
    """Decides which windows become chips."""

    def __init__(
        self, scene: Scene, drafts: tuple[Encoding, ...], config: TileConfig, every: int, done: list[Found]
    ) -> None:
        self._scene, self._drafts, self._config = scene, drafts, config
        self._classes = (drafts[0].is_classes, drafts[1].is_classes)
        self._every = 1 if config.max_shift is not None else every
        self._whole = sum(len(found.entries) + found.dropped["shifted"] for found in done)

    def cut(self, ground: Ground, writer: Writer) -> Found:
        """Stage the chips of a region."""
        found, config = Found(), self._config
        for row in ground.region.rows:
            for col in ground.region.cols:
                chip = ground.chip(row, col)
                share = float(chip.valid.mean())
                if share < config.min_valid:
                    found.dropped["too little valid ground"] += 1
                    continue
                name = f"{self._scene.id}_r{row:06d}_c{col:06d}"
                entry = {"id": name, "scene": self._scene.id, "row_off": row, "col_off": col, "valid": share}
                shares = self._shares(chip)
                if any(value > config.max_share for value in shares.values()):
                    found.dropped["nearly one class"] += 1
                    continue
                shift = self._shift(chip)
                if shift is not None:
                    found.shifts.append(dataclasses.astuple(shift))
                    if _is_shifted(shift, config.max_shift):
                        found.dropped["shifted"] += 1
                        continue
                rows, cols, confidence = (math.nan,) * 3 if shift is None else dataclasses.astuple(shift)
                entry |= shares | {"shift_rows": rows, "shift_cols": cols, "shift_confidence": confidence}
                window = Window(col, row, config.size, config.size)
                writer.add(name, self._scene.grid.window(window), chip)
                found.entries.append(entry)
        return found

    def _shares(self, chip: Chip) -> dict[str, float]:
        shares: dict[str, float] = {}
        for side, draft, values in zip(SIDES, self._drafts, (chip.source, chip.target), strict=True):
            shares |= class_shares(side, values[0], chip.valid) if draft.is_classes else {}
        return shares

    def _shift(self, chip: Chip) -> Shift | None:
        """The shift of some chips, or of all."""
        self._whole += 1
        if self._whole % self._every:
            return None
        return measure_shift(chip.source, chip.target, chip.valid, self._classes)


def _is_shifted(shift: Shift, most: float | None) -> bool:
    return most is not None and shift.confidence >= TRUSTED and max(abs(shift.rows), abs(shift.cols)) > most


def _staged(scene: Scene, config: TileConfig, done: list[Found]) -> Staged:
    """Everything that the regions gave."""
    dropped = {reason: sum(found.dropped[reason] for found in done) for reason in Found().dropped}
    entries = [entry for found in done for entry in found.entries]
    if not entries:
        uniform = f" and at most {config.max_share:.0%} of one class" if dropped["nearly one class"] else ""
        raise ChipSetError(
            f"{scene.id}: no window of {config.size} pixels has {config.min_valid:.0%} valid ground{uniform} on a grid "
            f"of {scene.grid.describe()}; lower --min-valid or --size{', raise --max-share' if uniform else ''}"
        )
    order = [entry["id"] for entry in entries]
    entries.sort(key=lambda entry: (entry["row_off"], entry["col_off"]))
    windows = (Window(entry["col_off"], entry["row_off"], config.size, config.size) for entry in entries)
    shapes = [scene.grid.window(window).footprint for window in windows]
    table = geopandas.GeoDataFrame(entries, geometry=shapes, crs=scene.grid.crs)
    return Staged(table.fillna(dict.fromkeys(share_columns(table.columns), 0.0)), dropped, order)
