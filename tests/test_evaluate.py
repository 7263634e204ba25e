"""Scores of a run and of a mosaic, and the page."""

import dataclasses
import json
import math
import re
import shutil
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from conftest import TOLD, Identity, class_map, grid, image_encoding, write_names, write_raster
from geop2p_cli.main import main

from geop2p import (
    CompareConfig,
    EvaluateConfig,
    PredictConfig,
    TileConfig,
    TrainConfig,
    compare,
    convert,
    describe,
    evaluate,
    evaluate_mosaic,
    predict,
    tile,
    train,
)
from geop2p.errors import CheckpointError, ChipSetError, ConfigError, GridMismatchError, OutputError, RasterError
from geop2p.evaluation import evaluator
from geop2p.evaluation.scored_chips import ScoredChips, load_scored_chips
from geop2p.metrics.blocks import bootstrap, interval
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.lock import alone_in
from geop2p.tiling.chips import ChipSet
from geop2p.training.data import ChipArrays, Indices
from geop2p.translator import Translator

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs a run leaves it for the others."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def run(pair: tuple[Path, Path], tmp_path: Path, trained: Path) -> Path:
    tile(*pair, tmp_path / "chips", TileConfig(size=32))
    if not trained.exists():
        train(tmp_path / "chips", trained, TrainConfig(recipe="pix2pix", epochs=2, batch_size=4, width=4, downs=5))
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path


def test_a_run_is_scored_beside_the_baseline(run: Path, pair: tuple[Path, Path]) -> None:
    predict(run / "run", pair[0], run / "out.tif")
    config = EvaluateConfig(mosaic=run / "out.tif")
    result = evaluate(run / "run", run / "chips", run / "report.html", config, commands=["geop2p <again>"])
    assert result["l1"] > 0 and result["baseline"]["l1"] == pytest.approx(10, abs=1.5)  # the noise of the fixture
    assert result["corner_ratio"] > 0 and result["seam_index"] > 0
    assert set(result["bands"]) == {"red", "green", "blue"} and set(result) <= TOLD
    page = (run / "report.html").read_text()
    assert "geop2p &lt;again&gt;" in page and "The whole mosaic" in page and "<polyline" in page


def test_corners_in_mosaics_are_measured_on_many_lattices(run: Path, pair: tuple[Path, Path]) -> None:
    result = evaluate(run / "run", run / "chips", run / "report.html", EvaluateConfig(lattices=3))
    low, high = result["mosaic_corner_ratio_interval"]
    assert set(result) <= TOLD
    assert low <= result["mosaic_corner_ratio"] <= high and high - low < 0.2
    assert abs(result["mosaic_corner_ratio"] - 1) < abs(result["corner_ratio"] - 1)
    assert "in the mosaic, over 16 lattices: " in (run / "report.html").read_text()
    with pytest.raises(ConfigError, match="lattices is for MODEL CHIPS"):
        evaluate_mosaic(pair[1], pair[1], run / "other.html", EvaluateConfig(lattices=3))
    away = pair[0].rename(pair[0].with_name("elsewhere.tif"))
    with pytest.raises(ConfigError, match=r"--lattices reads the layers of the chips again: .*no such file"):
        evaluate(run / "run", run / "chips", run / "third.html", EvaluateConfig(lattices=3))
    away.rename(pair[0])


def test_imported_chips_have_no_layers_to_read_again(run: Path, pair: tuple[Path, Path]) -> None:
    """Which is said before anything is scored, and a page with a mosaic goes without the truth."""
    convert(run / "chips", run / "pairs", TileConfig(format="side-by-side"))
    config = TileConfig(source_kind="classes", classes=run / "pairs" / "classes_source.csv")
    convert(run / "pairs", run / "imported", config)
    with pytest.raises(
        ConfigError, match=r"--lattices reads the layers .*: scene '.*' was imported as chips and has no"
    ):
        evaluate(run / "run", run / "imported", run / "report.html", EvaluateConfig(lattices=3))
    assert not (run / "report.html").exists()
    predict(run / "run", pair[0], run / "out.tif")
    evaluate(run / "run", run / "imported", run / "report.html", EvaluateConfig(mosaic=run / "out.tif"))
    page = (run / "report.html").read_text()
    assert "The whole mosaic" in page and 'id="slider"' not in page


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


def test_a_reference_that_holds_something_else_is_refused_or_told(tmp_path: Path) -> None:
    """Whichever is the prediction: an error of decibels against power, or of values against codes, means nothing."""
    rng, where = np.random.default_rng(0), grid(40, 40)
    decibels = rng.uniform(-20, -1, (2, 40, 40)).astype(np.float32)
    layers: dict[str, Any] = {
        "decibels": decibels,
        "power": 10 ** (decibels / 10),
        "gray": rng.integers(1, 255, (1, 40, 40), np.uint8),
        "map": class_map(40, 40),
        "plain": class_map(40, 40),
        "float": class_map(40, 40).astype(np.float32),
    }
    for name, values in layers.items():
        path = write_raster(tmp_path / f"{name}.tif", values, where)
        with rasterio.open(path, "r+") as dataset:
            if name == "decibels":
                dataset.units = ("dB", "dB")
            if name == "map":
                dataset.write_colormap(1, {1: (9, 9, 9), 2: (0, 0, 9), 5: (9, 0, 0)})
    page = tmp_path / "report.html"
    for made, real, told in (
        ("power", "decibels", "power.tif: backscatter is power, expected dB"),
        ("decibels", "power", "backscatter is dB, expected power"),
        ("float", "map", r"float\.tif holds image of float32, .*map\.tif classes .*: give two maps of classes"),
        (
            "decibels",
            "map",
            r"holds sar with 2 bands, .*map\.tif classes with 1 \(.*colour table.*\); expected the same",
        ),
    ):
        with pytest.raises(ConfigError, match=told):
            evaluate_mosaic(tmp_path / f"{made}.tif", tmp_path / f"{real}.tif", page)
        assert not page.exists()
    for made, real in (("map", "gray"), ("gray", "map")):
        result = evaluate_mosaic(tmp_path / f"{made}.tif", tmp_path / f"{real}.tif", page, overwrite=True)
        assert "gray.tif is read as classes" in result["notes"][0] and result["miou"] < 0.1
        assert "by itself it seems to be image (1 band" in result["notes"][0]
    notes = evaluate_mosaic(tmp_path / "map.tif", tmp_path / "plain.tif", page, overwrite=True)["notes"]
    assert not any("by itself" in note for note in notes)
    with rasterio.open(tmp_path / "plain.tif", "r+") as dataset:
        dataset.update_tags(GEOP2P_KIND="image")
    with pytest.raises(ConfigError, match=r"plain\.tif holds image with 1 bands, .*map\.tif classes with 1"):
        evaluate_mosaic(tmp_path / "plain.tif", tmp_path / "map.tif", tmp_path / "new.html")
    ignoring = EvaluateConfig(ignore_class="1,2,5")
    with pytest.raises(GridMismatchError, match="no valid ground in common but that of classes in --ignore-class"):
        evaluate_mosaic(tmp_path / "map.tif", tmp_path / "map.tif", tmp_path / "new.html", ignoring)


