"""Chips of other tools: folders of A|B images, and ArcGIS "Export Tiles" folders."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from geop2p.config import Direction, Split
from geop2p.errors import ChipSetError, RasterError
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import RasterInfo, describe_raster, read_whole
from geop2p.tiling.chips import DESCRIPTION

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DEEP = (".png", ".tif", ".tiff")  # may hold values of more than 8 bits
HALF_A_PIXEL = 0.5
RASTERS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

Side = tuple[Array, Mask]  # values (bands, rows, cols) and valid pixels (rows, cols)


@dataclass(frozen=True)
class ForeignChip:
    """A pair of another tool.

    Attributes:
        name: Unique in its folder, and fit for a file name.
        split: Where its folder puts it; None where it says nothing.
        grid: Where it lies; None where nobody knows.
        files: What it is made of.
        read: Reads source and target.
    """

    name: str
    split: Split | None
    grid: Grid | None
    files: tuple[Path, ...]
    read: Callable[[], tuple[Side, Side]]


def find_foreign(folder: Path, direction: Direction) -> list[ForeignChip]:
    """The pairs of a folder of another tool.

    Args:
        folder: With `images` and `images2` (ArcGIS), or A|B images, in it or in folders named by split.
        direction: Which half, or which of the two folders, is the source.

    Raises:
        ChipSetError: It holds neither, or a chip without partner.
    """
    if not folder.is_dir():
        raise ChipSetError(f"{folder}: no such folder of chips")
    if (folder / "images").is_dir() and (folder / "images2").is_dir():
        return _arcgis(folder, direction)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGES and path.is_file()]
    if not files:
        raise ChipSetError(
            f"{folder}: has no chips: neither {DESCRIPTION}, nor images and images2 (ArcGIS Export Tiles), nor A|B "
            f"images ({', '.join(IMAGES)})"
        )
    stems = ["_".join((path.parent.relative_to(folder) / path.stem).parts) for path in files]
    return [
        ForeignChip(
            name=name,
            split=SPLIT_NAMES.get(path.parent.name.lower()),
            grid=None,
            files=(path,),
            read=lambda path=path: _halves(path, direction),  # type: ignore[misc]
        )
        for name, path in zip(_names(stems), files, strict=True)
    ]


def _names(stems: list[str]) -> list[str]:
    """A name for each chip that suits a file name, with a number where one before it has the same.

    Names that differ only in capitals count as the same, since some disks cannot tell them apart.
    """
    plain = [_safe(stem) for stem in stems]
    taken, numbers, found = {name.lower() for name in plain}, dict[str, int](), list[str]()
    for name in plain:
        number = numbers.get(name.lower(), 0) + 1
        while number > 1 and f"{name}-{number}".lower() in taken:
            number += 1
        numbers[name.lower()] = number
        found.append(name if number == 1 else f"{name}-{number}")
        taken.add(found[-1].lower())
    return found


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)


def _halves(path: Path, direction: Direction) -> tuple[Side, Side]:
    """Both halves of an A|B image, valid where it is not transparent.

    Raises:
        ChipSetError: It cannot be read, or is not twice as wide as high.
    """
    try:
        values, valid = _deep(path) or _picture(path)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, RasterError) as error:
        raise ChipSetError(f"{path}: cannot be read as an image ({error}); remove it or fetch it again") from error
    height = values.shape[1]
    sides = ((values[:, :, :height], valid[:, :height]), (values[:, :, height:], valid[:, height:]))
    return sides if direction == "AtoB" else (sides[1], sides[0])


def _deep(path: Path) -> Side | None:
    """An image of more than 8 bits, which Pillow cuts down to 8 where it has colours; None for others."""
    if path.suffix.lower() not in DEEP:
        return None
    try:
        info = describe_raster(path)
    except RasterError:  # Pillow may read it, or says what is wrong
        return None
    if info.dtype == "uint8":
        return None
    _check_halves(path, info.grid.width, info.grid.height)
    return read_whole(path)


def _picture(path: Path) -> Side:
    with Image.open(path) as image:
        _check_halves(path, *image.size)
        drawn = np.asarray(image.convert("RGBA").getchannel("A")) > 0 if image.has_transparency_data else None
        plain = image if image.mode in ("L", "I;16", "I", "F") else image.convert("RGB")
        values = np.atleast_3d(np.asarray(plain)).transpose(2, 0, 1)
    return values, np.ones(values.shape[1:], bool) if drawn is None else drawn


def _check_halves(path: Path, width: int, height: int) -> None:
    if width != 2 * height:
        raise ChipSetError(
            f"{path}: is {width}x{height}, expected two squares side by side (A|B), {2 * height}x{height}"
        )


def _arcgis(folder: Path, direction: Direction) -> list[ForeignChip]:
    """Pairs of `images` and `images2` by their stem."""
    sides = [_by_stem(folder / name) for name in ("images", "images2")]
    lonely = [str(sides[0].get(stem) or sides[1][stem]) for stem in sorted(set(sides[0]) ^ set(sides[1]))]
    if lonely or not sides[0]:
        named = f"no partner of the same stem for {', '.join(lonely[:5])}" if lonely else "has no chips in images"
        raise ChipSetError(f"{folder}: {named}; export it again")
    first, second = sides if direction == "AtoB" else (sides[1], sides[0])
    chips, stems = [], sorted(first)
    for stem, name in zip(stems, _names(stems), strict=True):
        files = (first[stem], second[stem])
        info = describe_raster(files[1])
        _check_places(describe_raster(files[0]), info)
        chips.append(
            ForeignChip(
                name=name,
                split=None,
                grid=info.grid if info.grid.crs is not None else None,
                files=files,
                read=lambda files=files: (read_whole(files[0]), read_whole(files[1])),  # type: ignore[misc]
            )
        )
    return chips


def _check_places(source: RasterInfo, target: RasterInfo) -> None:
    """Refuse two rasters of one pair that say themselves that they show other ground.

    Raises:
        ChipSetError: Their grids differ.
    """
    here, there = source.grid, target.grid
    if here.crs is None or there.crs is None or here.unmirrored.offset_in(there.unmirrored, HALF_A_PIXEL) == (0, 0):
        return
    raise ChipSetError(
        f"{source.path}: lies on {here.describe()}, {target.path} on {there.describe()}; a pair shows one ground: "
        "export it again, or take the pair away"
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    """The rasters of a folder by stem.

    Raises:
        ChipSetError: Two have the same.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in RASTERS and found.setdefault(path.stem, path) != path:
            raise ChipSetError(f"{folder}: has {found[path.stem].name} and {path.name}; one stem must name one chip")
    return found
