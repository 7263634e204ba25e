"""The index of a chip set: a GeoPackage that opens in QGIS coloured by split."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import shapely
from rasterio.crs import CRS

from geop2p.config import Split
from geop2p.raster.atomic import replacing, write_text
from geop2p.tiling.geopackage import write_table
from geop2p.tiling.rows import share_columns
from geop2p.tiling.table import ChipTable

INDEX_STYLE = "index.qml"
KEYS = ("id", "scene", "split", "block", "row_off", "col_off", "valid")  # columns without which it is none
SPLIT_COLORS: dict[Split, tuple[int, int, int]] = {"train": (31, 120, 180), "val": (255, 127, 0), "test": (227, 26, 28)}


def write_index(file: Path, index: ChipTable) -> None:
    """Write the index, atomically, and beside it the style that QGIS opens it with.

    The style is a file and not a table of the GeoPackage: readers that are not told a layer's name stay quiet.
    """
    with replacing(file) as temporary:
        write_table(temporary, index)
    for ending in ("-wal", "-shm"):  # of a program that had the file of before open
        file.with_name(file.name + ending).unlink(missing_ok=True)
    write_text(file.with_name(INDEX_STYLE), _index_style())


def joined(fixed: ChipTable, table: ChipTable) -> ChipTable:
    """One index of earlier and new chips, in their common CRS or EPSG:4326, or in pixels without CRS."""
    parts = [fixed, table] if len(fixed) else [table]
    if len(fixed) and fixed.crs != table.crs:
        parts = [_in_degrees(part) for part in parts]
    shares = {name for part in parts for name in share_columns(part)}
    ordered = sorted(shares, key=lambda name: (name.split("_")[0], int(name.split("_")[1])))
    shift = ("shift_rows", "shift_cols", "shift_confidence")
    absent = dict.fromkeys(ordered, 0.0) | dict.fromkeys(shift, np.nan)
    columns = {
        name: np.concatenate([part[name] if name in part else np.full(len(part), absent[name]) for part in parts])
        for name in (*KEYS, *shift, *ordered)
    }
    return ChipTable(columns, np.concatenate([part.shapes for part in parts]), parts[0].crs)


def _in_degrees(table: ChipTable) -> ChipTable:
    """A table in EPSG:4326; footprints across the dateline have a part on either side of it."""
    table = table.to_crs(CRS.from_epsg(4326))
    shapes = table.shapes.copy()
    left, _, right, _ = shapely.bounds(shapes).T
    for place in np.flatnonzero((right - left > 180) & (shapely.get_num_geometries(shapes) == 1)):
        ring = shapely.transform(shapes[place], lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))
        east, west = ring.intersection(shapely.box(0, -90, 180, 90)), ring.intersection(shapely.box(180, -90, 360, 90))
        shapes[place] = shapely.union_all([east, shapely.transform(west, lambda xy: xy - (360, 0))])
    return ChipTable(table.columns, shapes, table.crs)


def _index_style() -> str:
    """QML: one fill symbol with a coloured outline for each split."""
    root = ElementTree.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ElementTree.SubElement(root, "renderer-v2", type="categorizedSymbol", attr="split", enableorderby="0")
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for number, (split, (red, green, blue)) in enumerate(SPLIT_COLORS.items()):
        ElementTree.SubElement(categories, "category", value=split, label=split, symbol=str(number), render="true")
        symbol = ElementTree.SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1")
        layer = ElementTree.SubElement(
            symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0", "locked": "0"}
        )
        options = ElementTree.SubElement(layer, "Option", type="Map")
        values = {
            "color": f"{red},{green},{blue},60",
            "outline_color": f"{red},{green},{blue},255",
            "outline_width": "0.3",
            "style": "solid",
        }
        for name, value in values.items():
            ElementTree.SubElement(options, "Option", name=name, value=value, type="QString")
            ElementTree.SubElement(layer, "prop", k=name, v=value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"
