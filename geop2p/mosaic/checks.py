"""What a model cannot translate, and where a mosaic cannot go."""

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from geop2p.config import PredictConfig
from geop2p.errors import CheckpointError, OutputError, RasterError
from geop2p.mosaic.catalogue import item_path
from geop2p.mosaic.classes import Codes
from geop2p.raster.agreement import band_difference, known_alike, order_difference, warn_of_order
from geop2p.raster.atomic import check_new, make_folder
from geop2p.raster.class_table import FOREIGN, UNLISTED_SHARE, ClassTable, hex_color, listed
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.kinds import guess_backscatter
from geop2p.raster.placement import BY_POLYNOMIALS
from geop2p.raster.reading import RasterInfo, describe_raster, file_bands, has_colors
from geop2p.raster.source_files import files_of, replaced
from geop2p.raster.styles import is_own_style, style_path
from geop2p.translator import Card, model_file

log = logging.getLogger(__name__)

CLIPPED_TOO_MUCH = 0.05  # share of values outside the training's
LONGEST_NAME = 220  # bytes, so that what is written beside it, under names that grow from it, has one too
GEOTIFF = (".tif", ".tiff")
PLACING = "mosaic.placing"  # is among the parts once the rasters beside the mosaic take their names, which it holds
TAKEN = 1.6  # bytes of parts and mosaic, which are both compressed, for each of the pixels; measured on imagery: 1.3


def check_input(info: RasterInfo, card: Card, no_resample: bool) -> None:
    """Refuse a raster that the model cannot read.

    Raises:
        RasterError: It has other bands than the training's source, or bands in another order, in other units or of
            another scale, or no CRS where the model has a pixel size.
    """
    if info.by_points:
        log.info("%s: placed by ground control points, warped onto %s", info.path, info.grid.describe())
    expected = len(card.source.bands)
    if info.count != expected and not (card.source.is_classes and has_colors(info)):
        names = ", ".join(band.name for band in card.source.bands if band.name) or card.source.kind
        raise RasterError(
            f"{info.path}: has {info.count} band{'s' * (info.count != 1)}, the model expects {expected} ({names}); "
            "give those (gdal_translate -b)"
        )
    is_float = np.dtype(info.dtype).kind == "f"
    if card.source.is_classes and is_float:
        raise RasterError(f"{info.path}: holds {info.dtype}, the model expects integer classes")
    if not card.source.is_classes:
        bands = file_bands(info)
        sides = bands, info.color_interp, card.source.bands, card.source.color_interp
        if (apart := order_difference(*known_alike(*sides))) is not None:
            raise RasterError(f"{info.path}: {apart} as in the training; reorder (gdal_translate -b) or rename them")
        warn_of_order(info.path, *sides, "the training")
        if card.source.relief is not None:  # has no offset
            bands = tuple(dataclasses.replace(band, offset=0.0) for band in bands)
        if (apart := band_difference(bands, card.source.bands)) is not None:
            raise RasterError(f"{info.path}: {apart} as in the training; convert the values, or correct what it says")
    if info.by_polynomials:
        if card.pixel_size is not None and not no_resample:
            other = "or take its pixels for those of the training with --no-resample"
            raise RasterError(f"{info.path}: {BY_POLYNOMIALS}, {other}")
        log.warning("%s: the mosaic has no place on the ground: %s", info.path, BY_POLYNOMIALS)
    elif info.grid.crs is None and card.pixel_size is not None and not no_resample:
        raise RasterError(
            f"{info.path}: has no CRS, so its pixel size is unknown; assign one (gdal_edit -a_srs), or take its pixels "
            "for those of the training with --no-resample"
        )


