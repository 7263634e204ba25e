"""The index as a GeoPackage (OGC 12-128r17), written with sqlite3: the same rows give the same bytes."""

import sqlite3
import struct
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geop2p.errors import ChipSetError
from geop2p.tiling.table import ChipTable, Column, epsg_of

LAYER = "chips"
PIXELS = -1  # srs_id of an undefined Cartesian system
OTHER = 100_000  # srs_id of a system without EPSG code
UNDEFINED = (PIXELS, 0, 99_999)  # what stands for none, also in what GDAL writes
WRITTEN = "1970-01-01T00:00:00.000Z"  # a time is asked for; the real one would make every file another
ENVELOPES = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}  # bytes, by what the flags of a geometry say

# Version 1.3 of the standard, whose triggers older readers and checkers know; statements as GDAL has them.
SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
BEGIN;
PRAGMA application_id = 0x47504B47;
PRAGMA user_version = 10300;
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER NOT NULL PRIMARY KEY,
    organization TEXT NOT NULL, organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL,
    description TEXT{wkt2});
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
    description TEXT DEFAULT '', last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
    min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
    CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_ogr_contents (table_name TEXT NOT NULL PRIMARY KEY, feature_count INTEGER DEFAULT NULL);
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL,
    geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
    CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name), CONSTRAINT uk_gc_table_name UNIQUE (table_name),
    CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
    CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
CREATE TABLE gpkg_extensions (table_name TEXT, column_name TEXT, extension_name TEXT NOT NULL,
    definition TEXT NOT NULL, scope TEXT NOT NULL,
    CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name));
INSERT INTO gpkg_extensions VALUES
    ('chips', 'geom', 'gpkg_rtree_index', 'http://www.geopackage.org/spec120/#extension_rtree', 'write-only');
