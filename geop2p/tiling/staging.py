"""Chips under construction: cut in one pass over the layers, put in their place once their split is known."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geop2p.config import TileConfig
from geop2p.config.fields import LEAST_SIZE
from geop2p.errors import ChipSetError, NoGroundError
from geop2p.progress import progress_bar
from geop2p.raster.atomic import reporting_write_errors, write_json
from geop2p.raster.chip_metadata import ChipMetadata
from geop2p.raster.encoding import Encoding
from geop2p.raster.grid import Grid, footprints
from geop2p.raster.layers import Layer
from geop2p.tiling.alignment import Shift, report
from geop2p.tiling.chips import SIDES, Scene
from geop2p.tiling.cutting import plan_regions
from geop2p.tiling.layouts import layout_of
from geop2p.tiling.rows import class_columns, share_columns
from geop2p.tiling.slots import Slots, expected_slots
from geop2p.tiling.survey import RegionResult, Survey
from geop2p.tiling.table import ChipTable

STAGED_AS = 4  # form of what is staged; what another version staged is staged again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Staged:
    """Chips of a scene that wait for their split.

    Attributes:
        scene: What they were cut from.
        layers: Source and target.
        drafts: Their encodings so far.
        table: A row of the index for each, in order of their place.
        dropped: Windows that gave no chip, by reason.
        slots: Where they were expected.
    """

    scene: Scene
    layers: tuple[Layer, Layer]
    drafts: tuple[Encoding, ...]
    table: ChipTable
    dropped: dict[str, int]
    slots: Slots


def claim_staging(staging: Path, scene: Scene, config: TileConfig) -> None:
    """Begin a scene, or go on with one that was begun from the same files with the same settings."""
    claim = {
        "fingerprint": scene.fingerprint,
        "grid": scene.place,
        "config": {field.name: str(getattr(config, field.name)) for field in dataclasses.fields(config)},
    }
    file = staging / "scene.json"
    if file.exists() and (there := json.loads(file.read_text())) != claim:
        apart = [entry for name in claim for entry in differences(claim[name], there[name])]
        raise ChipSetError(
            f"{staging.parent.parent}: an interrupted run began '{scene.id}' from other files or settings "
            f"({'; '.join(apart)}); repeat that one, or use --overwrite to replace the chip set"
        )
    write_json(file, claim)


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """What is not the same in two sets of settings or fingerprints, in words."""
    found = []
    for name in here:
        new, old = here[name], there.get(name)
        if new != old:
            is_told = not isinstance(new, dict) and not isinstance(old, dict)
            found.append(f"{name} is {new}, there it is {old}" if is_told else f"{name} has changed")
    return found


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
        NoGroundError: No window gave a chip.
        RasterError: A layer cannot be read.
        OutputError: The chips cannot be written.
    """
    regions = plan_regions(scene.grid, layers, config)
    windows = sum(len(region) for region in regions)
    plan = hashlib.sha256(f"{STAGED_AS} {regions}".encode()).hexdigest()[:8]
    journal_file = staging / f"journal-{plan}.jsonl"
    done = _read_journal(journal_file)
    slots = expected_slots(scene.id, scene.grid, config)
    metadata = metadata_of(layers, drafts)
    open_writer = partial(layout_of(config.layout).open_writer, staging, scene.grid, metadata, slots)
    survey = Survey(scene.id, layers, drafts, config, len(regions))
    with (
        progress_bar(windows, "tile", progress) as advance,
        reporting_write_errors(staging),
        journal_file.open("a", encoding="utf-8") as journal,
    ):
        advance(sum(len(region) for region in regions[: len(done)]))
        waiting = regions[len(done) :]
        for region, found in zip(waiting, survey.run(scene.grid, regions, len(done), open_writer), strict=True):
            journal.write(json.dumps(vars(found)) + "\n")
            journal.flush()
            done.append(found)
            advance(len(region))
    staged = staged_chips(scene, layers, drafts, config, done, slots)
    log.info("%s", report(scene.id, [Shift(*shift) for found in done for shift in found.shifts]))
    _report_classes(scene, layers, staged.table)
    return staged


