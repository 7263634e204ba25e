"""A folder of rasters read as one: a GDAL virtual raster over its files, later names over earlier ones. Opens none."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.windows import Window

from geop2p.errors import GridMismatchError, RasterError
from geop2p.raster.agreement import known_alike, order_difference, warn_of_order
from geop2p.raster.encoding import Band
from geop2p.raster.grid import Grid

if TYPE_CHECKING:  # which reads folders by what stands here
    from geop2p.raster.reading import RasterInfo

log = logging.getLogger(__name__)

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg")
SIDECARS = (".aux.xml", ".ovr", ".msk")  # GDAL opens some of them, but they belong to a raster
PARTS = "_parts"  # how the folder ends in which a VRT of ours has its parts
SPARSE = 0.01  # share of their common extent that is covered, below which rasters are hardly meant as one
_SAME = {"count": "bands", "dtype": "type"} | {name: name for name in ("nodata", "units", "scales", "offsets")}


def folder_files(folder: str | Path) -> list[Path]:
    """The files of a folder that may be rasters, by name; not those of folders inside it."""
    files = (path for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if not path.name.lower().endswith(SIDECARS))


def stamps_of(folder: str) -> tuple[tuple[str, int, int], ...]:
    """What tells whether a folder is the one that was looked at before."""
    return tuple((file.name, (stat := file.stat()).st_mtime_ns, stat.st_size) for file in folder_files(folder))


def folder_vrt(folder: str, rasters: Sequence["RasterInfo"]) -> str:
    """The XML of a virtual raster over rasters on one lattice of pixels; what none covers is not valid.

    Rasters that do not fit are refused rather than warped: that would be a resampling behind the one that the
    training asks for, and which is right depends on what they hold.

    Args:
        folder: For messages.
        rasters: What its files say, in order: a later one covers those before it where it is valid.

    Raises:
        RasterError: There are none, or one has no place on the ground, or others bands, values or class names.
        GridMismatchError: Their pixels do not coincide.
    """
    place = Path(folder).resolve()
    mosaic = place.parent / f"{place.name.removesuffix(PARTS)}.vrt"
    if place.name.endswith(PARTS) and mosaic.is_file():
        raise RasterError(f"{folder}: holds the parts of {mosaic.name}; give that")
    if not rasters:
        raise RasterError(f"{folder}: has no rasters ({', '.join(RASTER_SUFFIXES)} or others that GDAL opens)")
    first = rasters[0]
    for info in rasters:
        if info.grid.crs is None or info.by_points:
            raise RasterError(
                f"{folder}: {Path(info.path).name} has no CRS or only control points, so that it cannot be joined to "
                "the others; warp it first (gdalwarp)"
            )
        if "int" in info.dtype and info.nodata is None and not (info.is_whole or info.has_mask):
            raise RasterError(
                f"{folder}: {Path(info.path).name} has an alpha band that is not the last of two or four; give it a "
                "mask instead (gdal_translate -b ... -mask ...)"
            )
        if info.count == first.count:
            sides = _bands(info), info.color_interp, _bands(first), first.color_interp
            if (apart := order_difference(*known_alike(*sides))) is not None:
                raise RasterError(
                    f"{folder}: {Path(info.path).name} {apart} as in {Path(first.path).name}; reorder them"
                )
            warn_of_order(info.path, *sides, Path(first.path).name)
        for name, word in _SAME.items():
            here, there = getattr(info, name), getattr(first, name)
            if repr(here) != repr(there):  # by its name: nan is not nan
                raise RasterError(
                    f"{folder}: {Path(info.path).name} has {word} {here}, {Path(first.path).name} {there}; a folder is "
                    "read as one raster: convert it, or take it away"
                )
    _check_classes(folder, rasters)
    places = [_place(folder, info, first) for info in rasters]
    if len({place.flatten() for place in places}) < len(places):
        log.warning("%s: several of its rasters cover the same ground; the last by name is on top", folder)
    top, left = (min(getattr(place, name) for place in places) for name in ("row_off", "col_off"))
    bottom = max(place.row_off + place.height for place in places)
    right = max(place.col_off + place.width for place in places)
    grid = first.grid.window(Window(left, top, right - left, bottom - top))
    covered = sum(place.width * place.height for place in places) / (grid.width * grid.height)
    if covered < SPARSE:
        log.warning(
            "%s: its %d rasters cover %.3g %% of the %d x %d pixels around them all; if they are not meant as one, "
            "give them one by one",
            folder, len(rasters), 100 * covered, grid.width, grid.height,
        )  # fmt: skip
    inside = [Window(place.col_off - left, place.row_off - top, place.width, place.height) for place in places]
    return _xml(grid, list(zip(rasters, inside, strict=True)))


def _bands(info: "RasterInfo") -> list[Band]:
    return [Band(name) for name in info.names]


def _check_classes(folder: str, rasters: Sequence["RasterInfo"]) -> None:
    named = [info for info in rasters if info.categories]
    for info in named:
        if info.categories != named[0].categories:
            raise RasterError(
                f"{folder}: {Path(info.path).name} and {Path(named[0].path).name} have other names of classes; a "
                "folder is read as one raster: recode one of them, or take it away"
            )


def _place(folder: str, info: "RasterInfo", first: "RasterInfo") -> Window:
    """Where a raster lies in pixels of the first one."""
    offset = info.grid.offset_in(first.grid)
    if offset is None:
        raise GridMismatchError(
            f"{folder}: the pixels of {Path(info.path).name} ({_pixels(info.grid)}) are not on the lattice of "
            f"{Path(first.path).name} ({_pixels(first.grid)}); a folder is read as one raster: warp it onto that "
            "lattice (gdalwarp -t_srs -tr -tap), or take it away"
        )
    return Window(offset[1], offset[0], info.grid.width, info.grid.height)


def _pixels(grid: Grid) -> str:
    along, _, left, _, down, top = list(grid.transform)[:6]
    crs = "no CRS" if grid.crs is None else grid.crs.to_string()
    return f"{crs}, {along:.10g} x {down:.10g} from {left:.10g}, {top:.10g}"


def _xml(grid: Grid, sources: Sequence[tuple["RasterInfo", Window]]) -> str:
    first = sources[0][0]
    assert grid.crs is not None
    root = ElementTree.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    ElementTree.SubElement(root, "SRS").text = grid.crs.to_wkt()
    ElementTree.SubElement(root, "GeoTransform").text = ", ".join(repr(value) for value in grid.transform.to_gdal())
    for number in range(1, first.count + 1):
        band = _band(first, number)
        root.append(band)
        for info, window in sources:
            _add_source(band, info, window, str(number), None if info.has_mask else first.nodata)
    if first.nodata is None or any(info.has_mask for info, _ in sources):
        mask = ElementTree.SubElement(ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        for info, window in sources:
            _add_source(mask, info, window, "mask,1", 0)
    return ElementTree.tostring(root, encoding="unicode")


def _band(info: "RasterInfo", number: int) -> ElementTree.Element:
    index = number - 1
    band = ElementTree.Element("VRTRasterBand", dataType=typename_fwd[dtype_rev[info.dtype]], band=str(number))
    if info.nodata is not None:
        ElementTree.SubElement(band, "NoDataValue").text = repr(info.nodata)
    ElementTree.SubElement(band, "ColorInterp").text = info.color_interp[index].capitalize()
    if info.palette and index == 0:
        table = ElementTree.SubElement(band, "ColorTable")
        for value in range(max(info.palette) + 1):
            red, green, blue = (str(part) for part in info.palette.get(value, (0, 0, 0)))
            ElementTree.SubElement(table, "Entry", c1=red, c2=green, c3=blue, c4="255")
    ElementTree.SubElement(band, "Description").text = info.names[index]
    ElementTree.SubElement(band, "UnitType").text = info.units[index]
    ElementTree.SubElement(band, "Offset").text = repr(info.offsets[index])
    ElementTree.SubElement(band, "Scale").text = repr(info.scales[index])
    return band


def _add_source(
    band: ElementTree.Element, info: "RasterInfo", window: Window, number: str, nodata: float | None
) -> None:
    """A file of a band; where it is not valid it hides nothing."""
    source = ElementTree.SubElement(band, "ComplexSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = str(Path(info.path).resolve())
    ElementTree.SubElement(source, "SourceBand").text = number
    size = {"xSize": str(int(window.width)), "ySize": str(int(window.height))}
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0"} | size)
    place = {"xOff": str(int(window.col_off)), "yOff": str(int(window.row_off))}
    ElementTree.SubElement(source, "DstRect", place | size)
    if nodata is not None:
        ElementTree.SubElement(source, "NODATA").text = repr(nodata)
    elif info.has_mask:
        ElementTree.SubElement(source, "UseMaskBand").text = "true"
