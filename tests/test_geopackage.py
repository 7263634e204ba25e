"""The index is a GeoPackage that other programs read, filter by place and may edit."""

import sqlite3
from pathlib import Path

import geopandas
import numpy as np
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
WRAPPED = unwrapped(CRS.from_epsg(4326), Affine(0.01, 0, 179, 0, -0.01, 10), 100, 300).crs


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


@pytest.mark.parametrize("crs", [CRS.from_epsg(32632), CRS.from_epsg(4326), TURNED, WRAPPED, None])
def test_what_is_written_is_read_by_us_and_by_others(tmp_path: Path, crs: CRS | None) -> None:
    there, file = table(crs), tmp_path / "index.gpkg"
    write_table(file, there)
    here = read_table(file)
    assert here.crs == crs and list(here) == list(there)
    assert (here.shapes == there.shapes).all()
    for name in there:
        assert here[name].dtype == there[name].dtype
        assert np.array_equal(here[name], there[name], equal_nan=here[name].dtype.kind == "f")
    theirs = geopandas.read_file(file)
    assert pyogrio.list_layers(file).tolist() == [["chips", "Polygon"]]
    assert theirs.drop(columns="geometry").equals(there.frame().drop(columns="geometry"))
    assert (theirs.geometry.to_numpy() == there.shapes).all()
    if crs is not None:
        assert CRS.from_user_input(theirs.crs) == crs
    write_table(tmp_path / "again.gpkg", there)
    assert file.read_bytes() == (tmp_path / "again.gpkg").read_bytes()


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
    write_table(file, table(None))
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(ChipSetError, match="missing or damaged"):
        read_table(file)
