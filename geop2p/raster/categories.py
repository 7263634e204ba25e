"""Names of classes beside a raster, in GDAL's PAM files: written and read."""

import errno
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from geop2p.errors import RasterError
from geop2p.raster.atomic import write_text
from geop2p.raster.encoding import Encoding
from geop2p.raster.folder import folder_files

NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL}  # under a name, which may not be one
VALUES_USE, NAMES_USE = "5", "2"  # of columns of GDAL's attribute tables: GFU_MinMax, GFU_Name


def read_categories(path: str | Path) -> dict[int, str]:
    """Class names by value from a file's `.aux.xml` (GDAL PAM), of a folder its first; empty without one.

    They are the category names, else those of an attribute table with a column of values and one of names.
    """
    if Path(path).is_dir():
        return next((found for file in folder_files(path) if (found := read_categories(file))), {})
    sidecar = Path(f"{path}.aux.xml")
    try:
        with sidecar.open("rb") as file:  # of the encoding that it tells
            band = ElementTree.parse(file).find("./PAMRasterBand[@band='1']")
    except OSError as error:
        if error.errno not in NO_FILE:
            raise RasterError(f"{sidecar}: cannot be read ({error.strerror}); delete or repair it") from error
        return {}
    except ElementTree.ParseError as error:
        raise RasterError(f"{sidecar}: not valid XML ({error}); delete or repair it") from error
    if band is None:
        return {}
    listed = [(value, name.text) for value, name in enumerate(band.findall("./CategoryNames/Category"))]
    return {value: name.strip() for value, name in listed or _attributes(band) if name and name.strip()}


def _attributes(band: ElementTree.Element) -> list[tuple[int, str | None]]:
    """Whole values and names in the attribute table of a band; empty where it has no such columns."""
    uses = [field.findtext("Usage") for field in band.findall("./GDALRasterAttributeTable/FieldDefn")]
    if VALUES_USE not in uses or NAMES_USE not in uses:
        return []
    rows = [[entry.text for entry in row] for row in band.findall("./GDALRasterAttributeTable/Row")]
    pairs = [(row[uses.index(VALUES_USE)], row[uses.index(NAMES_USE)]) for row in rows if len(row) == len(uses)]
    whole = ((re.fullmatch(r"(-?\d+)(?:\.0*)?", value or ""), name) for value, name in pairs)
    return [(int(value[1]), name) for value, name in whole if value is not None]


def write_categories(raster: Path, encoding: Encoding) -> None:
    """Write class names beside a raster, into its GDAL PAM file `<name>.aux.xml`."""
    write_text(Path(f"{raster}.aux.xml"), categories_text(encoding))


def categories_text(encoding: Encoding) -> str:
    """Content of a GDAL PAM file with class names; empty where there are none."""
    root = ElementTree.Element("PAMDataset")
    add_categories(ElementTree.SubElement(root, "PAMRasterBand", band="1"), encoding)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n" if encoding.classes else ""


def add_categories(band: ElementTree.Element, encoding: Encoding) -> None:
    """Add the names of the classes to an XML element of a band.

    As category names, which GDAL counts from 0, where the codes are 0 to 4095; others stand in an attribute table.
    """
    names = {entry.value: entry.name for entry in encoding.classes}
    if not names:
        return
    if min(names) < 0 or max(names) > 4095:
        _add_attributes(band, names)
        return
    categories = ElementTree.SubElement(band, "CategoryNames")
    for value in range(max(names) + 1):
        ElementTree.SubElement(categories, "Category").text = names.get(value, "")


def _add_attributes(band: ElementTree.Element, names: Mapping[int, str]) -> None:
    """Add a raster attribute table of values and names, as GDAL's PAM files hold it (gdal_rat.h)."""
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    integer, real, text = "0", "1", "2"
    number = integer if all(-(2**31) <= value < 2**31 for value in names) else real
    for index, (title, kind, usage) in enumerate((("Value", number, VALUES_USE), ("Class", text, NAMES_USE))):
        field = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        for tag, content in (("Name", title), ("Type", kind), ("Usage", usage)):
            ElementTree.SubElement(field, tag).text = content
    for index, (value, name) in enumerate(sorted(names.items())):
        row = ElementTree.SubElement(table, "Row", index=str(index))
        for content in (str(value), name):
            ElementTree.SubElement(row, "F").text = content