def test_the_range_of_a_mosaic_is_that_of_its_model(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values = np.random.default_rng(0).normal(40, 9, (1, 96, 96)).astype(np.float32)
    path = write_raster(tmp_path / "in.tif", values, grid(96, 96))
    predict(make_model(Identity, image_encoding("float32", 1, -50, 150)), path, tmp_path / "out.tif")
    other = write_raster(tmp_path / "other.tif", values + 2, grid(96, 96))
    result = evaluate_mosaic(tmp_path / "out.tif", other, tmp_path / "report.html")
    assert result["range"] == [200] and result["psnr"] == pytest.approx(20 * np.log10(200 / 2), abs=1e-3)
    assert "The range of PSNR, SSIM and MS-SSIM is 200 DN" in (tmp_path / "report.html").read_text()
    back = evaluate_mosaic(other, tmp_path / "out.tif", tmp_path / "back.html")  # a raster that tells no interval
    assert back["range"] == [pytest.approx(np.percentile(values, 99.9) - np.percentile(values, 0.1), rel=0.05)]


def test_how_much_of_a_mosaic_is_scored_is_said(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 60, 100), dtype=np.uint8)
    whole = write_raster(tmp_path / "whole.tif", values, grid(60, 100))
    sliver = write_raster(tmp_path / "sliver.tif", values[:, :, :2], grid(60, 2))
    result = evaluate_mosaic(whole, sliver, tmp_path / "report.html")
    assert result["share"] == 0.02 and result["notes"] == [
        "Only 2 % of the prediction's ground is scored: the reference ends there."
    ]
    assert "<p>2 % of the prediction" in (tmp_path / "report.html").read_text()
    assert evaluate_mosaic(whole, whole, tmp_path / "all.html")["share"] == 1


