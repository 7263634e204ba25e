"""A|B images of the pix2pix family: a picture of the source left of one of the target."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from geop2p.config import SPLITS, Direction
from geop2p.errors import ChipSetError
from geop2p.raster.atomic import make_folder, write_text, writing
from geop2p.raster.class_table import hex_color
from geop2p.raster.encoding import Encoding
from geop2p.raster.render import render
from geop2p.tiling.chips import SIDES, ChipSet


def export_pairs(chipset: ChipSet, folder: Path, direction: Direction, overwrite: bool, progress: bool) -> None:
    """Write every pair as a PNG, 8-bit RGB: `folder/<split>/<chip>.png`, and `classes_<side>.csv` for maps.

    Classes are in their colours; bands are stretched over their encoded interval, the first three or the first; ground
    that is not valid is light grey.

    Args:
        chipset: What to write.
        folder: Where; existing pairs of the same names are kept, so that a repeated command goes on.
        direction: AtoB puts the source on the left.
        overwrite: Replace the folders of the splits.
        progress: Show a progress bar.

    Raises:
        ChipSetError: The folder holds something else.
        OutputError: It cannot be written.
    """
    if overwrite:
        for split in SPLITS:
            if (folder / split).is_dir():
                with writing(folder):
                    shutil.rmtree(folder / split)
    known = {*SPLITS, *(_table_name(side) for side in SIDES)}
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - known):
        raise ChipSetError(f"{folder}: exists and holds something else than A|B images; give a new folder")
    for side in SIDES:
        if chipset.encoding(side).is_classes:
            make_folder(folder)
            write_text(folder / _table_name(side), _class_table(chipset.encoding(side)))
    with tqdm(total=sum(chipset.counts.values()), unit="chip", desc="export", disable=not progress) as bar:
        for split in SPLITS:
            with chipset.reader(split) as reader:
                for row, entry in enumerate(chipset.entries(split)):
                    file = folder / split / f"{entry.id}.png"
                    if not file.exists():
                        make_folder(file.parent)
                        chip = reader.read(row)
                        halves = [
                            render(chip.source, chip.valid, chipset.source),
                            render(chip.target, chip.valid, chipset.target),
                        ]
                        pair = np.concatenate(halves if direction == "AtoB" else halves[::-1], axis=1)
                        with writing(file):
                            unfinished = file.with_suffix(".part")
                            Image.fromarray(pair).save(unfinished, format="PNG")
                            unfinished.replace(file)
                    bar.update()


def _table_name(side: str) -> str:
    return f"classes_{side}.csv"


def _class_table(encoding: Encoding) -> str:
    """What `--classes` reads: value, name and colour of every class."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["value", "name", "color"])
    table.writerows([entry.value, entry.name, hex_color(entry.color)] for entry in encoding.classes)
    return text.getvalue()
