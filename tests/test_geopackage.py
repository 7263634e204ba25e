"""The index is a GeoPackage that other programs read, filter by place and may edit."""

import re
import sqlite3
import subprocess
import warnings
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import MultiPolygon, box

from geop2p.errors import ChipSetError
from geop2p.raster.grid import unwrapped
from geop2p.tiling.geopackage import read_table, write_table
from geop2p.tiling.table import ChipTable

TURNED = CRS.from_proj4("+proj=omerc +lat_0=47 +lonc=9 +alpha=30 +k=1 +ellps=GRS80 +units=m")
ROTATED_POLE = CRS.from_proj4("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39 +lon_0=18 +ellps=WGS84")
WRAPPED = unwrapped(CRS.from_epsg(4326), Affine(0.01, 0, 179, 0, -0.01, 10), 100, 300).crs

SYSTEMS = [CRS.from_epsg(32632), CRS.from_epsg(4326), CRS.from_epsg(7415), TURNED, ROTATED_POLE, WRAPPED, None]
VALIDATOR = "/usr/lib/python3/dist-packages/osgeo_utils/samples/validate_gpkg.py"  # Debian: python3-gdal


def table(crs: CRS | None, scale: float = 1.0) -> ChipTable:
    shapes = np.array([box(place, 0, place + 1, 1) for place in scale * np.arange(4)], object)
    columns = {
        "id": np.array(["a", "b", "ü", "it's"], object),
        "row_off": np.arange(4),
        "valid": np.linspace(0.1, 1, 4),
        "shift_rows": np.array([np.nan, 0.25, -1, np.nan]),
        "source_-1": np.array([0.0, 0.5, 1.0, 0.25]),
    }
    return ChipTable(columns, shapes, crs)


@pytest.mark.parametrize("crs", SYSTEMS)
def test_what_is_written_is_read_by_us_and_by_others(tmp_path: Path, crs: CRS | None) -> None:
    there, file = table(crs), tmp_path / "index.gpkg"
    write_table(file, there)
    here = read_table(file)
    assert here.crs == crs and list(here) == list(there)
    assert (here.shapes == there.shapes).all()
    for name in there:
        assert here[name].dtype == there[name].dtype
        assert np.array_equal(here[name], there[name], equal_nan=here[name].dtype.kind == "f")
    assert there.frame().crs == crs
    theirs = geopandas.read_file(file)
    assert pyogrio.list_layers(file).tolist() == [["chips", "Polygon"]]
    assert theirs.drop(columns="geometry").equals(there.frame().drop(columns="geometry"))
    assert (theirs.geometry.to_numpy() == there.shapes).all()
    if crs is not None:
        assert CRS.from_user_input(theirs.crs) == crs
    write_table(tmp_path / "again.gpkg", there)
    assert file.read_bytes() == (tmp_path / "again.gpkg").read_bytes()


def schema(file: Path) -> dict[str, str]:
    """The statements that made a database, without what is only layout."""
    with closing(sqlite3.connect(file)) as connection:
        found = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL"))
    return {
        name: re.sub(r'[\s"]', "", text).lower().replace("notnull", "isnotnull").replace("isisnot", "isnot")
        for name, text in found.items()
        if "tile_matrix" not in name
    }


def test_the_schema_is_that_of_gdal(tmp_path: Path) -> None:
    """What GDAL makes of the same rows for the same version of the standard."""
    ours, theirs = tmp_path / "ours.gpkg", tmp_path / "theirs.gpkg"
    there = table(CRS.from_epsg(32632))
    write_table(ours, there)
    there.frame().to_file(theirs, layer="chips", driver="GPKG", VERSION="1.3")
    assert schema(ours) == schema(theirs)
    for query in (
        "SELECT * FROM gpkg_extensions",
        "SELECT * FROM gpkg_geometry_columns",
        "SELECT * FROM gpkg_ogr_contents",
        "SELECT table_name, data_type, identifier, min_x, min_y, max_x, max_y, srs_id FROM gpkg_contents",
        "SELECT srs_name, srs_id, organization, organization_coordsys_id FROM gpkg_spatial_ref_sys WHERE srs_id > 4326",
        "SELECT * FROM chips",
        "SELECT * FROM rtree_chips_geom",
        "PRAGMA application_id",
        "PRAGMA user_version",
    ):
        found = []
        for file in (ours, theirs):
            with closing(sqlite3.connect(file)) as connection:
                found.append(connection.execute(query).fetchall())
        assert found[0] == found[1], query


