"""Which source belongs to which target."""

from pathlib import Path

from geop2p.errors import GridMismatchError, RasterError
from geop2p.raster.features import VECTOR_SUFFIXES, is_geodatabase
from geop2p.raster.folder import RASTER_SUFFIXES

LAYER_SUFFIXES = (*RASTER_SUFFIXES, *VECTOR_SUFFIXES)


def find_pairs(source: str | Path, target: str | Path) -> list[tuple[str, str]]:
    """The pairs that two layers, or the layers of two folders, make.

    Args:
        source: Layer or folder.
        target: Layer, or folder if `source` is one; files are paired by their stem, in order of it.

    Raises:
        GridMismatchError: A file of one folder has no partner in the other; the message lists them.
        RasterError: Only one of the two is a folder, or one has no layers or two of one stem.
    """
    folders = [Path(side).is_dir() and not is_geodatabase(side) for side in (source, target)]
    if not any(folders):
        return [(str(source), str(target))]
    if not all(folders):
        lone = source if folders[0] else target
        raise RasterError(f"{lone}: a folder, the other side is not; give two layers or two folders")
    sources, targets = _layers(Path(source)), _layers(Path(target))
    lonely = [str(sources[stem]) for stem in sorted(set(sources) - set(targets))]
    lonely += [str(targets[stem]) for stem in sorted(set(targets) - set(sources))]
    if lonely:
        raise GridMismatchError(f"no partner of the same stem for {', '.join(lonely)}; rename or remove them")
    return [(str(sources[stem]), str(targets[stem])) for stem in sorted(sources)]


def _layers(folder: Path) -> dict[str, Path]:
    """The raster and vector files of a folder by stem."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in LAYER_SUFFIXES and not path.name.startswith("."):
            if path.stem in found and path.suffix.lower() == ".json":
                continue  # what a catalogue says of the layer of this name
            if path.stem in found and found[path.stem].suffix.lower() != ".json":
                raise RasterError(
                    f"{folder}: has {found[path.stem].name} and {path.name}; one stem must name one layer"
                )
            found[path.stem] = path
    if not found:
        raise RasterError(f"{folder}: has no layers ({', '.join(LAYER_SUFFIXES)})")
    return found
