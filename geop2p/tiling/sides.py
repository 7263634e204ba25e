"""The encodings of a chip set: what the layers say, joined over scenes, scaled by the training chips."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from geop2p.config import TileConfig
from geop2p.errors import ChipSetError, ConfigError
from geop2p.progress import progress_bar
from geop2p.raster.agreement import difference, warn_of_order_in
from geop2p.raster.class_table import listed
from geop2p.raster.encoding import Encoding
from geop2p.raster.layers import Layer, open_layer
from geop2p.raster.reading import read_sample
from geop2p.raster.scaling import add_values, needs_statistics, undeclared_fill, with_statistics
from geop2p.raster.statistics import BandStatistics
from geop2p.raster.threads import MOST_THREADS, cores, in_order
from geop2p.tiling.chips import SIDES, ChipSet
from geop2p.tiling.layouts import Chip
from geop2p.tiling.rows import class_columns
from geop2p.tiling.table import ChipTable

log = logging.getLogger(__name__)

STRANGE = 0.5  # share of a scene's values outside those of the scenes before, above which a line tells
JOINED = "as in the chip set"  # why a layer is read so whose kind nobody said
READ_AT_ONCE = 8  # chips at most, of which a thread holds two such lots
LOT = 4 * 2**20  # bytes of a lot, unless one chip has more
ENCODING_CHOICES = ("image_scaling", "relief")  # settings that decide what a value means to the network


def with_choices(layers: tuple[Layer, Layer], config: TileConfig) -> tuple[Layer, Layer]:
    """Both sides with what the settings say of their values.

    Raises:
        ConfigError: Relief of a source that holds no heights, or a scaling of images where neither side is one.
    """
    source, target = layers
    if config.relief is not None and source.kind != "elevation":
        raise ConfigError(
            f"{source.path}: holds {source.kind} ({source.reason}); relief needs elevation as the source; a "
            "target cannot be relief, which does not lead back to heights"
        )
    if config.image_scaling != "auto" and "image" not in (source.kind, target.kind):
        raise ConfigError(
            f"image_scaling is '{config.image_scaling}', but {source.path} holds {source.kind} and {target.path} "
            f"{target.kind}; leave it out"
        )
    source = dataclasses.replace(source, scaling=config.image_scaling, relief=config.relief)
    return source, dataclasses.replace(target, scaling=config.image_scaling)


def merged_encoding(layer: Layer, side: str, earlier: ChipSet | None) -> Encoding:
    """The layer's encoding so far, joined with that of the chip set it is added to.

    Raises:
        ChipSetError: They do not hold the same.
    """
    draft = layer.draft_encoding()
    if earlier is None:
        return draft
    _tell_of_other_kind(layer, side)
    known: Encoding = getattr(earlier, side)
    for what, remedy in (("kind", f"give --{side}-kind"), ("dtype", "convert it (gdal_translate -ot)")):
        if getattr(draft, what) != getattr(known, what):
            raise ChipSetError(
                f"{layer.path}: {what} is {getattr(draft, what)}, the chip set's {side} has {getattr(known, what)}; "
                f"{remedy}, or tile into another folder"
            )
    if len(draft.bands) != len(known.bands):
        raise ChipSetError(f"{layer.path}: has {len(draft.bands)} bands, the chip set's {side} has {len(known.bands)}")
    if (apart := difference(draft, known)) is not None:
        raise ChipSetError(
            f"{layer.path}: {apart} as in the chip set's {side}; values must mean the same in all scenes, convert them"
        )
    warn_of_order_in(layer.path, draft, known, f"the chip set's {side}")
    if draft.palette not in ((), known.palette):
        raise ChipSetError(
            f"{layer.path}: is to have other colours than the chip set's {side}; give the same --classes for all scenes"
        )
    names = {entry.value: entry.name for entry in known.classes}
    for entry in draft.classes:
        if names.setdefault(entry.value, entry.name) != entry.name:
            raise ChipSetError(
                f"{layer.path}: class {entry.value} is '{entry.name}', in the chip set it is '{names[entry.value]}'"
            )
    new = [entry for entry in draft.classes if entry.value not in {old.value for old in known.classes}]
    ignored = {entry.value: entry for entry in (*known.ignored, *draft.ignored)}
    return dataclasses.replace(known, classes=(*known.classes, *new), ignored=tuple(ignored.values()))


def _tell_of_other_kind(layer: Layer, side: str) -> None:
    """Warn of a scene that would be no map by itself, where the scenes before were taken for maps."""
    if layer.kind != "classes" or layer.reason != JOINED or layer.raster is None:
        return
    own = open_layer(layer.path)
    if own.kind != "classes":
        log.warning(
            "%s: is read as a map, as the %s of the chip set is one, but seems to be %s (%s); if the first scenes are "
            "no maps, cut all of them again with --%s-kind",
            layer.path, side, own.kind, own.reason, side,
        )  # fmt: skip


def tell_of_strange_values(layers: tuple[Layer, Layer], earlier: ChipSet | None) -> None:
    """Warn of a scene whose classes, or most of whose values, no scene before had: other codes, or other units."""
    for side, layer in zip(SIDES, layers, strict=True):
        if earlier is None or layer.raster is None or layer.colors is not None or layer.relief is not None:
            continue
        known = earlier.encoding(side)
        if not known.is_classes and any(band.distribution is None for band in known.bands):
            continue  # their interval is that of the type, or the scenes before are of this call
        values, valid = read_sample(layer.path)
        if known.is_classes:
            _tell_of_strange_classes(layer, side, earlier, np.unique(values[0][valid]).tolist())
        elif (share := known.clipped_share(values, valid)) > STRANGE:
            log.warning(
                "%s: %.0f %% of the values lie outside those of the chip set's %s; is it in other units? All scenes "
                "share one scale",
                layer.path, 100 * share, side,
            )  # fmt: skip


def _tell_of_strange_classes(layer: Layer, side: str, earlier: ChipSet, codes: list[int]) -> None:
    """Warn of several classes none of which the chip set has, in any split: one may well be of a place of its own."""
    known = earlier.encoding(side)
    names = {entry.value: entry.name for entry in (*layer.ignored, *known.ignored, *known.classes)}
    if len(codes) < 2 or names.keys() & set(codes):  # as nearly always: without a look into the index
        return
    has = {*names, *class_columns(earlier.table(), side)}
    if not has & set(codes):
        log.warning(
            "%s: has the classes %s, none of which the chip set's %s has (%s); if they are the same under other codes, "
            "recode the map",
            layer.path, listed(codes), side, listed(f"{value} {names.get(value, '')}".strip() for value in sorted(has)),
        )  # fmt: skip


def with_observed_classes(draft: Encoding, layer: Layer, index: ChipTable, side: str) -> Encoding:
    """The encoding with every class that a training chip holds, in order of the codes."""
    if not draft.is_classes:
        return draft
    train = index.of_split("train")
    known = {entry.value for entry in draft.classes}
    seen = [code for code, column in class_columns(index, side).items() if (train[column] > 0).any()]
    new = [layer.map_class(code) for code in seen if code not in known]
    return dataclasses.replace(draft, classes=tuple(sorted((*draft.classes, *new), key=lambda entry: entry.value)))


@contextmanager
def _open_training(chipset: ChipSet) -> Iterator[Callable[[range], list[Chip]]]:
    """What reads some of the training chips."""
    with chipset.reader("train") as reader:
        yield lambda rows: [reader.read(row) for row in rows]


def scaled_encodings(chipset: ChipSet, progress: bool) -> tuple[Encoding, Encoding]:
    """Both encodings with what the valid pixels of the training chips hold, where intervals come from it."""
    encodings = (chipset.source, chipset.target)
    statistics = [[BandStatistics() for _ in encoding.bands] for encoding in encodings]
    wanted = [needs_statistics(encoding) for encoding in encodings]
    if not any(wanted) or not chipset.counts["train"]:
        return encodings
    count = chipset.counts["train"]
    a_chip = chipset.size**2 * sum(len(side.bands) * np.dtype(side.dtype).itemsize for side in encodings)
    lot = min(max(1, LOT // a_chip), READ_AT_ONCE)
    jobs = [range(first, min(first + lot, count)) for first in range(0, count, lot)]
    with progress_bar(count, "values", progress) as advance:
        for chips in in_order(jobs, partial(_open_training, chipset), min(cores(), MOST_THREADS, len(jobs))):
            for chip in chips:
                for number, values in enumerate((chip.source, chip.target)):
                    if wanted[number]:
                        add_values(statistics[number], encodings[number], values, chip.valid)
                advance()
    scaled = [
        with_statistics(encoding, found) if needed else encoding
        for encoding, found, needed in zip(encodings, statistics, wanted, strict=True)
    ]
    for side, encoding in zip(SIDES, scaled, strict=True):
        if (value := undeclared_fill(encoding)) is not None:
            log.warning(
                "%s: the %s has values like %.9g; if they mean no data, tag its layers so (gdal_edit.py -a_nodata "
                "%.9g FILE) and tile again",
                chipset.folder,
                side,
                value,
                value,
            )
    return scaled[0], scaled[1]