def test_an_error_raster_spares_the_files_of_others(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 40, 40), dtype=np.uint8)
    path = write_raster(tmp_path / "a.tif", values, grid(40, 40))
    config = EvaluateConfig(error_raster=tmp_path / "error.tif")
    for name in ("error.qml", "error.tif.aux.xml"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(OutputError, match=f"{name}: exists"):
            evaluate_mosaic(path, path, tmp_path / "report.html", config)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    evaluate_mosaic(path, path, tmp_path / "report.html", config)
    (tmp_path / "error.tif").unlink()  # the style of ours that is left does no harm
    evaluate_mosaic(path, path, tmp_path / "again.html", config)


def test_a_reference_on_another_grid_is_warped_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def ramp(height: int, width: int, pixel: float) -> np.ndarray:
        """Metres to the right, metres down and a constant."""
        right, down = np.meshgrid((np.arange(width) + 0.5) * pixel, (np.arange(height) + 0.5) * pixel)
        return np.stack([right, down, np.full_like(right, 90)]).astype(np.float32)

    values = ramp(120, 130, 2.0)
    first = write_raster(tmp_path / "a.tif", values, grid(120, 130))
    second = write_raster(tmp_path / "b.tif", ramp(80, 90, 3.0), grid(80, 90, pixel=3.0))
    with caplog.at_level("INFO"):
        result = evaluate_mosaic(first, second, tmp_path / "warped.html")
    assert result["warped"] and result["l1"] < 0.01 and "read by a warp" in caplog.text
    assert any("read by a warp" in note for note in result["notes"])
    with pytest.raises(GridMismatchError, match="without --strict the reference is warped"):
        evaluate_mosaic(first, second, tmp_path / "strict.html", EvaluateConfig(strict=True))
    cut = write_raster(tmp_path / "c.tif", values[:, :60, 10:80], grid(60, 70, left=500_020.0))
    result = evaluate_mosaic(first, cut, tmp_path / "cut.html", EvaluateConfig(strict=True))
    assert not result["warped"] and result["pixels"] == 60 * 70 and result["l1"] == 0


def test_the_error_raster_lies_on_the_prediction_and_holds_its_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.integers(0, 1000, (2, 700, 530)).astype(np.uint16)
    there = np.ones((700, 530), bool)
    there[600:650, 500:] = False
    made = write_raster(tmp_path / "made.tif", values, grid(700, 530), mask=there)
    noisy = np.clip(values + generator.normal(0, 20, values.shape), 0, None).astype(np.uint16)
    real = write_raster(tmp_path / "real.tif", noisy, grid(700, 530))
    config = EvaluateConfig(error_raster=tmp_path / "error.tif")
    result = evaluate_mosaic(made, real, tmp_path / "report.html", config)
    assert set(result) <= TOLD
    with rasterio.open(tmp_path / "error.tif") as dataset:
        error = dataset.read(1, masked=True)
        assert dataset.dtypes == ("float32",) and dataset.descriptions == ("mean absolute error",)
        assert np.allclose(dataset.transform, grid(700, 530).transform) and dataset.crs == grid(700, 530).crs
    assert (~np.ma.getmaskarray(error) == there).all()
    wanted = np.abs(values.astype(float) - noisy).mean(axis=0)
    assert np.abs(error - wanted)[there].max() < 1e-3
    assert result["l1"] == pytest.approx(error.mean(), rel=1e-6) and result["error_raster"] == str(config.error_raster)
    assert "singlebandgray" in (tmp_path / "error.qml").read_text()
    with pytest.raises(OutputError, match=r"error.tif: exists; give another name or --overwrite"):
        evaluate_mosaic(made, real, tmp_path / "again.html", config)
    assert not list(tmp_path.glob(".error*"))


def test_a_replaced_error_raster_keeps_nothing_of_the_old_one(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 200, (1, 60, 50)).astype(np.uint8)
    made = write_raster(tmp_path / "made.tif", values, grid(60, 50))
    config, error = EvaluateConfig(error_raster=tmp_path / "error.tif"), tmp_path / "error.tif"
    for apart in (1, 30):
        real = write_raster(tmp_path / f"real{apart}.tif", values + np.uint8(apart), grid(60, 50))
        evaluate_mosaic(made, real, tmp_path / "page.html", config, overwrite=True)
        with rasterio.open(error) as dataset:
            assert float(dataset.tags(1)["STATISTICS_MEAN"]) == apart
        (tmp_path / "error.tif.aux.xml").write_text(  # as QGIS leaves it when it is asked for statistics
            '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata>'
            "</PAMRasterBand></PAMDataset>"
        )


def test_a_page_and_an_error_raster_take_their_names_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write_raster(tmp_path / "made.tif", class_map(90, 70), grid(90, 70))
    real = write_raster(tmp_path / "real.tif", class_map(90, 70, 1), grid(90, 70))
    config, report = EvaluateConfig(error_raster=tmp_path / "e.tif"), tmp_path / "report.html"

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("geop2p.evaluation.mosaics.write_page", killed)
        evaluate_mosaic(made, real, report, config)
    assert not (tmp_path / "e.tif").exists() and not list(tmp_path.glob(".e.*"))
    evaluate_mosaic(made, real, report, config)
    assert (tmp_path / "e.tif").exists() and report.exists()


def test_an_error_raster_that_a_kill_left_unfinished_is_removed(tmp_path: Path) -> None:
    made = write_raster(tmp_path / "made.tif", class_map(90, 70), grid(90, 70))
    left, config = tmp_path / ".e.tif.begun", EvaluateConfig(error_raster=tmp_path / "e.tif")
    left.mkdir()
    (left / "part_7.tif").write_bytes(b"some")
    with (
        alone_in(left, OutputError("mine")),
        pytest.raises(OutputError, match=r"e\.tif: another process makes it"),
    ):
        evaluate_mosaic(made, made, tmp_path / "report.html", config)
    assert (left / "part_7.tif").exists()
    evaluate_mosaic(made, made, tmp_path / "report.html", config)
    assert (tmp_path / "e.tif").exists() and not left.exists()


def test_heights_and_a_picture_are_told_of(tmp_path: Path) -> None:
    heights = np.random.default_rng(0).normal(500, 90, (1, 64, 64)).astype(np.float32)
    made = write_raster(tmp_path / "dem.tif", heights, grid(64, 64))
    with rasterio.open(made, "r+") as dataset:
        dataset.update_tags(GEOP2P_KIND="elevation")
    picture = write_raster(tmp_path / "shade.tif", (heights / 4).astype(np.uint8), grid(64, 64))
    flat = write_raster(tmp_path / "flat.tif", (heights / 90).astype(np.float32), grid(64, 64))
    result = evaluate_mosaic(made, picture, tmp_path / "a.html")
    assert "shade.tif is read as elevation" in result["notes"][0] and "seems to be image" in result["notes"][0]
    assert not any("is read as" in note for note in evaluate_mosaic(made, flat, tmp_path / "b.html")["notes"])
    assert result["seam_index"] is None and "no mosaic of geop2p" in result["reasons"]["seam_index"]
    assert {"tile_mismatch", "tile_mismatch_percent"} <= set(result["reasons"])


def test_the_error_raster_of_a_map_says_right_or_wrong(tmp_path: Path) -> None:
    codes = class_map(90, 70)
    other = np.roll(codes, 3, axis=1)
    made = write_raster(tmp_path / "made.tif", codes, grid(90, 70))
    real = write_raster(tmp_path / "real.tif", other, grid(90, 70))
    result = evaluate_mosaic(made, real, tmp_path / "report.html", EvaluateConfig(error_raster=tmp_path / "e.tif"))
    with rasterio.open(tmp_path / "e.tif") as dataset:
        assert (dataset.read(1) == (codes != other)[0]).all() and dataset.nodata == 255
        assert dataset.colormap(1)[1][:3] == (190, 40, 60)
    assert 'label="wrong"' in (tmp_path / "e.qml").read_text()
    assert result["where"]["by_boundary_distance"][0]["error"] > result["where"]["by_boundary_distance"][-1]["error"]


def test_what_a_deleted_error_raster_left_is_no_hindrance(tmp_path: Path) -> None:
    codes = class_map(90, 70)
    made = write_raster(tmp_path / "made.tif", codes, grid(90, 70))
    config, error = EvaluateConfig(error_raster=tmp_path / "e.tif"), tmp_path / "e.tif"
    evaluate_mosaic(made, made, tmp_path / "a.html", config)
    assert Path(f"{error}.aux.xml").exists()
    error.unlink()
    evaluate_mosaic(made, made, tmp_path / "b.html", config)
    error.unlink()
    (tmp_path / "e.qml").unlink()  # nothing says whose the names are
    with pytest.raises(OutputError, match=r"e\.tif\.aux\.xml: exists"):
        evaluate_mosaic(made, made, tmp_path / "c.html", config)


@pytest.mark.parametrize(("tag", "shown"), [("5.20238e-06", "5.202e-06"), ("12345.678", "1.235e+04"), ("0.0", "0")])
def test_the_page_tells_figures_of_a_mosaic_whole(tmp_path: Path, tag: str, shown: str) -> None:
    made = write_raster(tmp_path / "made.tif", class_map(90, 70), grid(90, 70))
    with rasterio.open(made, "r+") as dataset:
        dataset.update_tags(GEOP2P_TILE_MISMATCH=tag, GEOP2P_MODE="exact")
    evaluate_mosaic(made, made, tmp_path / "page.html")
    assert f"<p>tile mismatch {shown} · mode exact</p>" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(("made", "real"), [("uint8", "uint16"), ("float32", "uint8"), ("uint8", "uint8")])
def test_the_range_of_rasters_is_that_of_the_reference(tmp_path: Path, made: str, real: str) -> None:
    """However the prediction is stored."""
    truth = np.random.default_rng(0).integers(20, 200, (3, 40, 40))
    paths = [
        write_raster(tmp_path / f"{dtype}_{more}.tif", (truth + more).astype(dtype), grid(40, 40))
        for dtype, more in ((made, 2), (real, 0))
    ]
    result = evaluate_mosaic(*paths, tmp_path / "report.html")
    wanted = 255 if real == "uint8" else 179
    assert result["range"] == [wanted] * 3 and result["psnr"] == pytest.approx(20 * math.log10(wanted / 2))


def test_a_band_of_one_value_has_no_range(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 4000, (2, 40, 40)).astype(np.uint16)
    truth[1] = 500
    path = write_raster(tmp_path / "truth.tif", truth, grid(40, 40))
    made = write_raster(tmp_path / "made.tif", truth + np.uint16(3), grid(40, 40))
    result = evaluate_mosaic(made, path, tmp_path / "report.html")
    assert result["l1"] == 3 and result["range"][1] == 0 < result["range"][0]
    first, second = result["bands"].values()
    for name in ("psnr", "ssim", "ms_ssim"):
        assert result[name] is None and second[name] is None
        assert result["reasons"][name] == "a band of the reference has one value alone, and so no range"
    assert first["psnr"] > 50 and first["ssim"] > 0.99


@pytest.mark.parametrize(("dtype", "fill"), [("float32", -3.4028234663852886e38), ("float64", -1.797e308)])
def test_fill_values_that_no_file_declares_are_said(tmp_path: Path, dtype: str, fill: float) -> None:
    truth = np.random.default_rng(0).normal(100, 20, (1, 60, 60))
    made = write_raster(tmp_path / "made.tif", truth.astype(dtype), grid(60, 60))
    truth[:, :9] = fill
    real = write_raster(tmp_path / "real.tif", truth.astype(dtype), grid(60, 60))
    result = evaluate_mosaic(made, real, tmp_path / "report.html")
    json.dumps(result, allow_nan=False)
    assert f"like {fill:.9g}: if such values mean no data, tag them so" in result["notes"][0]
    if dtype == "float64":
        assert {result[name] for name in ("l1", "rmse", "psnr", "ssim", "ms_ssim", "correlation")} == {None}
        assert "too large to be squared" in result["reasons"]["rmse"]
    both = evaluate_mosaic(real, real, tmp_path / "report.html", overwrite=True)
    assert both["l1"] in (0, None) and f"like {fill:.9g}" in both["notes"][0]


def test_a_score_that_there_is_not_has_no_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ERGAS of one block alone may be had where that of all is not."""
    monkeypatch.setattr("geop2p.evaluation.mosaics.BLOCK", 32)
    truth = np.random.default_rng(0).normal(100, 20, (2, 64, 64)).astype(np.float32)
    truth[:, :32, :8] = -1
    real = write_raster(tmp_path / "real.tif", truth, grid(64, 64))
    result = evaluate_mosaic(real, real, tmp_path / "report.html")
    assert result["ergas"] is None and result["intervals"]["ergas"] is None
    assert result["intervals"]["l1"] == (0, 0)


def test_borders_of_classes_are_seen_from_the_next_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is near a border does not depend on how the ground is cut to be read and to be scored."""
    truth = np.random.default_rng(0).integers(1, 4, (1, 8, 9)).astype(np.uint8).repeat(12, 1).repeat(12, 2)
    made, valid = truth.copy(), np.ones(truth.shape[1:], bool)
    made[:, ::3] = 1
    valid[40:50, 30:60] = False
    paths = [
        write_raster(tmp_path / f"{name}.tif", values, grid(96, 108), mask=valid)
        for name, values in (("made", made), ("real", truth))
    ]
    whole = evaluate_mosaic(*paths, tmp_path / "report.html")
    monkeypatch.setattr("geop2p.evaluation.mosaics.PART", 48)
    monkeypatch.setattr("geop2p.evaluation.mosaics.BLOCK", 24)
    cut = evaluate_mosaic(*paths, tmp_path / "report.html", overwrite=True)
    assert len(whole["where"]["by_boundary_distance"]) == 5
    assert cut["where"] == whole["where"] and cut["confusion"] == whole["confusion"]


def test_one_class_only_is_said(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.full((1, 40, 40), 3, np.uint8), grid(40, 40))
    result = evaluate_mosaic(path, path, tmp_path / "report.html")
    assert result["miou"] == 1 and "no score can tell a good map from a bad one" in result["notes"][0]
    assert result["notes"][0] in (tmp_path / "report.html").read_text()


def test_settings_of_the_other_kind_of_evaluation_are_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="judge is for MODEL CHIPS, not for PREDICTION REFERENCE"):
        evaluate_mosaic(pair[1], pair[1], tmp_path / "a.html", EvaluateConfig(judge="fcn"))
    for name, value in {"split": "val", "sample": 9, "batch_size": 2, "device": "cpu"}.items():
        with pytest.raises(ConfigError, match=rf"^{name} is for MODEL CHIPS.*leave --{name.replace('_', '-')} out"):
            evaluate_mosaic(pair[1], pair[1], tmp_path / "a.html", EvaluateConfig(**{name: value}))
    with pytest.raises(ConfigError, match="for PREDICTION REFERENCE, not for MODEL CHIPS"):
        evaluate("run", "chips", tmp_path / "a.html", EvaluateConfig(strict=True))


