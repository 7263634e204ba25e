"""A|B images of the pix2pix family: a picture of the source left of one of the target."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from geop2p.config import SPLITS, Direction, Split
from geop2p.errors import ChipSetError
from geop2p.raster.atomic import discard_leftovers, is_bare, make_folder, reporting_write_errors, write_json, write_text
from geop2p.raster.class_table import hex_color
from geop2p.raster.encoding import Encoding
from geop2p.raster.rendering import render
from geop2p.tiling.chips import SIDES, ChipSet, description_digest
from geop2p.tiling.staging import differences

CLAIM = "export.json"


def export_pairs(chipset: ChipSet, folder: Path, direction: Direction, overwrite: bool, progress: bool) -> None:
    """Write every pair as a PNG, 8-bit RGB: `folder/<split>/<chip>.png`, and `classes_<side>.csv` for maps.

    Classes are in their colours; bands are stretched over their encoded interval, those that are red, green and
    blue, else the first three or the first; ground that is not valid is light grey. `export.json` says what was written
    from what, so that a repeated command goes on and nothing else is taken for its work.

    Args:
        chipset: What to write.
        folder: Where.
        direction: AtoB puts the source on the left.
        overwrite: Replace what an earlier export has written.
        progress: Show a progress bar.

    Raises:
        ChipSetError: The folder holds something else, or pairs of another chip set or direction.
        OutputError: It cannot be written.
    """
    claim = {
        "from": str(chipset.folder.resolve()),
        "description": description_digest(chipset.folder),
        "direction": direction,
        "files": [_pair_name(split, entry.id) for split in SPLITS for entry in chipset.entries(split)],
    }
    _claim(folder, claim, overwrite)
    for side in SIDES:
        if chipset.encoding(side).is_classes and not (folder / _table_name(side)).exists():
            write_text(folder / _table_name(side), _class_table(chipset.encoding(side)))
    with tqdm(total=sum(chipset.counts.values()), unit="chip", desc="export", disable=not progress) as bar:
        for split in SPLITS:
            with chipset.reader(split) as reader:
                for row, entry in enumerate(chipset.entries(split)):
                    file = folder / _pair_name(split, entry.id)
                    if not file.exists():
                        make_folder(file.parent)
                        chip = reader.read(row)
                        halves = [
                            render(chip.source, chip.valid, chipset.source),
                            render(chip.target, chip.valid, chipset.target),
                        ]
                        pair = np.concatenate(halves if direction == "AtoB" else halves[::-1], axis=1)
                        with reporting_write_errors(file):
                            unfinished = file.with_suffix(".part")
                            Image.fromarray(pair).save(unfinished, format="PNG")
                            unfinished.replace(file)
                    bar.update()


def _claim(folder: Path, claim: dict[str, Any], overwrite: bool) -> None:
    """Begin an export, or go on with one that was begun from the same chips in the same way.

    Raises:
        ChipSetError: The folder holds something else.
    """
    if not is_bare(folder, folder / CLAIM):
        there = _read_claim(folder)
        foreign = [path for path in folder.rglob("*") if not _is_ours(path.relative_to(folder), there)]
        if there is None or foreign:
            what = min(foreign) if folder.is_dir() else folder
            raise ChipSetError(
                f"{folder}: exists and holds something else than A|B images of an export ({what}); give a new folder"
            )
        if not overwrite:
            if apart := _differences(claim, there):
                raise ChipSetError(
                    f"{folder}: holds A|B images of another export ({'; '.join(apart)}); give a new folder, or "
                    "--overwrite to replace them"
                )
            return
        _remove(folder)
    write_json(folder / CLAIM, claim)
    discard_leftovers(folder / CLAIM)


def _read_claim(folder: Path) -> dict[str, Any] | None:
    """What an export into the folder was made of; None: there was none."""
    try:
        claim = json.loads((folder / CLAIM).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(claim, dict) or not {"from", "description", "direction", "files"} <= set(claim):
        return None
    return claim | {"files": set(claim["files"])}


def _is_ours(path: Path, claim: dict[str, Any] | None) -> bool:
    """Whether a path in a folder is of an export's making, finished or not."""
    if claim is None:
        return False
    tables = [_table_name(side) for side in SIDES]
    if len(path.parts) == 1:
        is_begun = any(path.match(f".{Path(name).stem}.*{Path(name).suffix}") for name in (CLAIM, *tables))
        return path.name in (CLAIM, *SPLITS, *tables) or is_begun
    return path.with_suffix(".png").as_posix() in claim["files"] and path.suffix in (".png", ".part")


def _differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """What differs between two exports, in words."""
    new, old = ({"direction": claim["direction"], "chip set": claim["from"]} for claim in (here, there))
    found = differences(new, old)
    if not found and (here["description"], set(here["files"])) != (there["description"], there["files"]):
        found.append(f"{here['from']} has changed")
    return found


def _remove(folder: Path) -> None:
    """Delete what an export has written; all that is in the folder is of it, and the claim goes last."""
    with reporting_write_errors(folder):
        for split in SPLITS:
            if (folder / split).is_dir():
                shutil.rmtree(folder / split)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == CLAIM):
            path.unlink()


def _pair_name(split: Split, name: str) -> str:
    return f"{split}/{name}.png"


def _table_name(side: str) -> str:
    return f"classes_{side}.csv"


def _class_table(encoding: Encoding) -> str:
    """What `--classes` reads: value, name and colour of every class."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["value", "name", "color"])
    table.writerows([entry.value, entry.name, hex_color(entry.color)] for entry in encoding.classes)
    return text.getvalue()
