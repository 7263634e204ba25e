"""QGIS opens what geop2p makes: right place, right colours, no questions.

QGIS runs in a process of its own, with the Python that it was built for: two GDALs do not share one.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from conftest import CLASSES, Identity, class_map, grid, write_raster
from PIL import Image

import geop2p.mosaic.mosaic as mosaic_module
from geop2p import PredictConfig, TileConfig, predict, tile
from geop2p.raster.encoding import Band, Encoding

PYTHON = "/usr/bin/python3"
SMALL = PredictConfig(tile_size=64)
KEPT = PredictConfig(tile_size=64, keep_parts=True)


@pytest.fixture(scope="module")
def qgis() -> None:
    """QGIS is there; where it must be, its absence is a failure."""
    there = (
        Path(PYTHON).exists()
        and not subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True, check=False).returncode
    )
    if not there:
        assert not os.environ.get("GEOP2P_REQUIRE_QGIS"), "python3-qgis is missing"
        pytest.skip("python3-qgis is not installed")


def seen_by_qgis(folder: Path, *layers: Path) -> dict:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "QT_QPA_PLATFORM": "offscreen"}
    script = Path(__file__).with_name("qgis_look.py")
    ran = subprocess.run(
        [PYTHON, script, folder, *layers], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_qgis_opens_every_output(
    tmp_path: Path, make_model: Callable[..., Path], pair: tuple[Path, Path], qgis: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: 128)  # four of them in a row
    rows, cols = 300, 420
    where = grid(rows, cols)
    colors = np.zeros((3, rows, cols), np.uint8)
    codes = class_map(rows, cols)
    for entry in CLASSES:
        colors[:, codes[0] == entry.value] = np.array(entry.color)[:, None]
    hole = np.ones((rows, cols), bool)
    hole[100:150, 200:300] = False
    decibel = np.linspace(-25, -3, rows * cols).reshape(1, rows, cols).astype(np.float32)
    decibel[0, ~hole] = np.nan
    hundredths = np.round(np.linspace(-2500, -300, rows * cols)).reshape(1, rows, cols).astype(np.int16)
    names = ("red", "green", "blue")
    classes = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES, color_interp=("palette",))
    rgb = Encoding("image", "uint8", tuple(Band(name) for name in names), color_interp=names)
    sar = Encoding("sar", "float32", (Band("VV", "dB", low=-30, high=0),))
    scaled = Encoding("sar", "int16", (Band("VV", "dB", scale=0.01, low=-3000, high=0),))
    inputs = {
        "photo": (write_raster(tmp_path / "in_photo.tif", colors, where, mask=hole), rgb),
        "classes": (write_raster(tmp_path / "in_classes.tif", np.where(hole, codes, 0), where, nodata=0), classes),
        "radar": (write_raster(tmp_path / "in_radar.tif", decibel, where, nodata=np.nan), sar),
        "scaled": (write_raster(tmp_path / "in_scaled.tif", hundredths, where, mask=hole), scaled),
    }
    with rasterio.open(tmp_path / "in_scaled.tif", "r+") as dataset:
        dataset.scales = (0.01,)
    for name, (path, encoding) in inputs.items():
        model = make_model(Identity, encoding)
        predict(model, path, tmp_path / f"{name}.tif", SMALL)
        predict(model, path, tmp_path / f"{name}_parts_of.vrt", KEPT)
    tile(*pair, tmp_path / "chips", TileConfig(size=32, seed=3))
    mosaics = [f"{name}{ending}" for name in inputs for ending in (".tif", "_parts_of.vrt")]
    outputs = [*(tmp_path / name for name in mosaics), tmp_path / "chips" / "index.gpkg"]
    found = seen_by_qgis(tmp_path, *outputs)

    left, bottom, right, top = where.bounds
    for name in mosaics:
        assert found[name]["valid"] and found[name]["styled"], found[name]
        assert found[name]["crs"] == "EPSG:32632" and found[name]["extent"] == [left, bottom, right, top]
    for ending in (".tif", "_parts_of.vrt"):
        photo, classed, radar = (found[f"{name}{ending}"] for name in ("photo", "classes", "radar"))
        assert photo["renderer"] == "multibandcolor"
        assert photo["bands"][:3] == ["Band 1: red", "Band 2: green", "Band 3: blue"]
        assert classed["renderer"] == "paletted"
        assert classed["classes"] == {entry.name: "#{:02x}{:02x}{:02x}".format(*entry.color) for entry in CLASSES}
        assert radar["renderer"] == "singlebandgray" and "VV" in radar["bands"][0]
    index, chips = found["index.gpkg"], geopandas.read_file(tmp_path / "chips" / "index.gpkg")
    assert index["valid"] and index["styled"] and index["crs"] == "EPSG:32632"
    edges = [chips.col_off.min(), chips.row_off.max() + 32, chips.col_off.max() + 32, chips.row_off.min()]
    low, high = (where.transform @ (col, row) for col, row in (edges[:2], edges[2:]))
    assert index["extent"] == pytest.approx([*low, *high], abs=1e-6)
    splits = ("train", "val", "test")
    assert index["renderer"] == "categorizedSymbol" and set(splits) <= set(index["classes"])
    assert len({index["classes"][split] for split in splits}) == 3

    pictures = {path.name: np.asarray(Image.open(tmp_path / f"{path.name}.png").convert("RGB")) for path in outputs}
    row, col = 20, 30  # drawn at the scale of the raster, centred
    water = np.array(CLASSES[0].color)
    for ending in (".tif", "_parts_of.vrt"):
        for name in (f"photo{ending}", f"classes{ending}"):
            drawn = pictures[name][8:-8, 8:-8].reshape(-1, 3)
            assert (np.abs(drawn.astype(int) - water).max(axis=1) < 6).mean() > 0.1, name
            assert (drawn == (255, 0, 255)).all(axis=1).mean() == pytest.approx(0.04, abs=0.01), name  # the hole
        for name in (f"radar{ending}", f"scaled{ending}"):
            grey = pictures[name].astype(int)
            assert grey[row, col].max() < 90 and grey[-row, -col].min() > 160, name
    for split in splits:
        color = [int(index["classes"][split][at : at + 2], 16) for at in (1, 3, 5)]
        assert (pictures["index.gpkg"] == color).all(axis=2).sum() > 50, split  # outlines; the chips are drawn through


def test_qgis_draws_confidence_in_colours(tmp_path: Path, make_model: Callable[..., Path], qgis: None) -> None:
    class Graded(Identity):
        """Surer to the east."""

        def forward(self, source: torch.Tensor) -> torch.Tensor:
            return source * torch.linspace(0, 8, source.shape[-1])

    codes = class_map(300, 420)
    codes[0, 100:150, 200:300] = 0
    path = write_raster(tmp_path / "in.tif", codes, grid(300, 420), nodata=0)
    encoding = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES, color_interp=("palette",))
    names = {"confidence": tmp_path / "sure.tif", "uncertainty": tmp_path / "apart.tif"}
    config = PredictConfig(tile_size=512, **names, uncertainty_by="d4")
    predict(make_model(Graded, encoding), path, tmp_path / "out.tif", config)
    found = seen_by_qgis(tmp_path, *names.values())
    for name in ("sure.tif", "apart.tif"):
        assert found[name]["valid"] and found[name]["styled"] and found[name]["renderer"] == "singlebandpseudocolor"
        drawn = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        inside = drawn[8:-8, 8:-8].reshape(-1, 3)
        assert (inside == (255, 0, 255)).all(axis=1).mean() == pytest.approx(0.04, abs=0.01)  # the hole
        assert len(np.unique(inside, axis=0)) > 50
    sure = np.asarray(Image.open(tmp_path / "sure.tif.png").convert("RGB")).astype(int)
    assert (sure[150, 340] > sure[150, 40])[:2].all()  # yellow is sure, violet is not