def test_the_page_shows_the_truth_beside_the_mosaic_while_the_layers_are_there(
    run: Path, pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    predict(run / "run", pair[0], run / "out.tif")
    config = EvaluateConfig(mosaic=run / "out.tif")
    evaluate(run / "run", run / "chips", run / "with.html", config)
    assert 'id="slider"' in (run / "with.html").read_text()
    pair[1].rename(run / "moved.tif")
    evaluate(run / "run", run / "chips", run / "without.html", config)
    assert 'id="slider"' not in (run / "without.html").read_text() and "without the truth" in caplog.text


def test_what_is_clipped_is_a_share_of_the_pixels(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all chips together: one with little ground weighs little."""

    def with_little(*given: Any) -> ScoredChips:
        ground = load_scored_chips(*given)
        ground.arrays.valid[ground.rows[0], 2:] = False
        return ground

    def share(self: Encoding, values: Array, valid: Mask) -> float:
        return 1.0 if valid.sum() < valid.size else 0.25

    monkeypatch.setattr(evaluator, "load_scored_chips", with_little)
    monkeypatch.setattr(Encoding, "clipped_share", share)
    result = evaluate(run / "run", run / "chips", run / "report.html", EvaluateConfig(split="train"))
    little, others = 2 * 32, (result["chips"] - 1) * 32**2
    assert result["clipped_share"] == pytest.approx((little + others / 4) / (little + others))


def test_refusals(run: Path, pair: tuple[Path, Path]) -> None:
    (run / "report.html").write_text("mine")
    with pytest.raises(OutputError, match="exists; give another name or --overwrite"):
        evaluate(run / "run", run / "chips", run / "report.html")
    tile(pair[1], pair[0], run / "other", TileConfig(size=32))
    with pytest.raises(ChipSetError, match="source is image with 3 bands, the model was trained on classes with 1"):
        evaluate(run / "run", run / "other", run / "new.html")
    tile(*pair, run / "single", TileConfig(size=32, split="1:0:0"))
    with pytest.raises(ChipSetError, match=r"has no test chips \(train has \d+\); choose with --split"):
        evaluate(run / "run", run / "single", run / "new.html")
    for sides in ((pair[1], run / "chips"), (run / "chips", pair[1])):
        with pytest.raises(ConfigError, match=r"chips: is a chip set, which only models are scored on"):
            evaluate_mosaic(*sides, run / "new.html")


def test_a_zipped_raster_is_told_how_to_be_opened(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.zeros((1, 15, 10), np.uint8), grid(15, 10))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "a.tif")
    with pytest.raises(RasterError, match=r"give the raster inside, as /vsizip/.*a\.zip/NAME"):
        describe(tmp_path / "a.zip")
    assert describe(f"/vsizip/{tmp_path}/a.zip/a.tif")["width"] == 10


def test_a_missing_chip_is_told_without_options_of_other_commands(run: Path, pair: tuple[Path, Path]) -> None:
    tile(*pair, run / "torn", TileConfig(size=32, format="geotiff"))
    next((run / "torn" / "source" / "test").glob("*.tif")).unlink()
    with pytest.raises(ChipSetError, match=r"no such file; cut the chips again$"):
        evaluate(run / "run", run / "torn", run / "new.html")


def test_describe_tells_what_a_raster_does_to_its_values_and_where_it_lies(tmp_path: Path) -> None:
    where = Grid(None, Affine.translation(100, 200) @ Affine.rotation(30) @ Affine.scale(20, -10), 15, 10)
    path = write_raster(tmp_path / "a.tif", np.zeros((2, 15, 10), np.int16), where)
    with rasterio.open(path, "r+") as dataset:
        dataset.transform, dataset.scales, dataset.offsets = where.transform, (0.1, 1.0), (0.0, 1000.0)
    told = describe(path)
    assert (told["scales"], told["offsets"], told["control_points"], told["crs"]) == ([0.1, 1], [0, 1000], False, None)
    assert told["transform"] == pytest.approx(list(where.transform)[:6])
    assert told["bounds"][:2] == pytest.approx([100, 200 - 150 * math.cos(math.pi / 6)])
    lines = CliRunner().invoke(main, ["info", str(path)]).stdout.splitlines()
    assert "crs: none, so its place on the ground is unknown" in lines and "scales: 0.1, 1.0" in lines
    write_raster(path, np.zeros((1, 15, 10), np.uint8), grid(15, 10))
    lines = CliRunner().invoke(main, ["info", str(path)]).stdout.splitlines()
    assert not any(line.startswith(("scales", "offsets", "control_points")) for line in lines)


def test_describe_says_what_a_path_is(run: Path, pair: tuple[Path, Path]) -> None:
    predict(run / "run", pair[0], run / "out.tif")
    raster, model, chips = (describe(run / name) for name in ("out.tif", "run", "chips"))
    assert (raster["type"], raster["synthetic"], raster["mask"], raster["width"]) == ("raster", True, True, 420)
    assert describe(pair[0])["classes"] == {"1": "water", "2": "meadow", "5": "road"}
    assert (model["type"], model["stride"], model["source"]["kind"]) == ("model", 32, "classes")
    assert (chips["type"], chips["size"], chips["target"]["kind"]) == ("chip set", 32, "image")
    with pytest.raises(RasterError, match=r"holds runs \(.*run\); give one of them"):
        describe(run)
    with pytest.raises(RasterError, match=r"metrics\.jsonl: belongs to the run .*run; give that folder"):
        describe(run / "run" / "metrics.jsonl")
    (run / "begun").mkdir()
    with pytest.raises(RasterError, match="neither a chip set nor a finished run"):
        describe(run / "begun")
    shutil.copy(run / "run" / "config.json", run / "begun")
    begun = json.loads(json.dumps(describe(run / "begun")))
    assert begun["type"] == "run without a model" and "repeat the command to go on" in begun["state"]
    (run / "m.onnx").touch()
    for looking in (lambda: describe(run / "m.onnx"), lambda: predict(run / "m.onnx", pair[0], run / "no.tif")):
        with pytest.raises(CheckpointError, match=r"m\.onnx: is a network .* `geop2p export` .* give the run"):
            looking()


def test_a_raster_twice_as_wide_as_high_is_no_pair(tmp_path: Path) -> None:
    write_raster(tmp_path / "globe.tif", np.ones((1, 40, 80), np.uint8), grid(40, 80))
    assert describe(tmp_path)["type"] == "raster" and describe(tmp_path)["width"] == 80


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
    with pytest.raises(ConfigError, match="has 1 bands of uint8, the model makes 3 of uint8"):
        evaluate(run / "run", run / "chips", run / "report.html", EvaluateConfig(mosaic=pair[0]))
    with pytest.raises(RasterError, match="no such file"):
        evaluate(run / "run", run / "chips", run / "report.html", EvaluateConfig(mosaic=run / "none.tif"))
    with pytest.raises(ConfigError, match=r"give a name that ends in \.html"):
        evaluate(run / "run", run / "chips", run / "out.tif", overwrite=True)


def test_describe_of_a_vector_layer_is_json(tmp_path: Path) -> None:
    from shapely.geometry import box

    values = {"use": ["barn"], "storeys": np.array([2], np.int32), "control_points": ["x"]}
    layer = geopandas.GeoDataFrame(values, geometry=[box(0, 0, 1, 1)], crs=32632)
    layer.to_file(tmp_path / "a.gpkg")
    gaps = {"type": "FeatureCollection", "features": []}
    for place, storeys in enumerate((2, None)):
        point = {"type": "Point", "coordinates": [place, place]}
        gaps["features"].append({"type": "Feature", "properties": {"storeys": storeys}, "geometry": point})
    (tmp_path / "gaps.geojson").write_text(json.dumps(gaps))
    assert describe(tmp_path / "gaps.geojson")["fields"] == {"storeys": "int32"}
    found = json.loads(json.dumps(describe(tmp_path / "a.gpkg")))
    assert (found["type"], found["crs"], found["features"]) == ("vector layer", "EPSG:32632", 1)
    assert (found["geometry"], found["bounds"]) == ({"Polygon": 1}, [0, 0, 1, 1])
    assert found["fields"] == {"use": "text", "storeys": "int32", "control_points": "text"}
    assert "  control_points: text" in CliRunner().invoke(main, ["info", str(tmp_path / "a.gpkg")]).stdout
    layer[:0].to_file(tmp_path / "none.gpkg")
    found = json.loads(json.dumps(describe(tmp_path / "none.gpkg"), allow_nan=False))
    assert (found["features"], found["geometry"], found["bounds"]) == (0, {}, None)


def test_nothing_that_is_read_is_replaced(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    made, real = (shutil.copy(pair[1], tmp_path / name) for name in ("made.tif", "real.tif"))
    spread = write_raster(tmp_path / "spread.tif", np.ones((1, 300, 420), np.float32), grid(300, 420))
    (tmp_path / "link.tif").symlink_to(real)
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(real, folder / "part.tif")
    page = shutil.copy(real, tmp_path / "page.html")
    before = {path: path.read_bytes() for path in (made, real, spread, folder / "part.tif", page)}

    def refused(message: str, truth: Path, error: Path | None, report: str = "r.html") -> None:
        config = EvaluateConfig(error_raster=error, uncertainty=spread)
        with pytest.raises(ConfigError, match=message):
            evaluate_mosaic(made, truth, tmp_path / report, config, overwrite=True)

    for path in (made, real, spread, tmp_path / "link.tif"):
        refused(f"{path.name}: is an input; give another name", real, path)
    refused("new.tif: lies in the folder that is an input; give a name elsewhere", folder, folder / "new.tif")
    refused("part.tif: is an input; give another name", folder, folder / "part.tif")
    refused("made.tiff: its style made.qml is that of .*made.tif; give another name", real, tmp_path / "made.tiff")
    refused("page.html: is an input; give another name", page, None, "page.html")
    assert all(path.read_bytes() == values for path, values in before.items())


def unseen(run: Path, model: str = "run", chips: str = "chips", **settings: Any) -> tuple[dict[str, Any], str]:
    result = evaluate(run / model, run / chips, run / "r.html", EvaluateConfig(**settings), overwrite=True)
    return result, (run / "r.html").read_text()


def test_only_ground_that_the_training_did_not_see_is_called_so(run: Path, pair: tuple[Path, Path]) -> None:
    said = "share no ground with the training"
    result, page = unseen(run, sample=2)
    assert result["unseen"] and result["where"]["by_training_distance"] and said in page
    tile(*pair, run / "others", TileConfig(size=32, seed=1))
    shutil.copytree(run / "run", run / "alone")
    (run / "alone" / "config.json").unlink()
    tiny = TrainConfig(recipe="pix2pix", steps=1, batch_size=4, width=4, downs=5, device="cpu")
    train(run / "others", run / "first", tiny)
    for name, start in (("begun", run / "first"), ("again", run / "begun"), ("continued", run / "run")):
        train(run / "chips", run / name, dataclasses.replace(tiny, init_from=start))
    assert unseen(run, model="continued", sample=2)[0]["unseen"]
    for found, why in (
        (unseen(run, model="begun", sample=2), "began with first, which learned on others: the ground may be known"),
        (unseen(run, model="again", sample=2), "began with first, which learned on others: the ground may be known"),
        (unseen(run, split="train", sample=2), "These chips were trained on"),
        (unseen(run, chips="others", sample=2), "others is not what the training saw, or has changed since"),
        (unseen(run, model="alone", sample=2), "Nothing beside the model says that it was trained on"),
    ):
        result, page = found
        assert not result["unseen"] and said not in page and why in page and why in " ".join(result["notes"])
        assert result["where"]["by_training_distance"] == [] and "By distance from the training" not in page
        assert "distance from the training (the ground may be known)" in page


def test_a_mosaic_of_another_model_is_said_and_one_of_another_place_refused(
    run: Path, pair: tuple[Path, Path], make_model: Callable[..., Path]
) -> None:
    predict(run / "run", pair[0], run / "own.tif")
    predict(make_model(Identity, image_encoding()), pair[1], run / "other.tif")
    values = np.ones((3, 90, 90))
    write_raster(run / "away.tif", values.astype(np.uint8), grid(90, 90, left=700_000.0))
    write_raster(run / "wide.tif", values.astype(np.uint16), grid(90, 90))
    assert unseen(run, mosaic=run / "own.tif", sample=2)[0]["notes"] == []
    for path, why in ((run / "other.tif", "was made by another model"), (pair[1], "does not say which model made it")):
        result, page = unseen(run, mosaic=path, sample=2)
        assert any(why in note for note in result["notes"]) and why in page
    for name, why in (("away", "away from the scenes of"), ("wide", "3 bands of uint16, the model makes 3 of uint8")):
        with pytest.raises(ConfigError, match=why):
            unseen(run, mosaic=run / f"{name}.tif")


def test_a_map_of_one_class_against_many_is_said(tmp_path: Path) -> None:
    many = write_raster(tmp_path / "many.tif", class_map(40, 40), grid(40, 40))
    one = write_raster(tmp_path / "one.tif", np.full((1, 40, 40), 5, np.uint8), grid(40, 40))
    (note,) = evaluate_mosaic(many, one, tmp_path / "a.html")["notes"]
    assert note.startswith("The reference shows only one class (class 5)")
    (note,) = evaluate_mosaic(one, many, tmp_path / "b.html")["notes"]
    assert note == "The prediction shows only one class (class 5), the reference class 1, class 2, class 5."
    two = write_raster(tmp_path / "two.tif", np.full((1, 40, 40), 2, np.uint8), grid(40, 40))
    assert len(evaluate_mosaic(two, one, tmp_path / "c.html")["notes"]) == 2
    assert evaluate_mosaic(many, many, tmp_path / "d.html")["notes"] == []


def test_classes_that_have_no_common_codes_are_refused_or_said(tmp_path: Path) -> None:
    from shapely.geometry import box

    maps = [write_raster(tmp_path / f"{name}.tif", class_map(40, 40), grid(40, 40)) for name in "ab"]
    layer = geopandas.GeoDataFrame({"use": ["barn"]}, geometry=[box(0, 0, 1, 1)], crs=32632)
    layer.to_file(tmp_path / "a.gpkg")
    for sides in ((maps[0], tmp_path / "a.gpkg"), (tmp_path / "a.gpkg", maps[0])):
        with pytest.raises(ConfigError, match=r"a.gpkg: is a vector layer.*gdal_rasterize"):
            evaluate_mosaic(*sides, tmp_path / "v.html")
    for path, names in zip(maps, (["", "water", "Wood", ""], ["", "road", "wood", "field"]), strict=True):
        write_names(path, names)
    (note,) = evaluate_mosaic(*maps, tmp_path / "m.html")["notes"]
    assert f"the names differ: 1 is water in {maps[0]} and road in {maps[1]}." in note
    write_names(maps[1], ("", "water", "", "", "", "wood"))
    (note,) = evaluate_mosaic(*maps, tmp_path / "n.html", overwrite=True)["notes"]
    assert f"but these differ: Wood is 2 in {maps[0]} and 5 in {maps[1]}; give both maps the same codes." in note
    tens = write_raster(tmp_path / "tens.tif", class_map(40, 40) * 10 + 10, grid(40, 40))
    (note,) = evaluate_mosaic(tens, maps[0], tmp_path / "p.html")["notes"]
    assert note.startswith("No class occurs in both: the prediction shows class 20, class 30, class 60, the reference")
    for path in maps:  # a name for two codes is no contradiction
        write_names(path, ("", "wood", "", "", "", "wood"))
    assert evaluate_mosaic(*maps, tmp_path / "o.html")["notes"] == []


def test_damaged_metrics_cost_the_curves_alone(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    for junk in ("{", "3", "{}"):
        with (run / "run" / "metrics.jsonl").open("a") as stream:
            stream.write(f"{junk}\n")
        result, page = unseen(run, sample=2)
        assert result["l1"] > 0 and "<polyline" not in page and "no curves of the training" in caplog.text
        lines = (run / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
        (run / "run" / "metrics.jsonl").write_text("".join(lines[:-1]))
        caplog.clear()


def drawn(sums: np.ndarray) -> np.ndarray:
    """What draws of blocks sum up to (draws, figures), from the sums of each block (blocks, figures)."""
    return np.stack([counts @ sums for counts in bootstrap(len(sums))])


def test_intervals_are_over_the_blocks_of_the_index(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two scenes with blocks of one name and four chips a block, whose error is that of the block alone."""
    values = np.random.default_rng(0).integers(0, 200, (3, 160, 160)).astype(np.uint8)
    for number, name in enumerate(("first", "second")):
        where = grid(160, 160, left=500_000.0 + 10_000 * number)
        path = write_raster(tmp_path / f"{name}.tif", values, where, photometric="RGB")
        tile(path, path, tmp_path / "chips", TileConfig(size=32, stride=16, split="1:1:2", format="packed"))
    chips = ChipSet.open(tmp_path / "chips")
    index = chips.index()
    places = index[index["split"] == "test"].set_index("id")
    ground = load_scored_chips(chips, (chips.source, chips.target), "test", None)
    assert ground.blocks == [f"{places['scene'][name]}:{places['block'][name]}" for name in ground.arrays.ids]
    keys = [(places["scene"][name], places["block"][name]) for name in ground.arrays.ids]
    blocks = list(dict.fromkeys(keys))
    assert places["block"].nunique() < len(blocks) < len(places) / 2

    near = np.isin(np.arange(32), [*range(4), *range(28, 32)])
    corners, middle = near[:, None] & near, np.pad(np.ones((8, 8), bool), 12)
    errors = [1 + number + 2 * (number % 5) * corners for number in range(len(blocks))]  # of a pixel of each block

    def predict(_: Translator, arrays: ChipArrays, rows: Indices) -> list[np.ndarray]:
        return [arrays.target[row] + errors[blocks.index(keys[row])] for row in rows]

    monkeypatch.setattr("geop2p.evaluation.evaluator.predict_chips", predict)
    model = make_model(Identity, chips.source, chips.target)
    result = evaluate(model, tmp_path / "chips", tmp_path / "report.html")
    counts = [keys.count(block) for block in blocks]
    sums = np.array([
        [count * figure for figure in (error.sum(), 32 * 32, error[corners].sum(), error[middle].sum())]
        for error, count in zip(errors, counts, strict=True)
    ])  # fmt: skip
    total, pixels, outer, inner = drawn(sums).T
    assert result["intervals"]["l1"] == pytest.approx(interval(total / pixels), rel=1e-9)
    assert result["corner_ratio_interval"] == pytest.approx(interval(outer / inner), rel=1e-9)


def test_a_mosaic_has_intervals_over_its_squares_and_strips_from_the_best_to_the_worst(tmp_path: Path) -> None:
    """Four squares of 512 pixels and what is left of five, each with an error of its own."""
    side, edges = 1100, (0, 512, 1024, 1100)
    errors = np.array([[40, 10, 3], [20, 30, 90], [2, 80, 1]])
    values = np.random.default_rng(0).integers(0, 100, (1, side, side)).astype(np.uint8)
    lengths = np.diff(edges)
    added = errors.repeat(lengths, axis=0).repeat(lengths, axis=1).astype(np.uint8)
    made = write_raster(tmp_path / "made.tif", values + added, grid(side, side))
    real = write_raster(tmp_path / "real.tif", values, grid(side, side))
    result = evaluate_mosaic(made, real, tmp_path / "report.html")
    pixels = np.outer(lengths, lengths)
    total, count = drawn(np.stack([(errors * pixels).ravel(), pixels.ravel()], axis=1)).T
    assert result["l1"] == pytest.approx((errors * pixels).sum() / side**2)
    assert result["intervals"]["l1"] == pytest.approx(interval(total / count), rel=1e-9)
    captions = re.findall(r"<figcaption>(row .+?)</figcaption>", (tmp_path / "report.html").read_text())
    assert captions == [
        "row 0, column 512: mean error 10, rank 1 of 4, best",
        "row 512, column 0: mean error 20, rank 2 of 4, median",
        "row 512, column 512: mean error 30, rank 3 of 4",
        "row 0, column 0: mean error 40, rank 4 of 4, worst",
    ]


def command_line(*arguments: object) -> Any:
    """What `geop2p evaluate` answers."""
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def test_a_folder_of_rasters_is_a_prediction_of_its_own(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    """Halves of a mosaic score like all of it, by what both tell of their making; their tiles are not one lattice."""
    values = np.random.default_rng(0).normal(40, 9, (1, 96, 128)).astype(np.float32)
    source = write_raster(tmp_path / "in.tif", values, grid(96, 128))
    reference = write_raster(tmp_path / "other.tif", values + 2, grid(96, 128))
    model = make_model(Identity, image_encoding("float32", 1, -50, 150))
    predict(model, source, tmp_path / "out.tif", PredictConfig(tile_size=64, overlap=0))
    whole = evaluate_mosaic(tmp_path / "out.tif", reference, tmp_path / "whole.html")
    (tmp_path / "parts").mkdir()
    with rasterio.open(tmp_path / "out.tif") as dataset:
        made, tags = dataset.read(), dataset.tags()
    for left, name in ((0, "west"), (64, "east")):
        half = grid(96, 64, left=500_000.0 + 2 * left)
        path = write_raster(tmp_path / "parts" / f"{name}.tif", made[:, :, left : left + 64], half)
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(**tags | {"GEOP2P_TILE_MISMATCH": str(left)})
    (tmp_path / "parts" / "config.json").write_text("{}")  # of another program
    answer = command_line(tmp_path / "parts", reference, tmp_path / "parts.html", "--json")
    assert answer.exit_code == 0, answer.stderr
    found = json.loads(answer.stdout)
    same = ("l1", "rmse", "psnr", "ssim", "range", "share", "pixels")
    assert found["range"] == [200] and {found[name] == whole[name] for name in same} == {True}
    assert whole["seam_index"] is not None and found["seam_index"] is found["tile_mismatch"] is None
    assert 'id="slider"' in (tmp_path / "parts.html").read_text()
    again = command_line(reference, tmp_path / "parts", tmp_path / "back.html", "--json")
    assert json.loads(again.stdout)["l1"] == pytest.approx(2, rel=1e-5)


def test_what_is_neither_a_run_nor_rasters_is_told_in_a_line(run: Path, pair: tuple[Path, Path]) -> None:
    (run / "empty").mkdir()
    shutil.copytree(run / "run", run / "unfinished")
    (run / "unfinished" / "model.safetensors").unlink()
    for result, truth, wanted in (
        ("empty", "image.tif", r"Error: .*empty: has no rasters \(.*"),
        ("empty", "chips", r"Error: .*empty.model.safetensors: no such model; train one first \(.*"),
        ("none", "chips", r"Error: .*none: no such model; train one first \(.*"),
        ("none", "image.tif", r"Error: .*none: no such file"),
        ("unfinished", "image.tif", r"Error: .*unfinished.model.safetensors: no such model; train one first \(.*"),
    ):
        answer = command_line(run / result, run / truth, run / "report.html")
        assert answer.exit_code == 1 and re.fullmatch(wanted, answer.stderr.strip()), answer.stderr
        assert not (run / "report.html").exists()
    assert command_line(run / "run" / "model.safetensors", run / "chips", run / "a.html").exit_code == 0


def test_a_map_on_another_grid_is_read_by_the_nearest_pixel(tmp_path: Path) -> None:
    """The codes that a reference of 3 m has under the centres of pixels of 2 m, its holes and its border."""
    made, real = class_map(110, 130), class_map(60, 70, seed=1)
    there = np.random.default_rng(0).random((60, 70)) > 0.1
    first = write_raster(tmp_path / "a.tif", made, grid(110, 130))
    where = grid(60, 70, pixel=3.0, left=500_040.4, top=5_299_989.2)
    second = write_raster(tmp_path / "b.tif", real, where, mask=there)
    rows = np.floor((np.arange(110) * 2 + 1 - 10.8) / 3).astype(int)
    cols = np.floor((np.arange(130) * 2 + 1 - 40.4) / 3).astype(int)
    inside = ((rows >= 0) & (rows < 60))[:, None] & ((cols >= 0) & (cols < 70))
    at = np.ix_(rows.clip(0, 59), cols.clip(0, 69))
    codes, valid = real[0][at], inside & there[at]
    result = evaluate_mosaic(first, second, tmp_path / "r.html", EvaluateConfig(error_raster=tmp_path / "e.tif"))
    with rasterio.open(tmp_path / "e.tif") as dataset:
        assert np.array_equal(dataset.read(1), np.where(valid, made[0] != codes, 255))
    assert result["warped"] and result["pixels"] == valid.sum() and not inside.all()
    assert result["accuracy"] == pytest.approx((made[0] == codes)[valid].mean())
    shares = {name: entry["share"] for name, entry in result["classes"].items()}
    assert shares == pytest.approx({f"class {code}": (codes[valid] == code).mean() for code in (1, 2, 5)})


def test_scores_that_do_not_apply_are_null_with_a_reason(
    tmp_path: Path, pair: tuple[Path, Path], make_model: Callable[..., Path]
) -> None:
    """The keys that every result has, of rasters and of chips, of imagery and of maps."""
    keys, page = {"l1", "rmse", "psnr", "ssim", "corner_ratio"}, tmp_path / "r.html"
    tile(pair[1], pair[0], tmp_path / "chips", TileConfig(size=32, split="1:0:1", format="packed"))
    chips = ChipSet.open(tmp_path / "chips")
    model = make_model(Identity, chips.source, chips.target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geop2p.evaluation.evaluator.predict_chips", lambda _, arrays, rows: arrays.target[rows])
        of_map = evaluate(model, tmp_path / "chips", page, overwrite=True)
    for found, missing in (
        (of_map, keys - {"corner_ratio"} | {"judge"}),
        (evaluate_mosaic(pair[0], pair[0], page, overwrite=True), keys | {"judge"}),
        (evaluate_mosaic(pair[1], pair[1], page, overwrite=True), {"psnr", "corner_ratio"}),
    ):
        assert keys <= set(found) and all(found[name] is None and found["reasons"][name] for name in missing)
        assert not {name for name in keys - missing - {"corner_ratio"} if found[name] is None}
    answer = command_line(pair[0], pair[0], page, "--overwrite")
    assert "accuracy" in answer.stderr and not re.search("l1|rmse|psnr|ssim|corner", answer.stderr)


def test_chips_with_the_model_s_classes_under_other_codes_are_refused(run: Path, pair: tuple[Path, Path]) -> None:
    """Their ground would be read as that of other classes, or of none, and the scores mean nothing."""
    with rasterio.open(pair[0]) as dataset:
        codes = dataset.read()
    swapped = np.where(codes == 1, 2, np.where(codes == 2, 1, codes)).astype(np.uint8)
    write_names(
        write_raster(run / "swapped.tif", swapped, grid(300, 420), nodata=0), ("", "meadow", "water", "", "", "road")
    )
    moved = np.where(codes, codes + 20, 0).astype(np.uint8)
    write_raster(run / "moved.tif", moved, grid(300, 420), nodata=0)
    names = ("", "water", "meadow", "", "", "road", "", "", "", "marsh")
    partly = np.where((codes == 5) & (np.arange(420) > 100), 9, codes).astype(np.uint8)
    write_names(write_raster(run / "partly.tif", partly, grid(300, 420), nodata=0), names)
    for name in ("swapped", "moved", "partly"):
        tile(run / f"{name}.tif", pair[1], run / name, TileConfig(size=32))
    report = run / "r.html"
    for score in (
        lambda chips: evaluate(run / "run", run / chips, report),
        lambda chips: compare([run / "run"], report, CompareConfig(chips=run / chips)),
    ):
        with pytest.raises(
            ChipSetError, match=r"swapped: source: has other codes than the model \(.*1 meadow is its 2"
        ):
            score("swapped")
        with pytest.raises(
            ChipSetError, match=r"moved: source has the classes 21 .*, the model knows 1 water, 2 meadow"
        ):
            score("moved")
    assert not report.exists()
    result = evaluate(run / "run", run / "partly", report, EvaluateConfig(sample=2))
    assert any(
        re.match(r"No chip that was trained on holds marsh \(.* % of .*: no model knows", x) for x in result["notes"]
    )
