"""Staged chips become a chip set: split, put in their places, indexed and described."""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geop2p.config import SPLITS, Split, TileConfig
from geop2p.errors import ChipSetError, NoGroundError
from geop2p.raster.atomic import discard_leftovers, remove_folder, reporting_write_errors
from geop2p.tiling.balance import with_weights
from geop2p.tiling.chips import DESCRIPTION, INDEX, SIDES, STAGING, ChipSet
from geop2p.tiling.index import INDEX_STYLE, joined
from geop2p.tiling.layouts import layout_of
from geop2p.tiling.preview import PREVIEW, write_preview
from geop2p.tiling.sides import ENCODING_CHOICES, scaled_encodings, with_observed_classes
from geop2p.tiling.splits import split_chips
from geop2p.tiling.staging import Staged
from geop2p.tiling.summary import report_gaps
from geop2p.tiling.table import count_splits

CONVERSION = "conversion.json"  # among what is staged: what chips that are made by conversion are made of

log = logging.getLogger(__name__)


def commit_scene(
    staging: Path,
    staged: Staged,
    config: TileConfig,
    earlier: ChipSet | None,
    *,
    last: bool,
    given: Mapping[str, Split] | None = None,
) -> None:
    """Split the staged chips of a scene, move them to their places, and write index and description.

    Args:
        staging: Where they are staged.
        staged: The chips, and what they were cut from.
        config: Settings.
        earlier: The chip set so far; None: there is none.
        last: Whether no more scenes follow, so that every split should have chips.
        given: Split of every chip by its id; None: the rule of the settings decides.

    Raises:
        ChipSetError: A split would be empty, or what says the splits is bad.
        OutputError: Something cannot be written.
    """
    scene, nothing = staged.scene, staged.table.rows(np.arange(0)).assign(split=np.empty(0, object))
    fixed = nothing if earlier is None else earlier.table()
    if given is None:
        table, lost = split_chips(staged.table, scene, fixed, config)
    else:
        places = zip(staged.table["row_off"], staged.table["col_off"], strict=True)
        blocks = np.array([f"{row // config.step}_{col // config.step}" for row, col in places], object)
        splits = np.array([given[name] for name in staged.table["id"]], object)
        table, lost = staged.table.assign(split=splits, block=blocks), {}
    if not len(table):
        reasons = ", ".join(f"{count} {reason}" for reason, count in (staged.dropped | lost).items() if count)
        raise NoGroundError(
            f"{scene.id}: no chip is left ({reasons}); change the split, the buffer, or size and stride"
        )
    index = with_weights(joined(fixed, table))
    encodings = tuple(
        with_observed_classes(draft, layer, index, side)
        for side, draft, layer in zip(SIDES, staged.drafts, staged.layers, strict=True)
    )
    chipset = ChipSet(
        folder=staging.parents[1],
        layout=config.layout,
        size=config.size,
        stride=config.step,
        settings=settings_of(config) | ({} if given is None else {"split_by": "folders"}),
        scenes=(*(earlier.scenes if earlier else ()), dataclasses.replace(scene, dropped=staged.dropped | lost)),
        source=encodings[0],
        target=encodings[1],
        counts=count_splits(index),
    )
    if last and given is None:
        check_splits(chipset, config)
    layout_of(config.layout).place(staging, chipset, table, staged.slots)
    chipset.save(index)


def finish(folder: Path, progress: bool) -> None:
    """Scale the encodings by the training chips of all scenes, and draw the preview, unless nothing was added."""
    if not (folder / STAGING).is_dir() or not (folder / DESCRIPTION).exists():
        return
    chipset = ChipSet.open(folder)
    index = chipset.table()
    source, target = scaled_encodings(chipset, progress)
    chipset = dataclasses.replace(chipset, source=source, target=target)
    chipset.save_description()
    write_preview(chipset)
    for name in (DESCRIPTION, INDEX, INDEX_STYLE, PREVIEW):
        discard_leftovers(folder / name)
    report_gaps(chipset, index)
    for scene in chipset.scenes:  # a process may have been killed between placing one and this
        with reporting_write_errors(folder), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder / STAGING / scene.id)
    if not any(path.is_dir() for path in (folder / STAGING).iterdir()):  # else an interrupted scene waits there
        remove_folder(folder / STAGING)


def check_splits(chipset: ChipSet, config: TileConfig) -> None:
    """Refuse a block split that leaves a split without chips.

    Raises:
        ChipSetError: A split has no chips.
    """
    if config.split_by in ("file", "scene", "polygon"):  # as somebody drew them, or filled scene by scene
        return
    empty = [split for split in SPLITS if config.split_shares[split] > 0 and not chipset.counts[split]]
    if empty:
        scene = chipset.scenes[-1]
        smaller, kept = max(16, config.size // 2), sum(chipset.counts.values())
        lost = {reason: count for reason, count in scene.dropped.items() if count > kept}
        told = "".join(f", {count} windows dropped: {reason}" for reason, count in lost.items())
        fixes = [f"--size {smaller} --stride {smaller}"] if config.size > smaller else ["a smaller --stride"]
        fixes += ["a lower --min-valid"] if "too little valid ground" in lost else []
        fixes += ["a smaller --buffer"] if config.buffer else []
        raise ChipSetError(
            f"{scene.id}: no chip is left for {' and '.join(empty)} ({scene.grid.width}x{scene.grid.height} pixels, "
            f"size {config.size}, stride {config.step}, buffer {config.buffer}{told}); try {', '.join(fixes)}, or give "
            "splits by scene with --split-by file --split-file CSV"
        )


def settings_of(config: TileConfig) -> dict[str, Any]:
    """The settings that all scenes of a chip set share, as JSON holds them."""
    split = ("split", "split_by", "buffer", "seed")
    ground = ("min_valid", "max_shift", "max_share", "grid", "pixel_grid", "ignore_class")
    return {name: getattr(config, name) for name in (*ground, *split, *ENCODING_CHOICES)}
