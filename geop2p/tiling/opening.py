"""Both layers of a pair, opened as the settings say."""

import dataclasses
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from geop2p.config import KindChoice, TileConfig
from geop2p.errors import ChipSetError, ConfigError, RasterError
from geop2p.raster.class_table import FOREIGN, ClassTable, read_class_table
from geop2p.raster.drawing import drawn
from geop2p.raster.encoding import MapClass
from geop2p.raster.features import vector_parts
from geop2p.raster.fingerprints import fingerprint
from geop2p.raster.kinds import ASKED
from geop2p.raster.layer_names import exists, is_gdal_name, is_missing, named_layer, with_layer
from geop2p.raster.layers import Layer, open_layer
from geop2p.raster.reading import has_colors, read_sample
from geop2p.tiling.chips import SIDES, ChipSet, Scene
from geop2p.tiling.sides import ENCODING_CHOICES, JOINED, with_choices

log = logging.getLogger(__name__)


def open_pair(
    source: str | Path, target: str | Path, config: TileConfig, earlier: ChipSet | None
) -> tuple[Layer, Layer]:
    """Look at both sides; `auto` means what the chip set holds already, if there is one.

    Raises:
        RasterError: A layer cannot be opened.
        ConfigError: The settings do not fit the layers.
    """
    asked: dict[str, KindChoice] = {"source": config.source_kind, "target": config.target_kind}
    kinds = asked if earlier is None else {side: _known_kind(earlier, side, kind) for side, kind in asked.items()}
    fields = {"source": config.source_field, "target": config.target_field}
    table = None if config.classes is None else read_class_table(config.classes)
    goes_on = earlier is not None and bool(earlier.target.palette) and kinds["target"] == "image"
    mapped = [] if table is None or goes_on else _mapped_sides(kinds, asked, table, earlier)
    layers = {}
    for side, path in zip(SIDES, (source, target), strict=True):
        own = table if side in mapped else None
        layer = open_layer(path, kinds[side], fields[side], _known_classes(earlier, side), own)
        if kinds[side] != asked[side] and layer.reason == ASKED:
            layer = dataclasses.replace(layer, reason=JOINED)
        layers[side] = layer
    if table is not None and not any(layer.table for layer in layers.values()):
        if goes_on or _gives_colors(layers, kinds, asked["target"], table):
            colors = tuple(dict.fromkeys(entry.color for entry in table.classes))
            layers["target"] = dataclasses.replace(layers["target"], drawn_in=colors)
            log.info("%s: predictions will have the %d colours of %s", target, len(colors), table.path)
        else:
            side = _mapped_side(layers, kinds, table)
            layers[side] = open_layer(layers[side].path, "classes", table=table)
    if earlier is not None:
        for side, layer in layers.items():
            _check_radar(layer, side, asked[side])
    _check_drawing(layers, fields, config)
    _check_share(layers, config)
    layers = {side: _drawn(layer, config) for side, layer in layers.items()}
    known = {side: _known_classes(earlier, side) for side in SIDES}
    layers = _ignoring(layers, config.ignored_classes, known)
    return with_choices((layers["source"], layers["target"]), config)


def reading_options(layers: tuple[Layer, Layer], config: TileConfig) -> dict[str, Any]:
    """What decided how the two layers are read, as JSON holds it."""
    return {
        "source_kind": layers[0].kind,
        "target_kind": layers[1].kind,
        "source_field": config.source_field,
        "target_field": config.target_field,
        "line_width": config.line_width,
        "draw_order": config.draw_order,
        "aoi": None if config.aoi is None else fingerprint(config.aoi, vector_parts(config.aoi)),
        "split_field": config.split_field if config.split_by == "polygon" else None,
        "classes": None if config.classes is None else fingerprint(config.classes),
    }


def reading_files(config: TileConfig, folder: Path) -> dict[str, str]:
    """The files beside the layers that decided how these are read, as a chip set in `folder` names them."""
    files = {"aoi": config.aoi, "classes": config.classes}
    return {name: stored_path(path, folder) for name, path in files.items() if path is not None}


def stored_path(path: str | Path, folder: Path) -> str:
    """How a chip set names a layer: relative to its folder, so that both can move together; other names as they are."""
    file, layer = named_layer(path)
    if not exists(path):
        return str(path)
    there = Path(file).resolve()
    try:
        stored = os.path.relpath(there, folder.resolve())
    except ValueError:  # on another drive
        stored = str(there)
    return with_layer(stored, layer)


