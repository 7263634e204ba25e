"""`describe`: what a raster, chip set, run or model is."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from geop2p.errors import ChipSetError, RasterError
from geop2p.interop.folders import find_foreign
from geop2p.raster.class_table import hex_color
from geop2p.raster.encoding import Encoding
from geop2p.raster.features import field_types, is_vector, read_features
from geop2p.raster.pixels import PixelRange, PixelSize, is_one_size, pixel_range
from geop2p.raster.reading import data_bands, describe_raster, opened
from geop2p.raster.statistics import Distribution
from geop2p.tiling.check import check_chips
from geop2p.tiling.chips import DESCRIPTION, ChipSet
from geop2p.training.checkpoint import CONFIG
from geop2p.training.history import read_metrics
from geop2p.training.run_folder import OWNED, settings_of
from geop2p.translator import FILE_NAME, read_card

MODELS = (".safetensors", ".onnx")  # how files of models end


def describe(path: str | Path) -> dict[str, Any]:
    """What a raster, vector layer, chip set, run or model is.

    Args:
        path: File or folder; also one with chips of another tool, or of rasters that are read as one.

    Returns:
        `type` (raster, vector layer, chip set, chips of another tool, model, run without a model) and what else there
        is to say, as JSON holds it.

    Raises:
        RasterError: It is none of these.
        GeoP2PError: It is one, but damaged.
    """
    place = Path(path)
    if (place / DESCRIPTION).is_file():
        return _chip_set(ChipSet.open(place))
    if (place / FILE_NAME).is_file() or place.suffix.lower() in MODELS:
        return _model(place)
    if (settings := settings_of(place)) is not None:
        return _begun(place, settings)
    if place.name in {CONFIG, *OWNED} and settings_of(place.parent) is not None:
        raise RasterError(f"{place}: belongs to the run {place.parent}; give that folder")
    if place.is_dir() and not is_vector(place):
        return _folder(place)
    if is_vector(place):
        return _vector(path)
    return _raster(path)


def is_model(result: str | Path, truth: str | Path) -> bool:
    """Whether what is to be scored is a model rather than rasters, which a folder may hold, too.

    Args:
        result: File or folder.
        truth: What it is compared with; nothing but a model is compared with a chip set.
    """
    place = Path(result)
    if place.suffix.lower() in MODELS or (place / FILE_NAME).is_file() or settings_of(place) is not None:
        return True
    return not place.is_file() and (Path(truth) / DESCRIPTION).is_file()


def check(path: str | Path, progress: bool = False) -> list[str]:
    """What is wrong with a chip set, a line each; empty if it is sound.

    Raises:
        ChipSetError: The folder is no chip set.
    """
    return check_chips(ChipSet.open(path), progress)


def _folder(folder: Path) -> dict[str, Any]:
    """What a folder holds that is neither a chip set nor a run: chips of another tool, or rasters."""
    try:
        chips = find_foreign(folder, "AtoB")
        if len(chips[0].files) == 1 and _has_crs(chips[0].files[0]):
            return _raster(folder)
        first = [values for values, _ in chips[0].read()]
    except ChipSetError as no_chips:
        try:
            return _raster(folder)
        except RasterError as no_rasters:
            if runs := sorted(file.parent.name for file in folder.glob(f"*/{CONFIG}") if settings_of(file.parent)):
                raise RasterError(f"{folder}: holds runs ({', '.join(runs)}); give one of them") from no_rasters
            raise RasterError(
                f"{folder}: a folder, but neither a chip set nor a finished run, nor chips of another tool "
                f"({no_chips}), nor rasters ({no_rasters})"
            ) from no_rasters
    return {
        "type": "chips of another tool",
        "path": str(folder),
        "layout": "ArcGIS Export Tiles" if len(chips[0].files) > 1 else "side by side (A|B)",
        "size": list(first[0].shape[1:]),
        "chips": dict(Counter(chip.split or "no split" for chip in chips)),
        "bands": [len(values) for values in first],
        "dtype": [str(values.dtype) for values in first],
        "georeferenced": sum(chip.grid is not None for chip in chips),
    }


def _has_crs(file: Path) -> bool:
    """Whether a file is a raster with a place on the ground, which halves of pairs have not."""
    try:
        return describe_raster(file).grid.crs is not None
    except RasterError:
        return False


def _raster(path: str | Path) -> dict[str, Any]:
    info = describe_raster(path)
    with opened(path) as dataset:
        tags, nodata = dataset.tags(), [dataset.nodatavals[band - 1] for band in data_bands(dataset)]
    told = [None if value is None else str(value) for value in nodata]
    size, grid = info.grid.pixel_size, info.grid
    placed = dataclasses.replace(grid, transform=grid.georeference or grid.transform)
    return {
        "type": "raster",
        "path": str(path),
        "width": info.grid.width,
        "height": info.grid.height,
        "bands": info.count,
        "dtype": info.dtype,
        "crs": info.grid.crs.to_string() if info.grid.crs else None,
        "bounds": list(placed.bounds),
        "transform": list(placed.transform)[:6],
        "control_points": info.by_points,
        "rational_polynomials": info.by_polynomials,
        "pixel_m": None if size is None else _rounded(size),
        "nodata": told if len(set(told)) > 1 else told[0],
        "mask": info.has_mask,
        "band_names": list(info.names),
        "units": list(info.units),
        "scales": list(info.scales),
        "offsets": list(info.offsets),
        "color_interp": list(info.color_interp),
        "classes": {str(value): name for value, name in info.categories.items()},
        "synthetic": tags.get("GEOP2P_SYNTHETIC") == "YES",
        "tags": {key: value for key, value in tags.items() if key.startswith("GEOP2P_")},
    }


def _vector(path: str | Path) -> dict[str, Any]:
    features = read_features(path)
    return {
        "type": "vector layer",
        "path": str(path),
        "crs": str(features.crs),
        "features": len(features),
        "geometry": dict(Counter(features.geometry.geom_type)),
        "bounds": None if features.empty else [float(side) for side in features.total_bounds],
        "fields": {name: "text" if kind in ("object", "str") else kind for name, kind in field_types(path).items()},
    }


def _begun(run: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "run without a model",
        "path": str(run),
        "recipe": settings["recipe"],
        "chips": settings["chips"],
        "state": f"has no {FILE_NAME}, which comes with the first epoch, or is gone; unless it is being trained, "
        "repeat the command to go on",
    }


def _chip_set(chipset: ChipSet) -> dict[str, Any]:
    return {
        "type": "chip set",
        "path": str(chipset.folder),
        "layout": chipset.layout,
        "size": chipset.size,
        "stride": chipset.stride,
        **_pixels(chipset.pixel_size, pixel_range(scene.pixel_size for scene in chipset.scenes)),
        "chips": chipset.counts,
        "scenes": {
            scene.id: {"source": scene.source, "target": scene.target, "grid": scene.grid.describe()}
            | {"dropped": scene.dropped}
            for scene in chipset.scenes
        },
        "source": _side(chipset.source),
        "target": _side(chipset.target),
        "settings": chipset.settings,
    }


def _model(place: Path) -> dict[str, Any]:
    card = read_card(place)
    history = read_metrics(place) if place.is_dir() else []
    return {
        "type": "model",
        "path": str(place),
        "recipe": card.recipe,
        "generator": card.generator,
        "arguments": card.arguments,
        "source": _side(card.source),
        "target": _side(card.target),
        **_pixels(card.pixel_size, card.trained_pixels),
        "chip_size": card.chip_size,
        "stride": card.stride,
        "one_sided_field": card.field,
        "statistics": card.statistics,
        "provenance": card.provenance,
        "last_validation": history[-1]["val"] if history else None,
    }


def _pixels(first: PixelSize | None, known: PixelRange | None) -> dict[str, Any]:
    """Sides of a pixel of the first scene in metres; of the smallest and the largest where others differ from it."""
    found: dict[str, Any] = {"pixel_m": None if first is None else _rounded(first)}
    if known is None or is_one_size(known):
        return found
    return found | {"smallest_pixel_m": _rounded(known[0]), "largest_pixel_m": _rounded(known[1])}


def _rounded(size: PixelSize) -> list[float]:
    return [round(side, 6) for side in size]


def _side(encoding: Encoding) -> dict[str, Any]:
    side: dict[str, Any] = {"kind": encoding.kind, "dtype": encoding.dtype, "bands": len(encoding.bands)}
    if encoding.is_classes:
        side |= {"classes": {str(entry.value): entry.name for entry in encoding.classes}}
        ignored = {str(entry.value): entry.name for entry in encoding.ignored}
        return side | ({"ignored_classes": ignored} if ignored else {})
    side |= {"scaling": encoding.scaling, "encoded": [[band.low, band.high] for band in encoding.bands]}
    if encoding.kind == "sar":
        side["backscatter"] = encoding.backscatter
    if encoding.relief is not None:
        side["relief_m"] = encoding.relief
    if encoding.palette:
        side["colors"] = [hex_color(color) for color in encoding.palette]
    columns = zip(encoding.band_names, encoding.bands, strict=True)
    known = {name: band.distribution for name, band in columns if band.distribution is not None}
    return side | {"training_values": {name: _values(distribution) for name, distribution in known.items()}}


def _values(distribution: Distribution) -> dict[str, Any]:
    """A distribution as JSON holds it, percentiles by name."""
    data = dataclasses.asdict(distribution)
    return data | {"percentiles": {f"{percent:g}": value for percent, value in distribution.percentiles}}
