"""The committed landscape is what its script makes, and is what the README says."""

import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from rasterio.features import rasterize

from geop2p.raster.categories import read_categories
from geop2p.raster.layers import open_layer

ROOT = Path(__file__).parents[1]
DATA = ROOT / "sample_data"


def test_the_files_are_as_described() -> None:
    with rasterio.open(DATA / "landcover.tif") as cover, rasterio.open(DATA / "image.tif") as image:
        assert (cover.shape, cover.dtypes[0], cover.crs.to_epsg(), cover.res) == ((1024, 1024), "uint8", 32632, (2, 2))
        assert set(np.unique(cover.read(1))) == set(range(1, 9)) and cover.colormap(1)
        offset = (image.transform.c - cover.transform.c) % 2.0
        assert image.res == (1.8, 1.8) and 0.1 < offset < 1.9
        assert 0.02 < (image.dataset_mask() == 0).mean() < 0.08
    assert read_categories(DATA / "landcover.tif")[8] == "building"
    with rasterio.open(DATA / "sar.tif") as sar:
        assert sar.crs.to_epsg() == 4326 and sar.descriptions == ("VV", "VH") and sar.dtypes[0] == "float32"
    assert sum(path.stat().st_size for path in DATA.iterdir() if path.is_file()) < 5 * 2**20


def test_kinds_are_concluded_rightly() -> None:
    kinds = {name: open_layer(DATA / name).kind for name in ("landcover.tif", "image.tif", "sar.tif", "buildings.gpkg")}
    assert kinds == {
        "landcover.tif": "classes", "image.tif": "image", "sar.tif": "sar", "buildings.gpkg": "classes",
    }  # fmt: skip


def test_buildings_are_those_of_the_land_cover() -> None:
    buildings = geopandas.read_file(DATA / "buildings.gpkg")
    with rasterio.open(DATA / "landcover.tif") as cover:
        burnt = rasterize(buildings.geometry, out_shape=cover.shape, transform=cover.transform)
        assert ((cover.read(1) == 8) != (burnt == 1)).mean() < 1e-3


def test_the_script_is_deterministic(tmp_path: Path) -> None:
    for name in ("a", "b"):
        script = [sys.executable, str(DATA / "make_sample.py"), "--size", "128", "--out", str(tmp_path / name)]
        subprocess.run(script, check=True, capture_output=True)
    for name in ("landcover.tif", "image.tif", "sar.tif"):
        with rasterio.open(tmp_path / "a" / name) as one, rasterio.open(tmp_path / "b" / name) as other:
            assert np.array_equal(one.read(), other.read(), equal_nan=True)