def layer_path(stored: str, folder: Path) -> str:
    """The layer that a chip set in `folder` names."""
    file, layer = named_layer(stored)
    there = os.path.normpath(folder.resolve() / file)
    return stored if is_gdal_name(file) and not exists(there) else with_layer(there, layer)


def reopen(chipset: ChipSet, scene: Scene) -> tuple[tuple[Layer, Layer], Path | None]:
    """The layers of a scene as they were when it was tiled, and the polygons that bound its valid ground.

    Raises:
        ChipSetError: The scene was imported as chips, or one of them has changed since.
        RasterError: One of them is missing.
    """
    if not scene.fingerprint:
        raise ChipSetError(f"{chipset.folder}: scene '{scene.id}' was imported as chips and has no layers to read from")
    paths = {side: layer_path(getattr(scene, side), chipset.folder) for side in SIDES}
    files = {name: Path(layer_path(stored, chipset.folder)) for name, stored in scene.files.items()}
    settings: dict[str, Any] = {
        name: chipset.settings[name] for name in ("ignore_class", "pixel_grid", *ENCODING_CHOICES)
    }
    split = {"split_field": scene.options["split_field"]}  # moves no pixel
    reading = {name: given for name, given in scene.options.items() if name not in split}
    config = TileConfig(**settings | reading | files)
    for path in paths.values():
        if is_missing(path):
            raise RasterError(
                f"{path}: no such file, from which scene '{scene.id}' of {chipset.folder} is read; if the layers lie "
                "elsewhere now, repeat the tile command with their new names and the same settings"
            )
    layers = open_pair(paths["source"], paths["target"], config, chipset)
    found = {side: layer.fingerprint for side, layer in zip(SIDES, layers, strict=True)}
    options = reading_options(layers, config) | split
    if found != scene.fingerprint or options != scene.options:
        named = ", ".join([*paths.values(), *map(str, files.values())])
        raise ChipSetError(
            f"{chipset.folder}: a layer or file of scene '{scene.id}' ({named}) has changed since it was "
            "tiled, and virtual chips have no pixels of their own; tile again with --overwrite"
        )
    return layers, files.get("aoi")


def _known_kind(earlier: ChipSet, side: str, kind: KindChoice) -> KindChoice:
    return earlier.encoding(side).kind if kind == "auto" else kind


def _known_classes(earlier: ChipSet | None, side: str) -> tuple[MapClass, ...]:
    """The classes that the chip set has on a side, ignored ones included."""
    return () if earlier is None else (*earlier.encoding(side).classes, *earlier.encoding(side).ignored)


def _mapped_sides(
    kinds: dict[str, KindChoice], asked: dict[str, KindChoice], table: ClassTable, earlier: ChipSet | None
) -> list[str]:
    """The sides that a table of classes is for, as far as the settings and the chip set say it.

    Where both sides of a chip set hold classes, it is for the one whose classes have its names.
    """
    sides = [side for side in SIDES if kinds[side] == "classes"]
    if earlier is None or len(sides) < len(SIDES):
        return sides
    known = {side: {entry.value: entry.name for entry in _known_classes(earlier, side)} for side in SIDES}
    shared = {side: [entry for entry in table.classes if entry.value in known[side]] for side in SIDES}
    fitting = [
        side for side in SIDES if shared[side] and all(known[side][entry.value] == entry.name for entry in shared[side])
    ]
    return fitting or [side for side in SIDES if asked[side] == "classes"] or sides


def _gives_colors(layers: dict[str, Layer], kinds: dict[str, KindChoice], asked: KindChoice, table: ClassTable) -> bool:
    """Whether a table of classes tells the colours of a target that is asked for as an image.

    It does where nothing else may be meant: the source is no map, and the target is drawn in these colours.
    """
    source, target = layers["source"], layers["target"]
    may_be_map = kinds["source"] in ("auto", "classes") and (source.kind == "classes" or source.is_drawn)
    if asked != "image" or may_be_map or target.raster is None or not has_colors(target.raster):
        return False
    table.check_colors()
    return table.unlisted_share(*read_sample(target.path, as_colors=True))[0] <= FOREIGN


def _mapped_side(layers: dict[str, Layer], kinds: dict[str, KindChoice], table: ClassTable) -> str:
    """The one side that the table of classes can be meant for.

    Raises:
        ConfigError: Both can, or none.
    """
    open_to = [side for side in SIDES if kinds[side] == "auto" and layers[side].vector is None]
    able = [side for side in open_to if layers[side].kind == "classes" or layers[side].is_drawn]
    if len(able) == 1:
        return able[0]
    found = "both sides may be maps" if able else "neither side looks like a map"
    raise ConfigError(
        f"{table.path}: {found}; say which one it is for with --source-kind classes or --target-kind classes"
    )


