"""What `--keep-parts` leaves instead of one file: the parts, each a COG of its own, and a VRT over them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rasterio.windows import Window

from geop2p.errors import RasterError
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.overview import levels
from geop2p.mosaic.seams import survey
from geop2p.mosaic.tags import figure_tags, provenance_tags
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.atomic import check_new, discard_removed, make_folder, remove_folder, write_text
from geop2p.raster.categories import write_categories
from geop2p.raster.folder import PARTS
from geop2p.raster.vrt import Part, TiledRaster, vrt_xml
from geop2p.raster.writing import write_cog

COGS = "cogs"  # folder of the finished parts until all are
MOVED = "mosaic.moved"  # its name is given, or is about to be, to the parts that stay


def check_present(folder: Path, made: Sequence[Part]) -> None:
    """Refuse to go on without parts that were there.

    Raises:
        RasterError: A file is gone.
    """
    for part in made:
        if not (folder / part.file).exists():
            raise RasterError(
                f"{folder / part.file}: is gone: another process puts the same parts together, or removed them; repeat "
                "the command alone"
            )


def kept_folder(output: Path) -> Path:
    """Where the parts stay, beside their VRT."""
    return output.with_name(f"{output.stem}{PARTS}")


def check_kept(read: Iterable[Path], output: Path, folder: Path, overwrite: bool) -> None:
    """Refuse to replace parts that stayed earlier, or something else.

    Args:
        read: All files that are read.
        output: The VRT.
        folder: Where the parts are made.
        overwrite: Whether earlier parts may be replaced.

    Raises:
        RasterError: Their place is taken, or an input lies there.
        OutputError: Earlier parts stay there.
    """
    place = kept_folder(output)
    if not place.exists() or (folder / MOVED).exists():
        return
    inside = next((file for file in read if file.resolve().is_relative_to(place.resolve())), None)
    if inside is not None:
        raise RasterError(f"{inside}: lies where the parts of {output.name} are to stay; give another output name")
    if not place.is_dir() or not all(entry.name.startswith(("part_", "overview", ".")) for entry in place.iterdir()):
        raise RasterError(f"{place}: is where the parts stay, but holds something else; move it or name another output")
    check_new(place, overwrite)


def take_back(output: Path, folder: Path) -> None:
    """Undo what a run that was killed while it left its parts has done, so that they can be put together again."""
    if (folder / MOVED).exists():
        if not (folder / COGS).exists() and kept_folder(output).exists():  # else they were removed, and are made again
            kept_folder(output).rename(folder / COGS)
        (folder / MOVED).unlink(missing_ok=True)


def keep_part(mosaic: Mosaic, window: Window, path: Path, cog: Path) -> Path:
    """Turn a part into a COG with statistics and tags of its own, and give its path.

    Args:
        mosaic: What it is of.
        window: Its place on the mosaic's grid.
        path: Where it lies now.
        cog: Where it is to lie.
    """
    target, grid, vrt = mosaic.translator.card.target, mosaic.grid.window(window), path.with_suffix(".vrt")
    try:
        with aligned_reader(path, grid, target.kind) as part:
            summaries, seam_index = survey(part, target, mosaic.lattice.moved(window))
        whole = Part(path.name, Window(0, 0, grid.width, grid.height))
        tags = provenance_tags(mosaic, window) | figure_tags({"seam_index": seam_index})
        write_text(vrt, vrt_xml(TiledRaster(grid, target, [whole], summaries, tags)))
        write_cog(vrt, cog, target, overviews=levels(mosaic.part_side))
        if target.is_classes:
            write_categories(cog, target)
    finally:  # under names that no other try would take
        vrt.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return cog


def leave_parts(output: Path, folder: Path, made: Sequence[Part]) -> Path:
    """Give the finished parts their lasting place, beside the VRT that is to be written.

    Parts that stayed there earlier are removed with their VRT.

    Args:
        output: The VRT.
        folder: Where the parts were made.
        made: They.

    Returns:
        Their place.

    Raises:
        RasterError: Some parts are gone.
    """
    place = kept_folder(output)
    check_present(folder, made)
    for temporary in (folder / COGS).glob(".*"):  # of a process that was killed
        temporary.unlink()
    discard_removed(place)
    if place.exists():
        remove_folder(place)  # fails where it is in use, and then nothing has changed
    output.unlink(missing_ok=True)
    if not made:
        make_folder(folder / COGS)
    write_text(folder / MOVED, "")
    (folder / COGS).rename(place)
    return place
