"""Proof that a chip set is sound: its chips are whole, and no split sees the ground of another."""

import hashlib
import itertools

from geop2p.config import SPLITS, Split
from geop2p.errors import GeoP2PError
from geop2p.progress import progress_bar
from geop2p.raster.grid import local_crs
from geop2p.tiling.chips import STAGING, ChipSet, count_splits
from geop2p.tiling.splits import near


def check_chips(chipset: ChipSet, progress: bool = False) -> list[str]:
    """What is wrong with a chip set, a line each; empty if it is sound.

    Every chip is read: both sides must have the size, bands and type that the description promises. No chip of a
    split may share ground with, or come nearer than the buffer to, a chip of another, measured in the projected CRS
    of each scene. Chips without a place on the ground may not hold the same pixels in two splits.
    """
    index = chipset.table()
    problems = []
    if (chipset.folder / STAGING).is_dir():
        problems.append("tiling was interrupted; repeat the tile command to finish it")
    if count_splits(index) != chipset.counts:
        problems.append(f"the index has {count_splits(index)} chips, the description says {chipset.counts}")
    nowhere = {scene.id for scene in chipset.scenes if scene.grid.crs is None}
    alike: dict[bytes, list[tuple[Split, str]]] = {}
    with progress_bar(len(index), "chip", "check", progress) as advance:
        for split in SPLITS:
            with chipset.reader(split) as reader:
                for row, entry in enumerate(chipset.entries(split)):
                    try:
                        chip = reader.read(row)
                    except GeoP2PError as error:
                        problems.append(str(error))
                    else:
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
                several = " and ".join(name for name in SPLITS if name in found)
                problems.append(f"scene '{scene.id}' is in {several}, though its rule gives a scene one split")
    pixel = min(min(scene.pixel_size or (1.0, 1.0)) for scene in chipset.scenes)  # a buffer is pixels of its scene
    for scene in chipset.scenes:
        own = index.rows(index["scene"] == scene.id)
        if scene.grid.crs is not None:
            own = own.to_crs(local_crs(scene.grid))
        distance = chipset.settings["buffer"] * pixel
        for split, other in itertools.permutations(SPLITS, 2):
            mine = own.of_split(split)
            close = near(mine, index.of_split(other), distance, pixel)
            names = mine["id"][close]
            problems += [f"{name} ({split}) shares ground with {other} chips, or comes too near" for name in names]
    return problems
