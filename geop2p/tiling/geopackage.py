"""The index as a GeoPackage (OGC 12-128r19), written with sqlite3: the same rows give the same bytes."""

import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np
import shapely
from rasterio.crs import CRS

from geop2p.errors import ChipSetError
from geop2p.tiling.table import ChipTable, Column

LAYER = "chips"
PIXELS = -1  # srs_id of an undefined Cartesian system
OTHER = 100_000  # srs_id of a system without EPSG code
WRITTEN = "2000-01-01T00:00:00.000Z"  # a time is asked for; the real one would make every file another
ENVELOPES = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}  # bytes, by what the flags of a geometry say

SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
BEGIN;
PRAGMA application_id = 0x47504B47;
PRAGMA user_version = 10300;
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
    organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
    description TEXT DEFAULT '', last_change DATETIME NOT NULL, min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE,
    srs_id INTEGER REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT PRIMARY KEY REFERENCES gpkg_contents(table_name),
    column_name TEXT NOT NULL, geometry_type_name TEXT NOT NULL,
    srs_id INTEGER NOT NULL REFERENCES gpkg_spatial_ref_sys(srs_id), z TINYINT NOT NULL, m TINYINT NOT NULL);
CREATE TABLE gpkg_extensions (table_name TEXT, column_name TEXT, extension_name TEXT NOT NULL,
    definition TEXT NOT NULL, scope TEXT NOT NULL, UNIQUE (table_name, column_name, extension_name));
INSERT INTO gpkg_extensions VALUES
    ('chips', 'geom', 'gpkg_rtree_index', 'http://www.geopackage.org/spec120/#extension_rtree', 'write-only');
CREATE VIRTUAL TABLE rtree_chips_geom USING rtree(id, minx, maxx, miny, maxy);
"""
BOUNDS = "NEW.fid, ST_MinX(NEW.geom), ST_MaxX(NEW.geom), ST_MinY(NEW.geom), ST_MaxY(NEW.geom)"
TRIGGERS = f"""
CREATE TRIGGER rtree_chips_geom_insert AFTER INSERT ON chips WHEN NEW.geom NOT NULL
    BEGIN INSERT INTO rtree_chips_geom VALUES ({BOUNDS}); END;
CREATE TRIGGER rtree_chips_geom_update AFTER UPDATE ON chips
    BEGIN DELETE FROM rtree_chips_geom WHERE id = OLD.fid; INSERT INTO rtree_chips_geom VALUES ({BOUNDS}); END;
CREATE TRIGGER rtree_chips_geom_delete AFTER DELETE ON chips
    BEGIN DELETE FROM rtree_chips_geom WHERE id = OLD.fid; END;
"""
TYPES = {"i": "INTEGER", "f": "REAL"}


def write_table(file: Path, table: ChipTable) -> None:
    """Write an index to an empty file, with a spatial index.

    Raises:
        OSError: It cannot be written.
    """
    srs = _code(table.crs)
    boxes = shapely.bounds(table.shapes)
    ends = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    kinds = set(shapely.get_type_id(table.shapes).tolist())
    geometry_type = "POLYGON" if kinds == {shapely.GeometryType.POLYGON} else "GEOMETRY"
    columns = "".join(f', "{name}" {TYPES.get(values.dtype.kind, "TEXT")}' for name, values in table.columns.items())
    blobs = _blobs(table, srs, boxes)
    rows = zip(range(1, len(table) + 1), blobs, *map(_plain, table.columns.values()), strict=True)
    places = ((fid, *box) for fid, box in enumerate(boxes[:, [0, 2, 1, 3]].tolist(), start=1))
    try:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.executescript(SCHEMA)
            connection.executemany(
                "INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, NULL)", _systems(table, srs)
            )
            connection.execute(
                "INSERT INTO gpkg_contents VALUES (?, 'features', ?, '', ?, ?, ?, ?, ?, ?)",
                (LAYER, LAYER, WRITTEN, *ends, srs),
            )
            connection.execute(
                "INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', ?, ?, 0, 0)", (LAYER, geometry_type, srs)
            )
            connection.execute(f"CREATE TABLE chips (fid INTEGER PRIMARY KEY, geom {geometry_type}{columns})")
            marks = ", ".join("?" * (len(table.columns) + 2))
            connection.executemany(f"INSERT INTO chips VALUES ({marks})", rows)
            connection.executemany("INSERT INTO rtree_chips_geom VALUES (?, ?, ?, ?, ?)", places)
            connection.executescript(TRIGGERS)
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


def _code(crs: CRS | None) -> int:
    """The srs_id of a CRS: its EPSG code where that says all of it."""
    if crs is None:
        return PIXELS
    epsg = crs.to_epsg()
    return epsg if epsg is not None and CRS.from_epsg(epsg) == crs else OTHER


def _systems(table: ChipTable, srs: int) -> list[tuple[str, int, str, int, str]]:
    """The three systems that every GeoPackage lists, and that of the footprints."""
    degrees = CRS.from_epsg(4326)
    found = {
        PIXELS: ("Undefined Cartesian SRS", PIXELS, "NONE", PIXELS, "undefined"),
        0: ("Undefined geographic SRS", 0, "NONE", 0, "undefined"),
        4326: ("EPSG:4326", 4326, "EPSG", 4326, degrees.to_wkt()),
    }
    if table.crs is not None and srs not in found:
        owner = "NONE" if srs == OTHER else "EPSG"
        found[srs] = (f"{owner}:{srs}", srs, owner, srs, table.crs.to_wkt())
    return list(found.values())


def _blobs(table: ChipTable, srs: int, boxes: Column) -> list[bytes]:
    """Footprints in the form of a GeoPackage: a header with their bounds, then WKB."""
    forms = shapely.to_wkb(table.shapes, byte_order=1)
    ends = boxes[:, [0, 2, 1, 3]].tolist()
    return [struct.pack("<2sBBi4d", b"GP", 0, 0b11, srs, *box) + form for box, form in zip(ends, forms, strict=True)]


def _plain(values: Column) -> list[object]:
    """The values of a column as sqlite3 takes them; it stores NaN as NULL."""
    plain: list[object] = values.tolist()
    return plain


def read_table(file: Path) -> ChipTable:
    """Read an index.

    Raises:
        ChipSetError: It is missing or damaged.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as connection:
            query = (
                "SELECT srs_id, definition FROM gpkg_spatial_ref_sys JOIN gpkg_geometry_columns USING (srs_id) "
                "WHERE table_name = ?"
            )
            srs, definition = connection.execute(query, (LAYER,)).fetchone()
            kinds = {row[1]: row[2] for row in connection.execute("PRAGMA table_info(chips)")}
            rows = connection.execute("SELECT * FROM chips ORDER BY fid").fetchall()
    except (sqlite3.Error, TypeError) as error:
        raise ChipSetError(f"{file}: missing or damaged ({error}); tile again with --overwrite") from error
    values = dict(zip(kinds, zip(*rows, strict=True) if rows else [()] * len(kinds), strict=True))
    shapes = shapely.from_wkb([blob[8 + ENVELOPES[blob[3] >> 1 & 7] :] for blob in values.pop("geom")])
    del values["fid"]
    columns = {name: _column(kinds[name], found) for name, found in values.items()}
    return ChipTable(columns, np.asarray(shapes, object), CRS.from_wkt(definition) if srs > 0 else None)


def _column(kind: str, values: tuple[object, ...]) -> Column:
    """Values of sqlite3 as numpy holds them."""
    if kind == "REAL":
        return np.array(values, np.float64)
    return np.array(values, np.int64 if kind.startswith(("INT", "MEDIUMINT")) else object)
