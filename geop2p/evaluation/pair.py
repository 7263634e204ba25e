"""Whether a prediction and a reference can be compared, and how."""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from geop2p.config import KindChoice
from geop2p.errors import ConfigError, GridMismatchError
from geop2p.raster.agreement import DB, difference, known_alike, order_difference, unit_of, warn_of_order_in
from geop2p.raster.class_table import class_name
from geop2p.raster.encoding import Encoding
from geop2p.raster.features import is_vector
from geop2p.raster.layers import Layer, open_layer
from geop2p.tiling.chips import DESCRIPTION

log = logging.getLogger(__name__)


def check_rasters(*paths: str | Path) -> None:
    """Refuse vector layers, as the codes that they are burnt with are of their own making, and chip sets.

    Raises:
        ConfigError: One of them is no raster.
    """
    for path in paths:
        if (Path(path) / DESCRIPTION).is_file():
            raise ConfigError(
                f"{path}: is a chip set, which only models are scored on; give MODEL CHIPS, or two rasters as "
                "PREDICTION REFERENCE"
            )
        if is_vector(path):
            raise ConfigError(
                f"{path}: is a vector layer, whose classes have no codes to compare; burn it with the codes of the "
                "other raster (gdal_rasterize) and give that"
            )


def opened_alike(prediction: str | Path, kind: KindChoice, reference: str | Path) -> tuple[Layer, Layer, list[str]]:
    """Prediction and reference, read as the same kind, and notes where one of them seems to hold something else.

    Args:
        prediction: A raster.
        kind: What it holds, as it says itself, or auto.
        reference: A raster.

    Raises:
        ConfigError: Both say what they hold, and it is not the same.
        RasterError: A raster cannot be opened.
    """
    made, real = open_layer(prediction, kind), open_layer(reference)
    if made.kind == real.kind:
        return made, real, []
    assert made.raster is not None and real.raster is not None
    counts = made.raster.count, real.raster.count
    if counts[0] != counts[1] or (_is_certain(real) and (kind != "auto" or _is_certain(made))):
        raise ConfigError(
            f"{made.path} holds {made.kind} with {counts[0]} bands, {real.path} {real.kind} with {counts[1]} "
            f"({real.reason}); expected the same"
        )
    guessed, other = (made, real) if _is_certain(real) else (real, made)
    assert guessed.raster is not None
    if other.kind == "classes" and not np.issubdtype(np.dtype(guessed.raster.dtype), np.integer):
        raise ConfigError(
            f"{guessed.path} holds {guessed.kind} of {guessed.raster.dtype}, {other.path} classes ({other.reason}); "
            "expected the same: give two maps of classes"
        )
    read = open_layer(guessed.path, other.kind)
    note = f"{guessed.path} is read as {other.kind}, as {other.path} holds that; by itself it seems to be"
    alike = {made.kind, real.kind} <= {"image", "elevation"}  # whose values are compared as they are
    alike = alike and not (kind == "elevation" and real.raster.dtype == "uint8")  # which holds pictures, not heights
    notes = [] if alike else [f"{note} {guessed.kind} ({guessed.reason})."]
    return (read, real, notes) if guessed is made else (made, read, notes)


def _is_certain(layer: Layer) -> bool:
    """Whether a raster says itself what it holds: a colour table, names of classes, or decibels."""
    info = layer.raster
    if info is None:
        return False
    return bool(info.palette or info.categories) or {unit_of(unit) for unit in info.units} == {DB[0]}


def common_encoding(layer: Layer, truth: Layer) -> Encoding:
    """The encoding of the prediction, as far as the files tell it, with the interval that the reference's type has.

    Raises:
        ConfigError: They do not hold the same.
    """
    made, real = layer.draft_encoding(), truth.draft_encoding()
    if made.kind != real.kind or len(made.bands) != len(real.bands):
        raise ConfigError(
            f"{layer.path} holds {made.kind} with {len(made.bands)} bands, {truth.path} {real.kind} with "
            f"{len(real.bands)}; expected the same"
        )
    if (apart := difference(made, real)) is not None:
        is_of_order = order_difference(*known_alike(made.bands, made.color_interp, real.bands, real.color_interp))
        remedy = "reorder the bands (gdal_translate -b)" if is_of_order else "convert the values"
        raise ConfigError(f"{layer.path}: {apart} as in {truth.path}; {remedy} of one of them")
    warn_of_order_in(layer.path, made, real, truth.path)
    bands = [
        dataclasses.replace(band, low=other.low, high=other.high)
        for band, other in zip(made.bands, real.bands, strict=True)
    ]
    return dataclasses.replace(made, bands=tuple(bands), scaling=real.scaling)


def is_warped(layer: Layer, truth: Layer, strict: bool) -> bool:
    """Whether the reference is read through a warp.

    Raises:
        GridMismatchError: It would be, and `strict` forbids it.
    """
    here, there = layer.grid, truth.grid
    if here is None or there is None or here.unmirrored.offset_in(there.unmirrored) is not None:
        return False
    if strict:
        raise GridMismatchError(
            f"{layer.path} lies on {here.describe()}, {truth.path} on {there.describe()}; without --strict the "
            "reference is warped onto the prediction's grid"
        )
    log.info("%s: read by a warp, since its grid is not that of %s", truth.path, layer.path)
    return True


def check_pixels(layer: Layer, truth: Layer) -> None:
    """Refuse rasters without CRS of two sizes: their pixels do not lie on each other."""
    here, there = layer.grid, truth.grid
    if here is None or there is None or here.crs is not None or there.crs is not None:
        return
    if (here.height, here.width) != (there.height, there.width):
        raise GridMismatchError(
            f"{layer.path} has {here.height} rows and {here.width} columns, {truth.path} {there.height} and "
            f"{there.width}; without CRS both need one size"
        )


def contradictions(layer: Layer, truth: Layer) -> list[str]:
    """What to say of codes with one name in one map and another in the other, and of names with two codes."""
    made, real = ({entry.value: entry.name for entry in side.draft_encoding().classes} for side in (layer, truth))
    named = [code for code in made if code in real and class_name(code) not in (made[code], real[code])]
    apart = [code for code in named if made[code].casefold() != real[code].casefold()]
    told = [f"{code} is {made[code]} in {layer.path} and {real[code]} in {truth.path}" for code in apart]
    if told:
        return [f"Classes are compared by their codes, but the names differ: {_some(told)}."]
    codes = {name.casefold(): code for code, name in reversed(real.items())}
    moved = [
        f"{name} is {code} in {layer.path} and {codes[name.casefold()]} in {truth.path}"
        for code, name in made.items()
        if name.casefold() in codes and real.get(code, "").casefold() != name.casefold()
    ]
    if moved:
        return [
            f"Classes are compared by their codes, but these differ: {_some(moved)}; give both maps the same codes."
        ]
    return []


def _some(told: list[str]) -> str:
    """The first three of a list in words."""
    return ", ".join(told[:3]) + (f", and {len(told) - 3} more" if len(told) > 3 else "")
