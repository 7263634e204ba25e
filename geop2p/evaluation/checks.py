"""Whether chips and mosaics are such that a model can be scored on them."""

from pathlib import Path

from geop2p.errors import ChipSetError, ConfigError
from geop2p.mosaic.classes import codes_by_name
from geop2p.raster.agreement import difference, warn_of_order_in
from geop2p.raster.class_table import listed
from geop2p.raster.encoding import Encoding
from geop2p.raster.grid import Grid
from geop2p.raster.reading import describe_raster, opened
from geop2p.tiling.chips import ChipSet
from geop2p.translator import Card, Translator


def check_same_sides(card: Card, chipset: ChipSet) -> None:
    """Refuse chips that hold something else than the model's.

    Raises:
        ChipSetError: They do, have other codes for the same classes, or a size that the network does not take.
    """
    if chipset.size % card.stride and card.generator != "smp":  # its decoders pad
        raise ChipSetError(
            f"{chipset.folder}: chips of {chipset.size} pixels, the network takes multiples of {card.stride}; tile "
            f"with --size {-(-chipset.size // card.stride) * card.stride}"
        )
    for side in ("source", "target"):
        trained: Encoding = getattr(card, side)
        found: Encoding = getattr(chipset, side)
        if (trained.kind, len(trained.bands)) != (found.kind, len(found.bands)):
            raise ChipSetError(
                f"{chipset.folder}: {side} is {found.kind} with {len(found.bands)} bands, the model was trained on "
                f"{trained.kind} with {len(trained.bands)}"
            )
        if (apart := difference(found, trained)) is not None:
            raise ChipSetError(f"{chipset.folder}: {side}: {apart} as in the model's training; give other chips")
        if trained.is_classes:
            _check_legend(f"{chipset.folder}: {side}", found, trained)
        else:
            warn_of_order_in(f"{chipset.folder}: {side}", found, trained, "the model's training")


def _check_legend(name: str, found: Encoding, trained: Encoding) -> None:
    """Refuse chips that have the model's classes under other codes.

    Raises:
        ChipSetError: They have.
    """
    names, ours = ({entry.value: entry.name for entry in side.classes} for side in (found, trained))
    if codes := codes_by_name(names, trained.classes):
        meant = {code: f"its {value}" if value in ours else "none of its classes" for code, value in codes.items()}
        told = listed(f"{code} {names[code]} is {meaning}" for code, meaning in meant.items() if code in names)
        expected = listed(f"{code} {called}" for code, called in ours.items())
        raise ChipSetError(
            f"{name}: has other codes than the model ({told}), which knows {expected}; recode the map, tile it again"
        )


def check_mosaic(path: Path, translator: Translator, chipset: ChipSet) -> list[str]:
    """Refuse a mosaic that the model cannot have made of the ground of a chip set; notes on one that it may not have.

    Raises:
        RasterError: It is missing or unreadable.
        ConfigError: It has other bands or another type than what the model makes, or lies elsewhere.
    """
    info, target = describe_raster(path), translator.card.target
    if (info.count, info.dtype) != (len(target.bands), target.dtype):
        raise ConfigError(
            f"{path}: has {info.count} bands of {info.dtype}, the model makes {len(target.bands)} of {target.dtype}; "
            "give a mosaic of this model"
        )
    if not any(_meet(info.grid, scene.grid) for scene in chipset.scenes):
        raise ConfigError(
            f"{path}: lies on {info.grid.describe()}, away from the scenes of {chipset.folder}; give a mosaic of their "
            "ground"
        )
    with opened(path) as dataset:
        maker = dataset.tags().get("GEOP2P_MODEL_SHA256")
    if maker == translator.digest:
        return []
    why = "does not say which model made it" if maker is None else f"was made by another model ({maker[:7]})"
    return [f"{path} {why}: what is shown of it and its seams may not be this model's ({translator.digest[:7]})."]


def _meet(one: Grid, other: Grid) -> bool:
    """Whether two grids have ground in common; without CRS nobody knows where they lie."""
    if one.crs is None or other.crs is None:
        return True
    left, bottom, right, top = one.bounds_in(other.crs)
    west, south, east, north = other.bounds
    return left < east and west < right and bottom < north and south < top