CREATE VIRTUAL TABLE "rtree_chips_geom" USING rtree(id, minx, maxx, miny, maxy);
"""
# For systems that only the second version of WKT (OGC 12-063) can tell.
WKT2_COLUMN = ", definition_12_063 TEXT NOT NULL"
WKT2_EXTENSION = """INSERT INTO gpkg_extensions VALUES ('gpkg_spatial_ref_sys', 'definition_12_063', 'gpkg_crs_wkt',
    'http://www.geopackage.org/spec120/#extension_crs_wkt', 'read-write')"""
IS = '(NEW."geom" NOTNULL AND NOT ST_IsEmpty(NEW."geom"))'
IS_NOT = '(NEW."geom" ISNULL OR ST_IsEmpty(NEW."geom"))'
PUT = """INSERT OR REPLACE INTO "rtree_chips_geom" VALUES (NEW."fid", ST_MinX(NEW."geom"), ST_MaxX(NEW."geom"),
    ST_MinY(NEW."geom"), ST_MaxY(NEW."geom"));"""
DROP = 'DELETE FROM "rtree_chips_geom" WHERE id = OLD."fid";'
COUNT = "UPDATE gpkg_ogr_contents SET feature_count = feature_count {} 1 WHERE lower(table_name) = lower('chips');"
TRIGGERS = {
    "rtree_chips_geom_insert": f"""AFTER INSERT ON "chips" WHEN {IS} BEGIN {PUT} END""",
    "rtree_chips_geom_update1": f"""AFTER UPDATE OF "geom" ON "chips" WHEN OLD."fid" = NEW."fid" AND {IS}
        BEGIN {PUT} END""",
    "rtree_chips_geom_update2": f"""AFTER UPDATE OF "geom" ON "chips" WHEN OLD."fid" = NEW."fid" AND {IS_NOT}
        BEGIN {DROP} END""",
    "rtree_chips_geom_update3": f"""AFTER UPDATE ON "chips" WHEN OLD."fid" != NEW."fid" AND {IS}
        BEGIN {DROP} {PUT} END""",
    "rtree_chips_geom_update4": f"""AFTER UPDATE ON "chips" WHEN OLD."fid" != NEW."fid" AND {IS_NOT}
        BEGIN DELETE FROM "rtree_chips_geom" WHERE id IN (OLD."fid", NEW."fid"); END""",
    "rtree_chips_geom_delete": f"""AFTER DELETE ON "chips" WHEN OLD."geom" NOT NULL BEGIN {DROP} END""",
    "trigger_insert_feature_count_chips": f'AFTER INSERT ON "chips" BEGIN {COUNT.format("+")} END',
    "trigger_delete_feature_count_chips": f'AFTER DELETE ON "chips" BEGIN {COUNT.format("-")} END',
}
TYPES = {"i": "INTEGER", "f": "REAL"}


def write_table(file: Path, table: ChipTable) -> None:
    """Write an index to an empty file, with a spatial index.

    Raises:
        OSError: It cannot be written.
    """
    srs = PIXELS if table.crs is None else epsg_of(table.crs) or OTHER
    boxes = shapely.bounds(table.shapes)
    ends = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    kinds = set(shapely.get_type_id(table.shapes).tolist())
    geometry_type = "POLYGON" if kinds == {shapely.GeometryType.POLYGON} else "GEOMETRY"
    columns = "".join(f', "{name}" {TYPES.get(values.dtype.kind, "TEXT")}' for name, values in table.columns.items())
    rows = zip(range(1, len(table) + 1), _blobs(table, srs, boxes), *map(_plain, table.columns.values()), strict=True)
    places = ((fid, *box) for fid, box in enumerate(boxes[:, [0, 2, 1, 3]].tolist(), start=1))
    texts = {4326: CRS.from_epsg(4326).to_wkt()} | ({} if table.crs is None else {srs: table.crs.to_wkt()})
    try:
        with closing(sqlite3.connect(file)) as connection, connection:
            systems = _systems(texts)
            needs_wkt2 = not all(map(_is_wkt1, texts.values()))
            connection.executescript(SCHEMA.format(wkt2=WKT2_COLUMN if needs_wkt2 else ""))
            if needs_wkt2:
                systems = [(*row, texts.get(row[1], "undefined")) for row in systems]
                connection.execute(WKT2_EXTENSION)
            connection.executemany(f"INSERT INTO gpkg_spatial_ref_sys VALUES ({_marks(len(systems[0]))})", systems)
            connection.execute(
                "INSERT INTO gpkg_contents VALUES (?, 'features', ?, '', ?, ?, ?, ?, ?, ?)",
                (LAYER, LAYER, WRITTEN, *ends, srs),
            )
            connection.execute("INSERT INTO gpkg_ogr_contents VALUES (?, ?)", (LAYER, len(table)))
            connection.execute(
                "INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', ?, ?, 0, 0)", (LAYER, geometry_type, srs)
            )
            key = '"fid" INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL'
            connection.execute(f'CREATE TABLE "chips" ({key}, "geom" {geometry_type}{columns})')
            connection.executemany(f"INSERT INTO chips VALUES ({_marks(len(table.columns) + 2)})", rows)
            connection.executemany("INSERT INTO rtree_chips_geom VALUES (?, ?, ?, ?, ?)", places)
            for name, action in TRIGGERS.items():
                connection.execute(f'CREATE TRIGGER "{name}" {action}')
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


def _systems(texts: dict[int, str]) -> list[tuple[Any, ...]]:
    """The undefined systems that every GeoPackage lists, and those that have a text, by their srs_id."""
    rows: list[tuple[Any, ...]] = [
        ("Undefined Cartesian SRS", PIXELS, "NONE", PIXELS, "undefined", "undefined Cartesian coordinates"),
        ("Undefined geographic SRS", 0, "NONE", 0, "undefined", "undefined geographic coordinates"),
    ]
    for code, text in texts.items():
        name, owner = text.split('"')[1], "NONE" if code == OTHER else "EPSG"
        rows.append((name, code, owner, code, text if _is_wkt1(text) else "undefined", name))
    return rows


def _marks(count: int) -> str:
    """Places for so many values of a row."""
    return ", ".join("?" * count)


def _is_wkt1(text: str) -> bool:
    """Whether a CRS is told in the first version of WKT (OGC 01-009), whose systems are a ...CS, not a ...CRS."""
    return text.partition("[")[0].endswith("CS")


def _blobs(table: ChipTable, srs: int, boxes: Column) -> list[bytes]:
    """Footprints in the form of a GeoPackage: a header with their bounds, then WKB."""
    forms = shapely.to_wkb(table.shapes, byte_order=1)
    ends = boxes[:, [0, 2, 1, 3]].tolist()
    return [struct.pack("<2sBBi4d", b"GP", 0, 0b11, srs, *box) + form for box, form in zip(ends, forms, strict=True)]


def _plain(values: Column) -> list[object]:
    """The values of a column as sqlite3 takes them; it stores NaN as NULL."""
    plain: list[object] = values.tolist()
    return plain


def read_table(file: Path, keys: Collection[str] = ()) -> ChipTable:
    """Read an index, of ours or as GDAL and QGIS write it.

    Args:
        file: GeoPackage.
        keys: Columns that it must have.

    Raises:
        ChipSetError: It is missing or damaged.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            query = (
                "SELECT gpkg_spatial_ref_sys.* FROM gpkg_spatial_ref_sys JOIN gpkg_geometry_columns USING (srs_id) "
                "WHERE table_name = ?"
            )
            system = dict(connection.execute(query, (LAYER,)).fetchone())
            kinds = {row["name"]: row["type"] for row in connection.execute("PRAGMA table_info(chips)")}
            rows = connection.execute("SELECT * FROM chips ORDER BY fid").fetchall()
        values = dict(zip(kinds, zip(*rows, strict=True) if rows else [()] * len(kinds), strict=True))
        shapes = shapely.from_wkb([blob[8 + ENVELOPES[blob[3] >> 1 & 7] :] for blob in values.pop("geom")])
        del values["fid"]
        if missing := [name for name in keys if name not in values]:
            raise LookupError(f"no column {', '.join(missing)}")
        columns = {name: _column(kinds[name], found) for name, found in values.items()}
        return ChipTable(columns, np.asarray(shapes, object), _crs(system))
    except (sqlite3.Error, shapely.errors.ShapelyError, CRSError, TypeError, ValueError, LookupError) as error:
        raise ChipSetError(f"{file}: missing or damaged ({error}); tile again with --overwrite") from error


def _crs(system: dict[str, Any]) -> CRS | None:
    """What a row of gpkg_spatial_ref_sys says."""
    if system["srs_id"] in UNDEFINED:
        return None
    text = system.get("definition_12_063", "undefined")
    return CRS.from_wkt(system["definition"] if text == "undefined" else text)


def _column(kind: str, values: tuple[object, ...]) -> Column:
    """Values of sqlite3 as numpy holds them; numbers that are missing as NaN."""
    if kind in ("REAL", "DOUBLE", "FLOAT"):
        return np.array(values, np.float64)
    if "INT" in kind:
        return np.array(values, np.float64 if None in values else np.int64)
    return np.array(values, object)