def metadata_of(layers: tuple[Layer, Layer], drafts: tuple[Encoding, ...]) -> tuple[ChipMetadata, ChipMetadata]:
    """What the chips of two layers tell of their sides."""
    source, target = (ChipMetadata(layer.palette, draft.bands) for layer, draft in zip(layers, drafts, strict=True))
    return source, target


def _report_classes(scene: Scene, layers: tuple[Layer, Layer], table: ChipTable) -> None:
    """Warn of a map that is one class all over, and of a negative code that no file names, which often is no data."""
    for side, layer in zip(SIDES, layers, strict=True):
        codes = list(class_columns(table, side))
        named = {entry.value: entry.name for entry in layer.named_classes}
        odd = [code for code in codes if code < 0 and code not in named]
        if len(codes) == 1:
            log.warning(
                "%s: all valid ground of the %s is class %s%s",
                scene.id,
                side,
                f"{codes[0]} {named.get(codes[0], '')}".strip(),
                f"; if that means no data, leave it out with --ignore-class {codes[0]}" if odd else "",
            )
        elif odd:
            log.warning(
                "%s: the %s holds class %d; if that means no data, leave it out with --ignore-class %d",
                scene.id,
                side,
                odd[0],
                odd[0],
            )


def _read_journal(file: Path) -> list[RegionResult]:
    """The regions that an interrupted run has staged; a line that it did not finish is cut off."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    return [RegionResult(**json.loads(line)) for line in whole.splitlines()]


def staged_chips(
    scene: Scene,
    layers: tuple[Layer, Layer],
    drafts: tuple[Encoding, ...],
    config: TileConfig,
    done: list[RegionResult],
    slots: Slots,
) -> Staged:
    """Everything that the regions gave."""
    dropped = {reason: sum(found.dropped[reason] for found in done) for reason in RegionResult().dropped}
    entries = [entry for found in done for entry in found.entries]
    if not entries:
        raise no_chip(scene.id, scene.grid, config, dropped, max(found.most_valid for found in done))
    entries.sort(key=lambda entry: (entry["row_off"], entry["col_off"]))
    places = np.array([(entry["row_off"], entry["col_off"]) for entry in entries])
    shapes = footprints(scene.grid, places, config.size)
    names = dict.fromkeys(name for entry in entries for name in entry)
    absent = dict.fromkeys(share_columns(names), 0.0)
    columns = {name: np.array([entry.get(name, absent.get(name)) for entry in entries]) for name in names}
    columns = {name: values.astype(object) if values.dtype.kind == "U" else values for name, values in columns.items()}
    return Staged(scene, layers, drafts, ChipTable(columns, shapes, scene.grid.crs), dropped, slots)


def no_chip(name: str, grid: Grid, config: TileConfig, dropped: Mapping[str, int], most_valid: float) -> NoGroundError:
    """Why no window of a scene became a chip, and what would change that."""
    uniform = f" and at most {config.max_share:.0%} of one class" if dropped.get("nearly one class") else ""
    if shifted := dropped.get("shifted"):
        return NoGroundError(
            f"{name}: {shifted} windows of {config.size} pixels show a shift of more than {config.max_shift:g} pixels, "
            f"and no other has {100 * config.min_valid:.6g}% valid ground{uniform}; raise --max-shift, or correct "
            "where one of both sides lies"
        )
    found = (
        f"{name}: no window of {config.size} pixels has {100 * config.min_valid:.6g}% valid ground{uniform} on a "
        f"grid of {grid.describe()}"
    )
    if not most_valid:
        area = ", AOI" if config.aoi is not None else ""
        return NoGroundError(f"{found}: no pixel at all is valid on both sides; look at nodata, masks and NaN{area}")
    is_small = min(grid.height, grid.width) < LEAST_SIZE
    fixes = [f"lower --min-valid{'' if is_small or config.size <= LEAST_SIZE else ' or --size'}"]
    fixes += ["raise --max-share"] if uniform else []
    return NoGroundError(f"{found}; {', '.join(fixes)} (most is {100 * most_valid:.3g}% valid)")
