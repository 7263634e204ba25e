"""Errors by predicted uncertainty: the figures of small arrays counted out, and of rasters read in parts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import TOLD, Identity, class_map, grid, image_encoding, write_raster

from geop2p import EvaluateConfig, PredictConfig, evaluate, evaluate_mosaic, predict
from geop2p.errors import ConfigError, GridMismatchError, RasterError
from geop2p.evaluation.calibration import Calibration
from geop2p.raster.encoding import Band, Encoding
from geop2p.raster.writing import part_writer


def areas(error: np.ndarray, spread: np.ndarray) -> tuple[float, float]:
    """AUSE of a spread and of no order, pixel by pixel."""
    counts = np.arange(1, len(error) + 1)
    curve, best = (np.cumsum(error[np.argsort(key)]) / counts / error.mean() for key in (spread, error))
    return (curve - best).mean(), (1 - best).mean()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_figures_are_those_of_sorted_pixels(share: float) -> None:
    generator = np.random.default_rng(0)
    error = generator.gamma(2, 3, (80, 90))
    spread = share * error + (1 - share) * generator.permutation(error.ravel()).reshape(error.shape)
    valid = generator.random((80, 90)) < 0.8
    found = Calibration()
    for rows in (slice(0, 13), slice(13, 80)):
        found.add(error[rows], np.stack([0.5 * spread, 1.5 * spread])[:, rows], valid[rows])
    result, wanted = found.result(), areas(error[valid], spread[valid])
    assert result is not None and result["pixels"] == valid.sum()
    assert result["error"] == pytest.approx(error[valid].mean())
    assert result["ause"] == pytest.approx(wanted[0], abs=0.02)
    assert result["ause_of_chance"] == pytest.approx(wanted[1], abs=0.02)
    tenths = np.array_split(np.argsort(spread[valid]), 10)
    assert [group["spread"] for group in result["groups"]] == pytest.approx(
        [spread[valid][tenth].mean() for tenth in tenths], rel=0.02
    )
    assert [group["error"] for group in result["groups"]] == pytest.approx(
        [error[valid][tenth].mean() for tenth in tenths], rel=0.05
    )
    assert sum(group["share"] for group in result["groups"]) == pytest.approx(1)


def test_pixels_of_one_spread_are_one_group() -> None:
    found, spread = Calibration(), np.zeros((1, 10, 10))
    spread[:, 9] = 1
    found.add(np.eye(10), spread, np.ones((10, 10), bool))
    result = found.result()
    assert result is not None and [group["share"] for group in result["groups"]] == pytest.approx([0.9, 0.1])
    assert [group["error"] for group in result["groups"]] == pytest.approx([0.1, 0.1])
    assert result["ause"] == pytest.approx(result["ause_of_chance"], abs=0.01)
    right = Calibration()
    right.add(np.zeros((10, 10)), spread, np.ones((10, 10), bool))
    result = right.result()
    assert result is not None and result["ause"] is None and result["error"] == 0
    assert Calibration().result() is None


def test_stored_values_have_a_scale_and_an_offset() -> None:
    """As a confidence of 8 bits has."""
    spread = np.random.default_rng(0).integers(0, 250, (2, 40, 40))
    error, valid = np.random.default_rng(1).random((40, 40)), np.ones((40, 40), bool)
    stored, physical = Calibration(False, (0.5, 0.1), (3.0, 0.0)), Calibration()
    stored.add(error, spread.astype(np.uint8), valid)
    physical.add(error, spread * [[[0.5]], [[0.1]]] + [[[3.0]], [[0.0]]], valid)
    assert stored.result() == physical.result()


@pytest.mark.parametrize("truth", [1.0, 0.6])
def test_confidence_is_compared_with_the_share_that_is_right(truth: float) -> None:
    generator = np.random.default_rng(0)
    sure = generator.uniform(0.4, 1, (1, 300, 300))
    wrong = generator.random((300, 300)) > sure[0] * truth
    found = Calibration(is_confidence=True)
    found.add(wrong.astype(float), sure, np.ones((300, 300), bool))
    result = found.result()
    assert result is not None and result["ece"] == pytest.approx(0.7 * (1 - truth), abs=0.01)
    levels = [group["confidence"] for group in result["groups"]]
    assert levels == sorted(levels, reverse=True) and levels[0] == pytest.approx(0.97, abs=0.01)


def test_a_mosaic_is_asked_where_it_errs(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    codes = class_map(560, 600)
    source = write_raster(tmp_path / "in.tif", codes, grid(560, 600), nodata=0)
    encoding = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=(), color_interp=("palette",))
    assert encoding.is_classes
    generator = np.random.default_rng(0)
    wrong = generator.random(codes.shape) < np.linspace(0, 0.9, 600)
    real = write_raster(tmp_path / "real.tif", np.where(wrong, codes % 5 + 1, codes), grid(560, 600), nodata=0)
    spread = np.broadcast_to(np.linspace(0, 0.9, 600, dtype=np.float32), (1, 560, 600)).copy()
    spread[:, :100] = np.nan
    written = Encoding("image", "float32", (Band("normalised entropy"),))
    with part_writer(tmp_path / "apart.tif", grid(560, 600), written) as write:
        write(0, spread, np.isfinite(spread[0]))
    config = EvaluateConfig(uncertainty=tmp_path / "apart.tif")
    result = evaluate_mosaic(source, real, tmp_path / "report.html", config)
    found = result["calibration"]
    assert set(result) <= TOLD
    there = np.isfinite(spread[0])
    assert found["pixels"] == there.sum() and "ece" not in found
    assert found["error"] == pytest.approx(wrong[0][there].mean(), rel=1e-6)
    assert found["ause"] == pytest.approx(areas(wrong[0][there].astype(float), spread[0][there])[0], abs=0.02)
    assert [group["error"] for group in found["groups"]] == pytest.approx(
        [group["spread"] for group in found["groups"]], abs=0.02
    )
    page = (tmp_path / "report.html").read_text()
    assert "Does it know where it errs?" in page and page.count("<polyline") == 2 and "share wrong" in page

    away = write_raster(tmp_path / "away.tif", spread[:, 1:], grid(559, 600))
    with pytest.raises(GridMismatchError, match=r"away\.tif: lies on .*; give the raster made with it"):
        evaluate_mosaic(source, real, tmp_path / "o.html", EvaluateConfig(uncertainty=away))
    two = write_raster(tmp_path / "two.tif", np.repeat(spread, 2, axis=0), grid(560, 600))
    with pytest.raises(ConfigError, match=r"two\.tif: has 2 bands, expected 1; give the one made with the mosaic"):
        evaluate_mosaic(source, real, tmp_path / "o.html", EvaluateConfig(uncertainty=two))
    with pytest.raises(RasterError, match=r"none\.tif"):
        evaluate_mosaic(source, real, tmp_path / "o.html", EvaluateConfig(uncertainty=tmp_path / "none.tif"))
    with pytest.raises(ConfigError, match="for PREDICTION REFERENCE"):
        evaluate("run", "chips", tmp_path / "o.html", EvaluateConfig(uncertainty=two))
    assert not (tmp_path / "o.html").exists()


def test_what_predict_makes_is_read(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 90, 80), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(90, 80), photometric="RGB")
    config = PredictConfig(tile_size=64, uncertainty=tmp_path / "apart.tif")
    predict(make_model(Identity, image_encoding()), path, tmp_path / "out.tif", config)
    result = evaluate_mosaic(
        tmp_path / "out.tif", path, tmp_path / "report.html", EvaluateConfig(uncertainty=tmp_path / "apart.tif")
    )
    assert result["calibration"]["pixels"] == 90 * 80 and result["calibration"]["groups"][0]["spread"] == 0
    with rasterio.open(tmp_path / "apart.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(GEOP2P_MEASURE="probability")
    result = evaluate_mosaic(
        tmp_path / "out.tif",
        path,
        tmp_path / "report.html",
        EvaluateConfig(uncertainty=tmp_path / "apart.tif"),
        overwrite=True,
    )
    assert result["calibration"]["ece"] == pytest.approx(1)  # sure of nothing, and right everywhere
