"""The GDAL virtual raster over the parts of a mosaic: all that a reader should know of the result stands here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.windows import Window

from geop2p.raster.categories import add_categories
from geop2p.raster.encoding import Encoding
from geop2p.raster.grid import Grid
from geop2p.raster.writing import fill_value


@dataclass(frozen=True)
class Part:
    """A GeoTIFF that holds a window of a larger raster.

    Attributes:
        file: Name of the file, relative to the VRT.
        window: Its place in the larger raster.
    """

    file: str
    window: Window


@dataclass(frozen=True)
class Overview:
    """A small copy of a raster.

    Attributes:
        file: Name of the file, relative to the VRT.
        mask: Name of a file of one band, 0 where the raster is not valid; None where values say it.
        grid: Its grid.
    """

    file: str
    mask: str | None
    grid: Grid


@dataclass(frozen=True)
class BandSummary:
    """Statistics of a band's valid pixels; None where there are none."""

    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    valid_percent: float


@dataclass(frozen=True)
class TiledRaster:
    """A raster whose pixels lie in parts, and everything that a reader should know about it.

    Attributes:
        grid: Grid of the whole.
        encoding: What it holds: type, names, units, scale, colours.
        parts: Files that together cover its valid ground.
        summaries: Statistics of each band; empty while they are not known.
        tags: Metadata of the whole.
        overview: A small copy of it.
    """

    grid: Grid
    encoding: Encoding
    parts: Sequence[Part]
    summaries: Sequence[BandSummary] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    overview: Overview | None = None


def vrt_xml(raster: TiledRaster, seen_on: Grid | None = None) -> str:
    """A GDAL virtual raster over the parts of another.

    Args:
        raster: What it shows.
        seen_on: The grid whose pixels the places of the parts count, if it is another one of the same ground.
    """
    grid, encoding, parts, overview = raster.grid, raster.encoding, raster.parts, raster.overview
    summaries = raster.summaries or [BandSummary(None, None, None, None, 0.0)] * len(encoding.bands)
    nodata, dtype = fill_value(encoding), typename_fwd[dtype_rev[encoding.dtype]]
    scale = _scale(grid, seen_on or grid)
    root = _root(grid)
    _add_metadata(root, {**raster.tags, "AREA_OR_POINT": "Area"})
    for number, (band, summary) in enumerate(zip(encoding.bands, summaries, strict=True), start=1):
        element = ElementTree.SubElement(root, "VRTRasterBand", dataType=dtype, band=str(number))
        _add_statistics(element, summary)
        _describe_band(element, encoding, number, nodata)
        if band.name:
            ElementTree.SubElement(element, "Description").text = band.name
        if band.unit:
            ElementTree.SubElement(element, "UnitType").text = band.unit
        if (band.scale, band.offset) != (1, 0):
            ElementTree.SubElement(element, "Offset").text = repr(band.offset)
            ElementTree.SubElement(element, "Scale").text = repr(band.scale)
        if overview is not None:
            _add_overview(element, overview.file, number)
        _add_sources(element, parts, str(number), nodata, scale)
    if nodata is None:
        mask = ElementTree.SubElement(ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        if overview is not None and overview.mask is not None:
            _add_overview(mask, overview.mask, 1)
        _add_sources(mask, parts, "mask,1", None, scale)
    return _text(root)


def mask_xml(grid: Grid, parts: Sequence[Part], seen_on: Grid) -> str:
    """A GDAL virtual raster of one band, 255 where the parts are valid, else 0; see `vrt_xml`."""
    root = _root(grid)
    band = ElementTree.SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    _add_sources(band, parts, "mask,1", None, _scale(grid, seen_on))
    return _text(root)


def _root(grid: Grid) -> ElementTree.Element:
    root = ElementTree.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    if grid.crs is not None:
        ElementTree.SubElement(root, "SRS").text = grid.crs.to_wkt()
    if grid.georeference is not None:
        coefficients = ", ".join(repr(value) for value in grid.georeference.to_gdal())
        ElementTree.SubElement(root, "GeoTransform").text = coefficients
    return root


def _text(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _scale(grid: Grid, seen_on: Grid) -> tuple[float, float]:
    """Rows and columns of a grid for each of another one of the same ground."""
    return grid.height / seen_on.height, grid.width / seen_on.width


def _add_overview(element: ElementTree.Element, file: str, band: int) -> None:
    overview = ElementTree.SubElement(element, "Overview")
    ElementTree.SubElement(overview, "SourceFilename", relativeToVRT="1").text = file
    ElementTree.SubElement(overview, "SourceBand").text = str(band)


def _add_metadata(element: ElementTree.Element, tags: dict[str, str]) -> None:
    metadata = ElementTree.SubElement(element, "Metadata")
    for key, value in tags.items():
        ElementTree.SubElement(metadata, "MDI", key=key).text = value


def _add_statistics(element: ElementTree.Element, summary: BandSummary) -> None:
    tags = {"STATISTICS_VALID_PERCENT": f"{summary.valid_percent:.4g}"}
    if summary.minimum is not None:
        names = {"MINIMUM": summary.minimum, "MAXIMUM": summary.maximum, "MEAN": summary.mean, "STDDEV": summary.std}
        tags |= {f"STATISTICS_{name}": repr(value) for name, value in names.items()}
    _add_metadata(element, tags)


def _describe_band(element: ElementTree.Element, encoding: Encoding, number: int, nodata: float | None) -> None:
    if nodata is not None:
        ElementTree.SubElement(element, "NoDataValue").text = "nan" if math.isnan(nodata) else repr(nodata)
    with_palette = encoding.is_classes and encoding.dtype in ("uint8", "uint16")
    roles = encoding.color_interp or ("undefined",) * len(encoding.bands)
    role = "palette" if with_palette else roles[number - 1]
    ElementTree.SubElement(element, "ColorInterp").text = role.capitalize()
    if with_palette:
        table = ElementTree.SubElement(element, "ColorTable")
        colors = {entry.value: entry.color for entry in encoding.classes}
        for value in range(max(colors) + 1):
            red, green, blue = colors.get(value, (0, 0, 0))
            alpha = 255 if value in colors else 0
            ElementTree.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4=str(alpha))
    if encoding.is_classes:
        add_categories(element, encoding)


def _add_sources(
    element: ElementTree.Element, parts: Sequence[Part], band: str, nodata: float | None, scale: tuple[float, float]
) -> None:
    down, along = scale
    for part in parts:
        window = part.window
        name = "SimpleSource" if nodata is None else "ComplexSource"
        source = ElementTree.SubElement(element, name)
        ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = part.file
        ElementTree.SubElement(source, "SourceBand").text = band
        size = {"xSize": f"{window.width}", "ySize": f"{window.height}"}
        place = {"xOff": f"{window.col_off * along:.17g}", "yOff": f"{window.row_off * down:.17g}"}
        seen = {"xSize": f"{window.width * along:.17g}", "ySize": f"{window.height * down:.17g}"}
        ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0"} | size)
        ElementTree.SubElement(source, "DstRect", place | seen)
        if nodata is not None:
            ElementTree.SubElement(source, "NODATA").text = "nan" if math.isnan(nodata) else repr(nodata)
