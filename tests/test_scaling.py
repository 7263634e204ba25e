"""What values mean travels from the layers through chips and mosaics to scores."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import Constant, Identity, class_map, grid, write_raster
from rasterio.windows import Window

from geop2p import PredictConfig, TileConfig, describe, evaluate, evaluate_mosaic, predict, tile
from geop2p.config import Backscatter
from geop2p.errors import ChipSetError, ConfigError, RasterError
from geop2p.metrics import scores_for
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.encoding import Band, Encoding
from geop2p.raster.layers import open_layer
from geop2p.tiling.chips import ChipSet

SMALL = TileConfig(size=32, split_by="random")
SIDE = 192


def noise(dtype: str, bands: int = 1, seed: int = 0, low: float = 0, high: float = 3000) -> np.ndarray:
    values = np.random.default_rng(seed).normal((low + high) / 2, (high - low) / 8, (bands, SIDE, SIDE))
    return np.clip(values, low, high).astype(dtype)


def power(seed: int = 0) -> np.ndarray:
    """Speckle of one look over two levels of ground, float32 (1, rows, cols)."""
    ground = np.where(np.arange(SIDE) < SIDE // 2, 0.02, 0.2)
    return (np.random.default_rng(seed).exponential(1, (1, SIDE, SIDE)) * ground + 1e-4).astype(np.float32)


def layer(path: Path, values: np.ndarray, *, scale: float = 1, offset: float = 0, unit: str = "", **more: Any) -> Path:
    """A raster whose bands have a scale, an offset and a unit; elsewhere on the ground if `left` says so."""
    write_raster(path, values, grid(*values.shape[1:], left=more.pop("left", 500_000.0)), **more)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (scale,) * len(values), (offset,) * len(values)
        dataset.units = (unit,) * len(values)
    return path


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "map.tif", class_map(SIDE, SIDE), grid(SIDE, SIDE))


def values_in(chipset: ChipSet, side: str, split: str) -> np.ndarray:
    """Valid values (bands, pixels) of a split."""
    index = chipset.index()
    chips = [chipset.read(row.split, row.id) for row in index[index["split"] == split].itertuples()]
    return np.concatenate([getattr(chip, side)[:, chip.valid] for chip in chips], axis=1)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_an_image_scaled_by_its_type_returns_exactly(tmp_path: Path, codes: Path, dtype: str) -> None:
    limits = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(limits.min, limits.max, (1, SIDE, SIDE), dtype, endpoint=True)
    target = layer(tmp_path / "image.tif", values)
    config = TileConfig(size=32, split_by="random", target_kind="image", image_scaling="dtype")
    tile(codes, target, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    band = chipset.target.bands[0]
    assert (chipset.target.scaling, band.low, band.high) == ("dtype", limits.min, limits.max)
    stored = values_in(chipset, "target", "test").reshape(1, 1, -1)
    valid = np.ones(stored.shape[1:], bool)
    assert np.array_equal(chipset.target.decode(chipset.target.encode(stored, valid)), stored)
    assert chipset.target.clipped_share(stored, valid) == 0


@pytest.mark.parametrize(
    ("dtype", "scaling"), [("uint8", "dtype"), ("uint16", "percentiles"), ("float32", "percentiles")]
)
def test_images_are_scaled_by_what_their_type_suggests(tmp_path: Path, codes: Path, dtype: str, scaling: str) -> None:
    target = layer(tmp_path / "image.tif", noise(dtype, bands=3, high=200))
    tile(codes, target, tmp_path / "chips", SMALL)
    assert ChipSet.open(tmp_path / "chips").target.scaling == scaling


def test_percentiles_can_be_asked_for_8_bit_images(tmp_path: Path, codes: Path) -> None:
    target = layer(tmp_path / "image.tif", noise("uint8", bands=3, low=90, high=130))
    tile(codes, target, tmp_path / "chips", TileConfig(size=32, split_by="random", image_scaling="percentiles"))
    chipset = ChipSet.open(tmp_path / "chips")
    train = values_in(chipset, "target", "train")
    for band, values in zip(chipset.target.bands, train, strict=True):
        expected = np.percentile(values, [0.1, 99.9], method="inverted_cdf")
        assert [band.low, band.high] == expected.tolist()
    share = chipset.target.clipped_share(train[:, None], np.ones((1, train.shape[1]), bool))
    assert 0 < share <= 0.002


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32"])
def test_types_without_a_range_to_scale_by_are_refused(tmp_path: Path, codes: Path, dtype: str) -> None:
    target = layer(tmp_path / "image.tif", noise(dtype, bands=3))
    with pytest.raises(ConfigError, match=rf"image\.tif: holds {dtype}, scaling by the range .*percentiles") as caught:
        tile(codes, target, tmp_path / "chips", TileConfig(size=32, image_scaling="dtype"))
    assert "\n" not in str(caught.value) and not (tmp_path / "chips").exists()


def test_a_scaling_of_no_image_is_refused(tmp_path: Path, codes: Path) -> None:
    with pytest.raises(ConfigError, match=r"image_scaling is 'dtype', but .*map\.tif holds classes"):
        tile(codes, codes, tmp_path / "chips", TileConfig(size=32, image_scaling="dtype"))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_the_training_values_are_recorded(tmp_path: Path, codes: Path, dtype: str) -> None:
    values = noise(dtype, bands=2, low=-100 if dtype in ("int16", "float32") else 0, high=200)
    hole = np.ones((SIDE, SIDE), bool)
    hole[40:60, 100:130] = False
    target = layer(tmp_path / "image.tif", np.where(hole, values, 7).astype(dtype), mask=hole)
    tile(codes, target, tmp_path / "chips", TileConfig(size=32, split_by="random", min_valid=0.1))
    chipset = ChipSet.open(tmp_path / "chips")
    shown = describe(tmp_path / "chips")["target"]["training_values"]
    for band, name, train in zip(chipset.target.bands, shown, values_in(chipset, "target", "train"), strict=True):
        found = band.distribution
        assert found is not None
        assert (found.count, found.minimum, found.maximum) == (train.size, train.min(), train.max())
        assert found.mean == pytest.approx(train.mean(dtype=float), rel=1e-12)
        assert found.std == pytest.approx(train.std(dtype=float), rel=1e-9)
        assert (found.percentile_error == 0) == (dtype != "float32")
        for percent, value in found.percentiles:
            exact = np.percentile(train, percent, method="inverted_cdf")
            assert abs(value - exact) <= found.percentile_error * 300
        assert shown[name]["count"] == train.size and shown[name]["percentiles"]["50"] == found.percentiles[4][1]
    json.dumps(shown)


def test_stored_values_and_their_scale_are_kept_all_the_way(
    tmp_path: Path, codes: Path, make_model: Callable[..., Path]
) -> None:
    values = noise("int16", low=-500, high=4000)
    path = layer(tmp_path / "temperature.tif", values, scale=0.01, offset=5, unit="degC")
    tile(codes, path, tmp_path / "chips", TileConfig(size=32, split_by="random", target_kind="image"))
    chipset = ChipSet.open(tmp_path / "chips")
    row = chipset.index().iloc[0]
    at = np.s_[:, row.row_off : row.row_off + 32, row.col_off : row.col_off + 32]
    chip = chipset.read(row.split, row.id).target
    assert chip.dtype == np.int16 and np.array_equal(chip, values[at])
    band = chipset.target.bands[0]
    assert (band.scale, band.offset, band.unit) == (0.01, 5, "degC")
    assert values.min() <= band.low < band.high <= values.max()  # in stored values

    predict(make_model(Identity, chipset.target), path, tmp_path / "out.tif", PredictConfig(tile_size=64))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.scales, dataset.offsets, dataset.units) == ((0.01,), (5.0,), ("degC",))
        made = dataset.read()
    assert made.dtype == np.int16 and np.array_equal(made, np.clip(values, round(band.low), round(band.high)))
    reference = layer(tmp_path / "reference.tif", (values + 100).astype(np.int16), scale=0.01, offset=5, unit="degC")
    scores = evaluate_mosaic(tmp_path / "out.tif", reference, tmp_path / "report.html")
    assert scores["l1"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("one", "other"), [("m", "metre"), ("Meters", "m"), ("dB", "decibel"), ("ft", "foot")])
def test_names_of_one_unit_are_one(
    tmp_path: Path, codes: Path, make_model: Callable[..., Path], one: str, other: str
) -> None:
    values, config = noise("int16"), TileConfig(size=32, split_by="random", target_kind="image")
    first = layer(tmp_path / "first.tif", values, unit=one)
    second = layer(tmp_path / "second.tif", values, unit=other)
    tile(codes, first, tmp_path / "chips", config)
    tile(codes, second, tmp_path / "chips", config)
    predict(make_model(Identity, ChipSet.open(tmp_path / "chips").target), second, tmp_path / "out.tif")
    assert evaluate_mosaic(second, first, tmp_path / "report.html")["l1"] == 0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"scale": 1.0}, r"band 1 has scale 1\.0, expected 0\.01"),
        ({"offset": 0.0}, r"band 1 has offset 0\.0, expected 5\.0"),
        ({"unit": "K"}, "band 1 is in K, expected degC"),
        ({"unit": "DegC"}, "band 1 is in DegC, expected degC"),  # as mW is not MW
    ],
)
def test_values_that_mean_something_else_are_refused(
    tmp_path: Path, codes: Path, make_model: Callable[..., Path], other: dict[str, Any], message: str
) -> None:
    said = {"scale": 0.01, "offset": 5.0, "unit": "degC"}
    values, config = noise("int16"), TileConfig(size=32, split_by="random", target_kind="image")
    first = layer(tmp_path / "first.tif", values, **said)
    second = layer(tmp_path / "second.tif", values, **said | other)
    tile(codes, first, tmp_path / "chips", config)
    with pytest.raises(ChipSetError, match=rf"second\.tif: {message} as in the chip set's target"):
        tile(codes, second, tmp_path / "chips", config)
    encoding = ChipSet.open(tmp_path / "chips").target
    with pytest.raises(RasterError, match=rf"second\.tif: {message} as in the training"):
        predict(make_model(Identity, encoding), second, tmp_path / "out.tif")
    with pytest.raises(ConfigError, match=rf"second\.tif: {message} as in .*first\.tif"):
        evaluate_mosaic(second, first, tmp_path / "report.html")
    tile(codes, second, tmp_path / "others", config)
    source = ChipSet.open(tmp_path / "chips").source
    model = make_model(Constant, source, encoding)
    with pytest.raises(ChipSetError, match=rf"others: target: {message} as in the model's training"):
        evaluate(model, tmp_path / "others", tmp_path / "report.html")


def test_a_unit_that_a_scene_does_not_name_is_no_other_unit(tmp_path: Path, codes: Path) -> None:
    config = TileConfig(size=32, split_by="random", target_kind="image")
    tile(codes, layer(tmp_path / "first.tif", noise("int16"), unit="degC"), tmp_path / "chips", config)
    assert tile(codes, layer(tmp_path / "second.tif", noise("int16", seed=1)), tmp_path / "chips", config).scenes == 2


def test_linear_backscatter_is_kept_and_seen_in_decibels(
    tmp_path: Path, codes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = power()
    path = layer(tmp_path / "sar.tif", values)
    config = TileConfig(size=32, split_by="random", target_kind="sar")
    with caplog.at_level(logging.INFO):
        tile(codes, path, tmp_path / "chips", config)
    assert "holds sar: as asked for; float32 without negative values is linear power" in caplog.text
    chipset = ChipSet.open(tmp_path / "chips")
    target = chipset.target
    assert (target.kind, target.backscatter, target.dtype) == ("sar", "power", "float32")
    decibel = 10 * np.log10(values_in(chipset, "target", "train").astype(float))
    low, high = np.percentile(decibel, [0.1, 99.9])
    assert target.bands[0].low == pytest.approx(low, abs=0.1) and target.bands[0].high == pytest.approx(high, abs=0.1)
    row = chipset.index().iloc[0]
    at = np.s_[:, row.row_off : row.row_off + 32, row.col_off : row.col_off + 32]
    assert np.array_equal(chipset.read(row.split, row.id).target, values[at])
    assert describe(tmp_path / "chips")["target"]["backscatter"] == "power"

    other = layer(tmp_path / "decibel.tif", 10 * np.log10(power(1)))
    with pytest.raises(ChipSetError, match=r"decibel\.tif: backscatter is dB, expected power"):
        tile(codes, other, tmp_path / "chips", config)


def test_linear_backscatter_is_not_guessed_but_hinted_at(tmp_path: Path) -> None:
    found = open_layer(layer(tmp_path / "sar.tif", power()))
    assert found.kind == "image" and "if it is backscatter in linear power, say that its kind is sar" in found.reason


def test_backscatter_is_scored_in_decibels_however_stored() -> None:
    first, second = power(0).astype(np.float64), power(1).astype(np.float64)
    valid = np.random.default_rng(0).random((SIDE, SIDE)) < 0.99
    results = []
    for stored, forms in (
        ("dB", (10 * np.log10(first), 10 * np.log10(second))),
        ("power", (first, second)),
        ("amplitude", (np.sqrt(first) * 1000, np.sqrt(second) * 1000)),
    ):
        shift = 60 if stored == "amplitude" else 0
        encoding = Encoding("sar", "float64", (Band(low=-40 + shift, high=5 + shift),), backscatter=stored)
        scores = scores_for(encoding)
        scores.add(*forms, valid)
        results.append(scores.result())
    expected = np.abs(10 * np.log10(first / second))[:, valid].mean()
    for result in results:
        assert result["l1"] == pytest.approx(expected)
        assert result["psnr"] == pytest.approx(results[0]["psnr"])
    assert results[1]["ssim"] == pytest.approx(results[0]["ssim"])


def test_a_mosaic_of_linear_backscatter(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    """Identity returns the power; scores and mismatch are in dB; dB as input is refused."""
    values = power()
    path = layer(tmp_path / "sar.tif", values)
    encoding = Encoding("sar", "float32", (Band(low=-45, high=10),), backscatter="power")
    model = make_model(Identity, encoding)
    result = predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=64))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        made = dataset.read()
    assert np.abs(10 * np.log10(made / values)).max() <= 1e-5 * 55
    assert result.tile_mismatch is not None and result.tile_mismatch < 1e-4
    reference = layer(tmp_path / "reference.tif", values * np.float32(10**0.3))
    scores = evaluate_mosaic(tmp_path / "out.tif", reference, tmp_path / "report.html")
    assert scores["l1"] == pytest.approx(3, abs=1e-3)
    decibel = layer(tmp_path / "decibel.tif", 10 * np.log10(values))
    with pytest.raises(RasterError, match=r"decibel\.tif: backscatter is dB \(.*the model was trained on power"):
        predict(model, decibel, tmp_path / "other.tif")


@pytest.mark.parametrize(("stored", "dtype"), [("dB", "float32"), ("power", "float32"), ("amplitude", "uint16")])
def test_backscatter_is_averaged_as_power_however_stored(tmp_path: Path, stored: Backscatter, dtype: str) -> None:
    values = power().astype(np.float64)
    form = {"dB": 10 * np.log10(values), "power": values, "amplitude": np.rint(np.sqrt(values) * 10_000)}[stored]
    path = layer(tmp_path / "sar.tif", form.astype(dtype))
    coarse = grid(SIDE // 8, SIDE // 8, pixel=16.0)
    with aligned_reader(path, coarse, "sar", backscatter=stored) as reader:
        found, valid = reader.read(Window(0, 0, SIDE // 8, SIDE // 8))
    assert valid.all() and found.dtype == dtype
    means = values.reshape(1, SIDE // 8, 8, SIDE // 8, 8).mean(axis=(2, 4))
    expected = {"dB": 10 * np.log10(means), "power": means, "amplitude": np.sqrt(means) * 10_000}[stored]
    assert found == pytest.approx(expected, rel=1e-2 if dtype == "uint16" else 1e-4)


def test_scaled_decibels_are_averaged_as_power(tmp_path: Path) -> None:
    values = power().astype(np.float64)
    stored = np.rint(1000 * np.log10(values)).astype(np.int16)
    path = layer(tmp_path / "sar.tif", stored, scale=0.01)
    assert open_layer(path).kind == "sar"
    with aligned_reader(path, grid(SIDE // 8, SIDE // 8, pixel=16.0), "sar") as reader:
        found, _ = reader.read(Window(0, 0, SIDE // 8, SIDE // 8))
    means = values.reshape(1, SIDE // 8, 8, SIDE // 8, 8).mean(axis=(2, 4))
    assert found.dtype == np.int16 and found * 0.01 == pytest.approx(10 * np.log10(means), abs=0.02)
