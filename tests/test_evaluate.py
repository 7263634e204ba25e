"""Scores of a run and of a mosaic, and the page."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import geopandas
import numpy as np
import pytest
from conftest import Identity, grid, image_encoding, write_raster

from geop2p import (
    EvaluateConfig,
    PredictConfig,
    TileConfig,
    TrainConfig,
    describe,
    evaluate,
    evaluate_mosaic,
    predict,
    tile,
    train,
)
from geop2p.errors import ChipSetError, ConfigError, GridMismatchError, RasterError


@pytest.fixture
def run(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    tile(*pair, tmp_path / "chips", TileConfig(size=32))
    train(tmp_path / "chips", tmp_path / "run", TrainConfig(epochs=2, batch_size=4, width=4, downs=5))
    return tmp_path


def test_a_run_is_scored_beside_the_baseline(run: Path, pair: tuple[Path, Path]) -> None:
    predict(run / "run", pair[0], run / "out.tif")
    config = EvaluateConfig(mosaic=run / "out.tif")
    result = evaluate(run / "run", run / "chips", run / "report.html", config, commands=["geop2p <again>"])
    assert result["l1"] > 0 and result["baseline"]["l1"] == pytest.approx(10, abs=1.5)  # the noise of the fixture
    assert result["corner_ratio"] > 0 and result["seam_index"] > 0
    assert set(result["bands"]) == {"red", "green", "blue"}
    page = (run / "report.html").read_text()
    assert "geop2p &lt;again&gt;" in page and "The whole mosaic" in page and "<polyline" in page


def test_the_page_is_self_contained(run: Path) -> None:
    evaluate(run / "run", run / "chips", run / "report.html")
    page = (run / "report.html").read_text()

    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attrs if name in ("src", "href"))

    Links().feed(page)
    assert len(found) > 8 and all(link.startswith("data:image/") for link in found)
    assert not re.search(r"url\(|@import|<script src", page)


def test_a_mosaic_equal_to_its_reference_has_no_error(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 300, 280), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(300, 280), photometric="RGB")
    predict(make_model(Identity, image_encoding()), path, tmp_path / "out.tif", PredictConfig(tile_size=64))
    result = evaluate_mosaic(tmp_path / "out.tif", path, tmp_path / "report.html")
    assert result["l1"] == 0 and result["psnr"] is None and result["ssim"] == 1
    assert result["seam_index"] == pytest.approx(1, abs=0.05)
    away = write_raster(tmp_path / "away.tif", values, grid(300, 280, left=700_000.0))
    with pytest.raises(GridMismatchError, match="no valid ground in common"):
        evaluate_mosaic(tmp_path / "out.tif", away, tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def test_refusals(run: Path, pair: tuple[Path, Path]) -> None:
    (run / "report.html").write_text("mine")
    with pytest.raises(ConfigError, match="exists; give another name or --overwrite"):
        evaluate(run / "run", run / "chips", run / "report.html")
    tile(pair[1], pair[0], run / "other", TileConfig(size=32))
    with pytest.raises(ChipSetError, match="source is image with 3 bands, the model was trained on classes with 1"):
        evaluate(run / "run", run / "other", run / "new.html")
    tile(*pair, run / "single", TileConfig(size=32, split="1:0:0"))
    with pytest.raises(ChipSetError, match=r"has no test chips \(train has \d+\); choose with --split"):
        evaluate(run / "run", run / "single", run / "new.html")


def test_describe_says_what_a_path_is(run: Path, pair: tuple[Path, Path]) -> None:
    predict(run / "run", pair[0], run / "out.tif")
    raster, model, chips = (describe(run / name) for name in ("out.tif", "run", "chips"))
    assert (raster["type"], raster["synthetic"], raster["mask"], raster["width"]) == ("raster", True, True, 420)
    assert describe(pair[0])["classes"] == {"1": "water", "2": "meadow", "5": "road"}
    assert (model["type"], model["stride"], model["source"]["kind"]) == ("model", 32, "classes")
    assert (chips["type"], chips["size"], chips["target"]["kind"]) == ("chip set", 32, "image")
    with pytest.raises(RasterError, match="neither a chip set nor a finished run"):
        describe(run)


def test_class_rasters_without_names_are_scored(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).choice([3, 4, 9], (1, 80, 90)).astype(np.uint8)
    first = write_raster(tmp_path / "a.tif", codes, grid(80, 90))
    changed = codes.copy()
    changed[0, :40] = 4
    second = write_raster(tmp_path / "b.tif", changed, grid(80, 90))
    assert evaluate_mosaic(first, first, tmp_path / "same.html")["accuracy"] == 1
    result = evaluate_mosaic(second, first, tmp_path / "other.html")
    assert result["accuracy"] == pytest.approx((codes == changed).mean())
    assert result["pixels"] == codes.size and set(result["classes"]) == {"class 3", "class 4", "class 9"}


def test_a_mosaic_that_cannot_be_the_models_is_refused_first(run: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="has 1 bands, the model makes 3"):
        evaluate(run / "run", run / "chips", run / "report.html", EvaluateConfig(mosaic=pair[0]))
    with pytest.raises(RasterError, match="no such file"):
        evaluate(run / "run", run / "chips", run / "report.html", EvaluateConfig(mosaic=run / "none.tif"))
    with pytest.raises(ConfigError, match=r"give a name that ends in \.html"):
        evaluate(run / "run", run / "chips", run / "out.tif", overwrite=True)


def test_describe_of_a_vector_layer_is_json(tmp_path: Path) -> None:
    from shapely.geometry import box

    layer = geopandas.GeoDataFrame({"use": ["barn"]}, geometry=[box(0, 0, 1, 1)], crs=32632)
    layer.to_file(tmp_path / "a.gpkg")
    found = json.loads(json.dumps(describe(tmp_path / "a.gpkg")))
    assert (found["type"], found["crs"], found["features"]) == ("vector layer", "EPSG:32632", 1)