def check_values(
    path: str | Path, source: Encoding, table: ClassTable | None, codes: Codes, sample: tuple[Array, Mask]
) -> None:
    """Look at a sample of the input, values (bands, rows, cols) and valid (rows, cols), for what no training had.

    Raises:
        RasterError: It is a map with none of the model's classes, or not in its colours, or backscatter stored in
            another way.
    """
    values, valid = sample
    if source.relief is not None:
        return  # heights say nothing of relief
    if table is not None:
        _check_colors(path, table, *table.unlisted_share(values, valid))
    elif source.is_classes:
        _check_classes(path, source, values[0][valid], codes)
        return
    if source.kind == "sar" and valid.any():
        found_as, reason = guess_backscatter(values, valid, file_bands(describe_raster(path)))
        if found_as != source.backscatter:
            raise RasterError(
                f"{path}: backscatter is {found_as} ({reason}), the model was trained on {source.backscatter}; "
                "convert it"
            )
    if (share := source.clipped_share(values, valid)) > CLIPPED_TOO_MUCH:
        log.warning(
            "%s: %.0f %% of the values lie outside those of the training; is it in other units?", path, 100 * share
        )


def _check_classes(path: str | Path, source: Encoding, values: Array, codes: Codes) -> None:
    """Refuse a map with none of the model's classes; tell which others a sample of it holds."""
    known = {entry.value for entry in source.classes}
    own, counts = np.unique(values, return_counts=True)
    ignored = {entry.value for entry in source.ignored}
    found = {code: int(count) for code, count in zip(own.tolist(), counts, strict=True) if code not in ignored}
    strange = {code: count for code, count in found.items() if codes.get(code, code) not in known}
    often = sorted(strange.items(), key=lambda entry: -entry[1])
    told = listed(f"{code} ({count} of {len(values)} pixels)" for code, count in often)
    if found and len(strange) == len(found):
        expected = listed(f"{entry.value} {entry.name}" for entry in source.classes)
        raise RasterError(f"{path}: has the classes {told}, the model knows {expected}; recode the map")
    if strange:
        log.warning("%s: the model never saw the classes %s of a sample; their ground is a guess", path, told)


def _check_colors(path: str | Path, table: ClassTable, share: float, named: str) -> None:
    """Refuse a picture that is mostly not in the colours of the model's classes."""
    if share > FOREIGN:
        expected = ", ".join(f"{hex_color(entry.color)} {entry.name}" for entry in table.classes)
        raise RasterError(
            f"{path}: {100 * share:.0f} % of its pixels have colours such as {named}, the model knows {expected}; "
            "recolour the map, or give one band of classes"
        )
    if share > UNLISTED_SHARE:
        log.warning(
            "%s: %.3g %% of the pixels have colours of no class, such as %s; their ground is a guess",
            path, 100 * share, named,
        )  # fmt: skip


def files_read(model: str | Path, input: str | Path, config: PredictConfig) -> dict[Path, str]:
    """All files that a mosaic is made from, and what each is, for messages.

    What is missing is none; whoever reads it says so.
    """
    given = {"the input": files_of(input)}
    if config.like is not None:
        given["the raster of --like"] = files_of(config.like)
    if config.aoi is not None:
        given["the layer of --aoi"] = files_of(config.aoi)
    with contextlib.suppress(CheckpointError):
        given["the model"] = [model_file(model)]
    found: dict[Path, str] = {}
    for name, (own, *parts) in given.items():
        for path, what in ((own, name), *((part, f"a file of {name}") for part in parts)):
            found.setdefault(path, what)
    return found


def check_name(output: Path, keep_parts: bool = False) -> None:
    """Refuse a name that an output cannot have; see `check_output`.

    Raises:
        RasterError: It is not called a GeoTIFF, or a VRT where the parts are kept, or the name is too long.
    """
    if keep_parts and output.suffix.lower() != ".vrt":
        raise RasterError(f"{output}: is to be a VRT over the parts that are kept; give a name that ends in .vrt")
    if not keep_parts and output.suffix.lower() not in GEOTIFF:
        hint = ", or keep the parts with --keep-parts" if output.suffix.lower() == ".vrt" else ""
        raise RasterError(f"{output}: is to be a GeoTIFF; give a name that ends in .tif{hint}")
    if len(os.fsencode(output.name)) > LONGEST_NAME:
        raise RasterError(f"{output}: is a name of {len(output.name)} letters, expected at most {LONGEST_NAME} bytes")


