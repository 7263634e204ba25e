"""The GDAL virtual raster over the parts of a mosaic: all that a reader should know of the result stands here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.windows import Window

from geop2p.raster.encoding import Encoding
from geop2p.raster.grid import Grid
from geop2p.raster.writing import add_categories, fill_value


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
class BandSummary:
    """Statistics of a band's valid pixels; None where there are none."""

    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    valid_percent: float


def vrt_xml(
    grid: Grid,
    encoding: Encoding,
    parts: Sequence[Part],
    summaries: Sequence[BandSummary],
    tags: dict[str, str],
) -> str:
    """A GDAL virtual raster over the parts of a mosaic, with everything a reader should know about it.

    Args:
        grid: Grid of the whole.
        encoding: What it holds: type, names, units, scale, colours.
        parts: Files that together cover its valid ground.
        summaries: Statistics of each band.
        tags: Metadata of the whole.
    """
    nodata, dtype = fill_value(encoding), typename_fwd[dtype_rev[encoding.dtype]]
    root = ElementTree.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    if grid.crs is not None:
        ElementTree.SubElement(root, "SRS").text = grid.crs.to_wkt()
        coefficients = ", ".join(repr(value) for value in grid.transform.to_gdal())
        ElementTree.SubElement(root, "GeoTransform").text = coefficients
    _add_metadata(root, tags | {"AREA_OR_POINT": "Area"})
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
        _add_sources(element, parts, str(number), nodata)
    if nodata is None:
        mask = ElementTree.SubElement(ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        _add_sources(mask, parts, "mask,1", None)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


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


def _add_sources(element: ElementTree.Element, parts: Sequence[Part], band: str, nodata: float | None) -> None:
    for part in parts:
        window = part.window
        name = "SimpleSource" if nodata is None else "ComplexSource"
        source = ElementTree.SubElement(element, name)
        ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = part.file
        ElementTree.SubElement(source, "SourceBand").text = band
        size = {"xSize": str(int(window.width)), "ySize": str(int(window.height))}
        place = {"xOff": str(int(window.col_off)), "yOff": str(int(window.row_off))}
        ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0"} | size)
        ElementTree.SubElement(source, "DstRect", place | size)
        if nodata is not None:
            ElementTree.SubElement(source, "NODATA").text = "nan" if math.isnan(nodata) else repr(nodata)