@pytest.mark.skipif(not Path(VALIDATOR).exists(), reason="validate_gpkg of GDAL is not installed")
@pytest.mark.parametrize("crs", SYSTEMS)
def test_the_validator_of_gdal_finds_nothing(tmp_path: Path, crs: CRS | None) -> None:
    file = tmp_path / "index.gpkg"
    write_table(file, table(crs))
    done = subprocess.run(["/usr/bin/python3", VALIDATOR, "-k", str(file)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("crs", [crs for crs in SYSTEMS if crs not in (ROTATED_POLE, WRAPPED)])  # which GDAL changes
def test_what_gdal_writes_is_read(tmp_path: Path, crs: CRS | None) -> None:
    """Indices of earlier versions, and those that somebody saved again with another program."""
    there, file = table(crs), tmp_path / "index.gpkg"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        there.frame().assign(
            small=np.arange(4, dtype="int32"), few=pd.array([1, None, 3, 4], "Int32"), remark=None
        ).to_file(file, layer="chips", driver="GPKG")
    here = read_table(file)
    assert here.crs == crs and (here.shapes == there.shapes).all()
    for name in there:
        assert here[name].dtype == there[name].dtype
        assert np.array_equal(here[name], there[name], equal_nan=here[name].dtype.kind == "f")
    assert here["small"].tolist() == [0, 1, 2, 3]
    assert np.array_equal(here["few"], [1, np.nan, 3, 4], equal_nan=True)


def test_footprints_of_two_parts_are_kept(tmp_path: Path) -> None:
    there = table(CRS.from_epsg(4326))
    there.shapes[1] = MultiPolygon([box(179, 0, 180, 1), box(-180, 0, -179, 1)])
    write_table(tmp_path / "index.gpkg", there)
    assert (read_table(tmp_path / "index.gpkg").shapes == there.shapes).all()
    assert (geopandas.read_file(tmp_path / "index.gpkg").geometry.to_numpy() == there.shapes).all()


def test_others_find_chips_by_place_also_after_an_edit(tmp_path: Path) -> None:
    file = tmp_path / "index.gpkg"
    write_table(file, table(CRS.from_epsg(32632), scale=10))
    assert geopandas.read_file(file, bbox=(9, 0, 12, 1))["id"].tolist() == ["b"]
    more = geopandas.read_file(file).iloc[:1].assign(id="new")
    pyogrio.write_dataframe(more.set_geometry(more.translate(500)), file, layer="chips", append=True)
    assert geopandas.read_file(file, bbox=(499, 0, 502, 1))["id"].tolist() == ["new"]
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM chips WHERE id = 'b'")
        found = connection.execute("SELECT id FROM rtree_chips_geom ORDER BY id").fetchall()
    assert found == [(1,), (3,), (4,), (5,)]


def test_a_missing_or_damaged_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "index.gpkg"
    with pytest.raises(ChipSetError, match=r"index\.gpkg: missing or damaged \(unable to open"):
        read_table(file)
    file.write_bytes(b"")
    with pytest.raises(ChipSetError, match="missing or damaged"):
        read_table(file)
    for statement in (
        "UPDATE chips SET valid = 'much'",
        "UPDATE chips SET geom = NULL",
        "UPDATE gpkg_spatial_ref_sys SET definition = 'nonsense' WHERE srs_id = 32632",
    ):
        file.unlink()
        write_table(file, table(CRS.from_epsg(32632)))
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.executescript("".join(f"DROP TRIGGER rtree_chips_geom_update{n};" for n in (1, 2, 3, 4)))
            connection.execute(statement)
        with pytest.raises(ChipSetError, match="missing or damaged"):
            read_table(file)
    file.unlink()
    write_table(file, table(None))
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(ChipSetError, match="missing or damaged"):
        read_table(file)