def check_output(read: Mapping[Path, str], output: Path, overwrite: bool, keep_parts: bool = False) -> None:
    """Refuse an output that would destroy something or could not be read as what it is called.

    Args:
        read: All that is read, see `files_read`.
        output: The mosaic, or a raster beside it.
        overwrite: Whether to replace what exists.
        keep_parts: Whether it is a VRT over parts that stay.

    Raises:
        RasterError: It is read or lies in a folder that is, or is not called a GeoTIFF, or a VRT where the parts are
            kept.
        OutputError: It exists, or what is written beside it.
    """
    check_name(output, keep_parts)
    beside = {"style": style_path(output)} | ({"STAC item": item_path(output)} if keep_parts else {})
    for path in (output, *beside.values()):
        if (file := replaced(path, read)) is not None:
            raise RasterError(f"{path}: is {read[file]}; give another name")
    if (around := replaced(output.resolve().parent, read)) is not None:
        raise RasterError(f"{output}: lies in the folder that is {read[around]}; give a name elsewhere")
    if output.is_dir():
        raise RasterError(f"{output}: is a folder; give the name of a file")
    check_new(output, overwrite)
    begun = output.with_name(f"{output.name}.parts").exists()
    for name, path in beside.items():
        if path.exists() and not (output.exists() or begun or overwrite or _is_left_over(path)):
            raise OutputError(
                f"{path}: exists and would be replaced by the mosaic's {name}; move it or give --overwrite"
            )
    make_folder(output.parent)


def _is_left_over(style: Path) -> bool:
    """Whether a style is ours, of a raster that is gone."""
    rasters = (style.with_suffix(suffix) for suffix in (*GEOTIFF, ".vrt"))
    return is_own_style(style) and not any(raster.exists() for raster in rasters)


def check_beside(
    read: Mapping[Path, str],
    output: Path,
    beside: Sequence[Path | None],
    folders: Sequence[Path],
    overwrite: bool,
) -> None:
    """Refuse rasters beside the mosaic as `check_output` does; what a run that was killed at its end left is ours.

    Args:
        read: All that is read, see `files_read`.
        output: The mosaic.
        beside: Those rasters; None are left out.
        folders: Where parts are made, and those where they stay.
        overwrite: Whether to replace what exists.

    Raises:
        RasterError: One is read, lies among the parts or is not called a GeoTIFF, or two have one name.
        OutputError: A raster to write exists.
    """
    taken = {style_path(output).resolve()}
    placing = folders[0] / PLACING
    ours = placing.read_text(encoding="utf-8").splitlines() if placing.exists() else []
    for path in beside:
        if path is None:
            continue
        for place in folders:
            if path.resolve().is_relative_to(place.resolve()):
                raise RasterError(f"{path}: lies in {place.name}, which is for the parts alone; give a name elsewhere")
        check_output(read, path, overwrite or str(path.resolve()) in ours)
        if style_path(path).resolve() in taken:
            raise RasterError(f"{path}: is the name of two outputs, styles included; give each its own")
        taken.add(style_path(path).resolve())


def check_space(folder: Path, shown: Grid, valid_share: float, encodings: Sequence[Encoding]) -> None:
    """Refuse to begin what the disk cannot hold.

    Parts and mosaic are compressed, see `TAKEN`; classes take a tenth of that. Parts that are there need no more room.

    Args:
        folder: Where the parts go, beside the mosaic.
        shown: Grid of the mosaic.
        valid_share: Share of it that is valid, about.
        encodings: What its pixels hold, and those of the rasters that are made with it.

    Raises:
        RasterError: There is not enough room.
    """
    a_pixel = sum(
        len(held.bands) * np.dtype(held.dtype).itemsize * (0.1 if held.is_classes else 1.0) for held in encodings
    )
    needed = TAKEN * valid_share * shown.width * shown.height * a_pixel
    needed -= sum(part.stat().st_size for part in folder.rglob("part_*.tif"))
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise RasterError(
            f"{folder.parent}: {free / 1e9:.3g} GB are free, parts and mosaic take about {needed / 1e9:.3g} GB on "
            f"{shown.describe()}; make room, or predict less at a time (--aoi, --like)"
        )
