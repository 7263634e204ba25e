"""A folder of rasters read as one: a GDAL virtual raster over its files, later names over earlier ones. Opens none."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import shapely
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


def _overlapping(windows: Sequence[Window]) -> list[bool]:
    """Which windows have ground in common with another."""
    edge = 0.25  # of a pixel: those that touch each other have none
    boxes = [
        shapely.box(
            here.col_off + edge,
            here.row_off + edge,
            here.col_off + here.width - edge,
            here.row_off + here.height - edge,
        )
        for here in windows
    ]
    ones, others = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    found = np.zeros(len(boxes), bool)
    found[ones[ones != others]] = True
    return found.tolist()


def _xml(grid: Grid, sources: Sequence[tuple["RasterInfo", Window]]) -> str:
    first = sources[0][0]
    overlapping = _overlapping([window for _, window in sources])
    masked = [shares and _needs_mask(info) for shares, (info, _) in zip(overlapping, sources, strict=True)]
    names = [_masked(info) if joint else _path(info) for joint, (info, _) in zip(masked, sources, strict=True)]
    assert grid.crs is not None
    root = ElementTree.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    ElementTree.SubElement(root, "SRS").text = grid.crs.to_wkt()
    ElementTree.SubElement(root, "GeoTransform").text = ", ".join(repr(value) for value in grid.transform.to_gdal())
    for number in range(1, first.count + 1):
        band = _band(first, number)
        root.append(band)
        for (info, window), name, joint in zip(sources, names, masked, strict=True):
            source = _add_source(band, name, window, str(number))
            if info.has_mask or joint:
                ElementTree.SubElement(source, "UseMaskBand").text = "true"
            elif info.nodata is not None:
                ElementTree.SubElement(source, "NODATA").text = repr(info.nodata)
    if first.nodata is None or any(masked) or any(info.has_mask for info, _ in sources):
        mask = ElementTree.SubElement(ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        for (_, window), name in zip(sources, names, strict=True):
            ElementTree.SubElement(_add_source(mask, name, window, "mask,1"), "NODATA").text = "0"
    return ElementTree.tostring(root, encoding="unicode")


def _missing(info: "RasterInfo") -> float | None:
    """The value that means no data in a file: NaN in floats that tell none."""
    return math.nan if info.nodata is None and np.dtype(info.dtype).kind == "f" else info.nodata


def _needs_mask(info: "RasterInfo") -> bool:
    """Whether GDAL knows by itself too little of what a file without mask hides, where it lies on another.

    A value in one of several bands hides the pixel, but GDAL looks at each band alone, and at no NaN that is not told.
    """
    return not info.has_mask and _missing(info) is not None and (info.count > 1 or info.nodata is None)


def _path(info: "RasterInfo") -> str:
    return str(Path(info.path).resolve())


def _masked(info: "RasterInfo") -> str:
    """A file as a virtual raster with a mask of all its bands, which takes more time than the file alone."""
    path = _path(info)
    size = {"rasterXSize": str(info.grid.width), "rasterYSize": str(info.grid.height)}
    told, masked = (ElementTree.Element("VRTDataset", size) for _ in range(2))
    for number in range(1, info.count + 1):
        band = _plain_band(told, info, number)
        ElementTree.SubElement(band, "NoDataValue").text = repr(_missing(info))
        _add_whole(band, path, str(number))
    name = ElementTree.tostring(told, encoding="unicode")
    for number in range(1, info.count + 1):
        _add_whole(_plain_band(masked, info, number), path, str(number))
    mask = ElementTree.SubElement(ElementTree.SubElement(masked, "MaskBand"), "VRTRasterBand", dataType="Byte")
    if info.count > 1:
        mask.set("subClass", "VRTDerivedRasterBand")
        ElementTree.SubElement(mask, "PixelFunctionType").text = "mul"
    for number in range(1, info.count + 1):
        _add_whole(mask, name, f"mask,{number}")
    return ElementTree.tostring(masked, encoding="unicode")


def _plain_band(root: ElementTree.Element, info: "RasterInfo", number: int) -> ElementTree.Element:
    return ElementTree.SubElement(root, "VRTRasterBand", dataType=typename_fwd[dtype_rev[info.dtype]], band=str(number))


def _add_whole(band: ElementTree.Element, name: str, number: str) -> None:
    source = ElementTree.SubElement(band, "SimpleSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = name
    ElementTree.SubElement(source, "SourceBand").text = number


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


def _add_source(band: ElementTree.Element, name: str, window: Window, number: str) -> ElementTree.Element:
    """A file of a band."""
    source = ElementTree.SubElement(band, "ComplexSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = name
    ElementTree.SubElement(source, "SourceBand").text = number
    size = {"xSize": str(int(window.width)), "ySize": str(int(window.height))}
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0"} | size)
    place = {"xOff": str(int(window.col_off)), "yOff": str(int(window.row_off))}
    ElementTree.SubElement(source, "DstRect", place | size)
    return source