def _check_radar(layer: Layer, side: str, asked: KindChoice) -> None:
    """Refuse what seems to be radar in dB beside images, unless it is said to be an image.

    Raises:
        ConfigError: The layer seems to be radar in dB.
    """
    if asked == "auto" and layer.kind == "image" and layer.raster is not None and layer.raster.dtype.startswith("f"):
        alone = open_layer(layer.path)
        if alone.kind == "sar":
            raise ConfigError(
                f"{layer.path}: seems to be radar in dB ({alone.reason}), the chip set's {side} holds images; convert "
                f"it, or say --{side}-kind image if it is one"
            )


def _check_drawing(layers: dict[str, Layer], fields: dict[str, str | None], config: TileConfig) -> None:
    """Refuse settings for vector layers where there is none that they are for.

    Raises:
        ConfigError: No layer is a vector layer, or none that such a setting is for.
    """
    rasters = {side: layer for side, layer in layers.items() if layer.vector is None}
    for side, layer in rasters.items():
        if fields[side] is not None:
            raise ConfigError(f"{layer.path}: is a raster; --{side}-field is for vector layers, leave it out")
    if len(rasters) == len(layers) and (config.line_width is not None or config.draw_order is not None):
        paths = " and ".join(layer.path for layer in layers.values())
        raise ConfigError(f"{paths}: are rasters; --line-width and --draw-order are for vector layers, leave them out")


def _check_share(layers: dict[str, Layer], config: TileConfig) -> None:
    """Refuse a largest share of one class where there is none.

    Raises:
        ConfigError: Neither side holds classes.
    """
    if config.max_share < 1 and all(layer.kind != "classes" for layer in layers.values()):
        told = " and ".join(f"{layer.path} ({layer.kind})" for layer in layers.values())
        raise ConfigError(f"{told}: hold no classes; --max-share is for maps, leave it out")


def _drawn(layer: Layer, config: TileConfig) -> Layer:
    if layer.vector is None:
        return layer
    return dataclasses.replace(layer, vector=drawn(layer.vector, config.line_width, config.drawing_order))


def _ignoring(layers: dict[str, Layer], names: list[str], known: dict[str, tuple[MapClass, ...]]) -> dict[str, Layer]:
    """The layers with the classes that mean unlabelled, each looked for on both sides.

    Raises:
        ConfigError: Neither side has such a class.
    """
    if not names:
        return layers
    classes = {side: {entry.value: entry for entry in known[side]} | _classes_of(layers[side]) for side in SIDES}
    every = [(side, entry) for side in SIDES for entry in classes[side].values()]
    ignored: dict[str, dict[int, MapClass]] = {side: {} for side in SIDES}
    if not every:
        raise ConfigError(
            f"ignore_class is '{', '.join(names)}', but neither layer holds classes; what is no measurement among the "
            "values of a band must be its nodata value (gdal_calc.py, gdal_edit.py -a_nodata)"
        )
    there = ", ".join(f"{entry.value} {entry.name}" for _, entry in every)
    for name in names:
        found = [(side, entry) for side, entry in every if entry.name == name]
        found = found or [(side, entry) for side, entry in every if str(entry.value) == name]
        if not found and re.fullmatch(r"-?\d+", name):
            log.warning("ignore_class %s: the layers show no such class, they have %s", name, there)
            found = [(side, layer.map_class(int(name))) for side, layer in layers.items() if layer.raster is not None]
            found = [(side, entry) for side, entry in found if layers[side].kind == "classes"]
        if not found:
            raise ConfigError(f"ignore_class names '{name}', the layers have {there}")
        for side, entry in found:
            ignored[side][entry.value] = entry
    return {side: dataclasses.replace(layers[side], ignored=tuple(ignored[side].values())) for side in SIDES}


def _classes_of(layer: Layer) -> dict[int, MapClass]:
    """The classes that a layer names, and those of the values that a sample of it holds."""
    classes = {entry.value: entry for entry in layer.named_classes}
    if layer.kind == "classes" and layer.raster is not None and layer.colors is None:
        sample, valid = read_sample(layer.path)
        classes |= {int(value): layer.map_class(int(value)) for value in np.unique(sample[0][valid])}
    return classes
