"""Confidence and uncertainty: rasters that are made with a mosaic and leave it as it is."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import CLASSES, Identity, TileMean, class_map, grid, image_encoding, stir_norms, write_raster
from rio_cogeo import cog_validate
from torch import nn

import geop2p.mosaic.assembly as assembly_module
import geop2p.mosaic.companions as companions_module
import geop2p.mosaic.mosaic as mosaic_module
from geop2p import PredictConfig, predict
from geop2p.errors import ConfigError, OutputError, RasterError
from geop2p.models.dropout import GroundDropout
from geop2p.models.unet import UNet
from geop2p.mosaic.plan import Lattice, column_bytes
from geop2p.raster.encoding import Band, Encoding

MAP = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES, color_interp=("palette",))
BLENDED: dict[str, Any] = {"tile_size": 64, "overlap": 0.5}


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.ma.filled(dataset.read(masked=True).astype(float), np.nan)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Noise of three bands with a hole."""
    values = np.random.default_rng(0).integers(0, 255, (3, 150, 203), dtype=np.uint8)
    valid = np.ones((150, 203), bool)
    valid[40:60, 90:130] = False
    return write_raster(tmp_path / "photo.tif", values, grid(150, 203), mask=valid)


class Small(UNet):
    """A network that sees far, with dropout."""

    def __init__(self, **_: Any) -> None:
        torch.manual_seed(0)
        super().__init__(3, 3, downs=6, width=4, norm="batch")
        self.eval()
        stir_norms(self)


class Ramps(Identity):
    """The column of a tile, from -0.5 to 0.5: not the same when it is turned."""

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return torch.linspace(-0.5, 0.5, source.shape[-1]).expand_as(source)


class Dropping(Identity):
    """A constant with dropout on every pixel: 0 or the double."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return self.dropout(torch.full_like(source, 0.3))


class Sure(Identity):
    """The same logits everywhere."""

    logits = (2.0, 1.0, -1.0)

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.logits)[:, None, None].expand(len(source), 3, *source.shape[-2:]).contiguous()


@pytest.mark.parametrize("way", ["d4", "tiles", "dropout"])
def test_the_mosaic_stays_as_it_is(tmp_path: Path, make_model: Callable[..., Path], photo: Path, way: Any) -> None:
    model = make_model(Small, image_encoding(), stride=64, field=None)
    predict(model, photo, tmp_path / "alone.tif", PredictConfig(**BLENDED))
    config = PredictConfig(**BLENDED, uncertainty=tmp_path / "apart.tif", uncertainty_by=way)
    result = predict(model, photo, tmp_path / "out.tif", config)
    assert (tmp_path / "alone.tif").read_bytes() == (tmp_path / "out.tif").read_bytes()
    assert result.uncertainty == str(tmp_path / "apart.tif") and result.confidence is None
    apart = pixels(tmp_path / "apart.tif")
    assert np.array_equal(np.isnan(apart), np.isnan(pixels(photo)))
    assert np.nanmin(apart) >= 0 and np.nanmean(apart) > 0.01
    with rasterio.open(tmp_path / "apart.tif") as dataset:
        assert dataset.dtypes == ("float32",) * 3 and dataset.descriptions == ("band 1", "band 2", "band 3")
        assert dataset.tags()["GEOP2P_MEASURE"] == "standard deviation" and "GEOP2P_KIND" not in dataset.tags()
        assert dataset.tags()["GEOP2P_UNCERTAINTY_BY"] == ("dropout 8" if way == "dropout" else way)
        assert float(dataset.tags(1)["STATISTICS_MEAN"]) == pytest.approx(np.nanmean(apart[0]), rel=1e-4)
    assert cog_validate(tmp_path / "apart.tif", strict=True)[0] and (tmp_path / "apart.qml").exists()


def test_confidence_is_the_blended_probability_of_the_class_that_is_shown(
    tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    codes = class_map(150, 203)
    codes[0, :30, :40] = 0
    path = write_raster(tmp_path / "in.tif", codes, grid(150, 203), nodata=0)

    class Blurred(Identity):
        """Classes of tiles that disagree."""

        def forward(self, source: torch.Tensor) -> torch.Tensor:
            return 3 * source + 2 * source.mean(dim=(2, 3), keepdim=True)

    model = make_model(Blurred, MAP, statistics="tile")
    config = PredictConfig(**BLENDED, confidence=tmp_path / "sure.tif")
    predict(model, path, tmp_path / "out.tif", config)
    one_hot = MAP.encode(codes, codes[0] != 0)
    sure, there = pixels(tmp_path / "sure.tif")[0], codes[0] != 0
    assert np.array_equal(np.isnan(sure), ~there) and np.nanmin(sure) > 1 / 3 and np.nanmax(sure) <= 1
    middle, logits = np.s_[80:90, 100:110], 3 * one_hot[:, 80:90, 100:110]
    means = [one_hot[:, r : r + 64, c : c + 64].mean(axis=(1, 2)) for r, c in ((32, 64), (32, 96), (64, 64), (64, 96))]
    chances = [np.exp(logits + 2 * mean[:, None, None]) for mean in means]
    chances = [chance / chance.sum(axis=0) for chance in chances]
    low, high = np.min(chances, axis=0).max(axis=0), np.max(chances, axis=0).max(axis=0)
    assert (sure[middle] >= low - 1e-5).all() and (sure[middle] <= high + 1e-5).all()
    style = (tmp_path / "sure.qml").read_text()
    assert 'type="singlebandpseudocolor"' in style and 'classificationMax="1.0"' in style


def test_certain_classes_and_their_entropy(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    codes = class_map(70, 90)
    path = write_raster(tmp_path / "in.tif", codes, grid(70, 90), nodata=0)
    chances = np.exp(Sure.logits) / np.exp(Sure.logits).sum()
    entropy = -(chances * np.log(chances)).sum() / math.log(3)
    for way in ("d4", "tiles"):
        config = PredictConfig(
            **BLENDED, confidence=tmp_path / "sure.tif", uncertainty=tmp_path / "apart.tif", uncertainty_by=way
        )
        result = predict(make_model(Sure, MAP), path, tmp_path / "out.tif", config, overwrite=True)
        assert np.allclose(pixels(tmp_path / "sure.tif"), chances[0], atol=1e-6)
        assert np.allclose(pixels(tmp_path / "apart.tif"), entropy, atol=1e-6)
        assert result.confidence == str(tmp_path / "sure.tif")
    with rasterio.open(tmp_path / "apart.tif") as dataset:
        assert dataset.descriptions == ("normalised entropy",) and dataset.tags()["GEOP2P_MEASURE"] == "entropy"


def test_a_network_that_turns_with_its_input_has_no_spread(
    tmp_path: Path, make_model: Callable[..., Path], photo: Path
) -> None:
    config = PredictConfig(tile_size=64, uncertainty=tmp_path / "apart.tif")
    predict(make_model(Identity, image_encoding()), photo, tmp_path / "out.tif", config)
    assert np.nanmax(pixels(tmp_path / "apart.tif")) == 0


def test_the_spread_of_exact_tiles_does_not_tell_where_they_lie(
    tmp_path: Path, make_model: Callable[..., Path], photo: Path
) -> None:
    class Halving(Identity):
        """Sees five pixels far, by halves of its input."""

        def __init__(self, **_: Any) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 6, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, 2, 1), nn.Tanh()
            )

        def forward(self, source: torch.Tensor) -> torch.Tensor:
            return self.layers(source)

    model, found = make_model(Halving, image_encoding(), field=5, stride=2), []
    for size in (64, 110):
        config = PredictConfig(tile_size=size, uncertainty=tmp_path / f"apart{size}.tif")
        assert predict(model, photo, tmp_path / f"out{size}.tif", config).mode == "exact"
        found.append(pixels(tmp_path / f"apart{size}.tif"))
    assert np.nanmean(found[0]) > 1 and np.nanmax(np.abs(found[0] - found[1])) < 1e-3


@pytest.mark.parametrize("halo", [0, 8])
def test_the_spread_over_turned_tiles_is_that_of_their_values(
    tmp_path: Path, make_model: Callable[..., Path], halo: int
) -> None:
    path = write_raster(tmp_path / "in.tif", np.zeros((1, 96, 128), np.uint8), grid(96, 128))
    target = Encoding("image", "uint16", (Band("height", "m", scale=0.1, low=0, high=1000),))
    model = make_model(Ramps, image_encoding(bands=1), target, field=halo, stride=8)
    config = PredictConfig(tile_size=32 + 2 * halo, uncertainty=tmp_path / "apart.tif", uncertainty_by="d4")
    assert predict(model, path, tmp_path / "out.tif", config).mode == "exact"
    predict(model, path, tmp_path / "alone.tif", PredictConfig(tile_size=32 + 2 * halo))
    assert (tmp_path / "alone.tif").read_bytes() == (tmp_path / "out.tif").read_bytes()
    ramp = np.linspace(-0.5, 0.5, 32 + 2 * halo)[halo : halo + 32] * 50  # half of 1000 x 0.1 m
    tile = np.sqrt((ramp[:, None] ** 2 + ramp**2) / 2)
    assert np.allclose(pixels(tmp_path / "apart.tif")[0], np.tile(tile, (3, 4)), atol=1e-3)
    with rasterio.open(tmp_path / "apart.tif") as dataset:
        assert dataset.descriptions == ("height",) and dataset.units == ("m",) and dataset.scales == (1.0,)


def test_the_spread_over_tiles_is_that_of_the_four_at_a_pixel(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values = np.random.default_rng(1).uniform(0, 200, (1, 192, 224)).astype(np.float32)
    values += np.linspace(0, 50, 224, dtype=np.float32)
    path = write_raster(tmp_path / "in.tif", values, grid(192, 224))
    encoding = image_encoding("float32", 1, 0, 250)
    config = PredictConfig(**BLENDED, uncertainty=tmp_path / "apart.tif", uncertainty_by="tiles")
    predict(make_model(TileMean, encoding, statistics="tile"), path, tmp_path / "out.tif", config)
    apart = pixels(tmp_path / "apart.tif")[0]
    for row, col in ((64, 96), (70, 120), (96, 64)):
        tops, lefts = ([at // 32 * 32 - 32, at // 32 * 32] for at in (row, col))
        means = [values[0, top : top + 64, left : left + 64].mean() for top in tops for left in lefts]
        assert apart[row, col] == pytest.approx(np.std(means), rel=1e-3)
    predict(make_model(Identity, encoding), path, tmp_path / "same.tif", config, overwrite=True)
    assert np.nanmax(pixels(tmp_path / "apart.tif")) < 1e-5  # tiles that agree


def test_dropout_is_drawn_by_the_ground(tmp_path: Path, make_model: Callable[..., Path], photo: Path) -> None:
    model, found = make_model(Dropping, image_encoding()), []
    for number, more in enumerate(({"tile_size": 64}, {"tile_size": 112, "batch_size": 3}, BLENDED)):
        path = tmp_path / f"apart{number}.tif"
        config = PredictConfig(**more, uncertainty=path, uncertainty_by="dropout", dropout_samples=4)
        predict(model, photo, tmp_path / f"out{number}.tif", config)
        found.append(pixels(path))
    assert np.array_equal(found[0], found[1], equal_nan=True)
    assert np.allclose(found[0], found[2], atol=1e-4, equal_nan=True)
    shares = np.arange(5) / 4  # of samples that drop a pixel, and how often: 1 4 6 4 1 out of 16
    expected = 0.6 * np.sqrt(shares * (1 - shares)) * 255 / 2
    levels, counts = np.unique(np.round(found[0][np.isfinite(found[0])], 3), return_counts=True)
    assert np.allclose(levels, np.unique(np.round(expected, 3)), atol=2e-3)
    assert np.allclose(counts / counts.sum(), np.array([2, 8, 6]) / 16, atol=0.01)


def test_places_lose_the_same_features_in_any_input() -> None:
    network = nn.Sequential(nn.Conv2d(2, 5, 4, 4), nn.Dropout(0.3), nn.Dropout2d(0.5)).eval()
    nn.init.constant_(network[0].bias, 1.0)
    nn.init.zeros_(network[0].weight)
    dropout, source = GroundDropout(network, 2, 32), torch.zeros(2, 2, 32, 48)

    def run(sample: int, *corners: tuple[int, int]) -> np.ndarray:
        with torch.inference_mode(), dropout.drawn(sample, corners, 32):
            return network(source[: len(corners)]).numpy()

    one, two = run(0, (-16, 40)), run(0, (100, 100), (-8, 52))
    assert np.array_equal(one[0, :, 2:, 3:], two[1, :, :-2, :-3]) and not np.array_equal(two[0], two[1])
    assert not np.array_equal(one, run(1, (-16, 40))) and np.array_equal(one, run(0, (-16, 40)))
    kept = np.concatenate([run(sample, (0, 0)) for sample in range(200)])
    channels = (kept > 0).any(axis=(2, 3))
    assert channels.mean() == pytest.approx(0.5, abs=0.05)
    assert (kept > 0).mean() == pytest.approx(0.35, abs=0.04) and kept.mean() == pytest.approx(1, abs=0.1)
    assert (network(source) == 1).all()  # as before


def test_layers_that_are_not_run_through_are_none() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, source: torch.Tensor) -> torch.Tensor:
            return source

    assert not GroundDropout(Unused(), 3, 32)
    assert not GroundDropout(nn.Sequential(nn.Dropout(0.0)), 3, 32)


@pytest.mark.parametrize("way", ["d4", "tiles", "dropout"])
def test_shards_and_a_killed_run_give_the_pixels_of_one_process(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    class Wide(TileMean):
        """Depends on the tile and on its turn, and has dropout."""

        def __init__(self, **_: Any) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.2)

        def forward(self, source: torch.Tensor) -> torch.Tensor:
            tilted = source * torch.linspace(0, 1, source.shape[-1])
            return self.dropout(tilted.mean(dim=(2, 3), keepdim=True) + 0.3 * source)

    codes = class_map(530, 560)
    codes[0, :512, 512:] = 0  # a part without ground
    path = write_raster(tmp_path / "in.tif", codes, grid(530, 560), nodata=0)
    model = make_model(Wide, MAP, statistics="tile")

    def config(name: str, **more: Any) -> PredictConfig:
        files = {"confidence": tmp_path / f"{name}_sure.tif", "uncertainty": tmp_path / f"{name}_apart.tif"}
        few = {"dropout_samples": 2} if way == "dropout" else {}
        return PredictConfig(tile_size=128, overlap=0.5, **files, uncertainty_by=way, **few, **more)

    predict(model, path, tmp_path / "whole.tif", config("whole"))
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: 512)
    predict(model, path, tmp_path / "out.tif", config("out", shard="2/2"))
    with pytest.raises(ConfigError, match=r"another confidence \(made, now None\), uncertainty \(.*, now None\)"):
        predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=128, overlap=0.5))
    assert not list(tmp_path.glob("out_*"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        placed: list[Path] = []

        def dying(made: Path, name: Path) -> None:
            if placed:
                raise KeyboardInterrupt
            placed.append(name)
            Path(made).rename(name)

        patch.setattr(companions_module.shutil, "move", dying)
        predict(model, path, tmp_path / "out.tif", config("out"))
    assert (tmp_path / "out_sure.tif").exists() and not (tmp_path / "out.tif").exists()
    predict(model, path, tmp_path / "out.tif", config("out"))
    for name in ("", "_sure", "_apart"):
        one, other = pixels(tmp_path / f"whole{name}.tif"), pixels(tmp_path / f"out{name}.tif")
        assert np.array_equal(one, other, equal_nan=True), name
    assert not (tmp_path / "out.tif.parts").exists() and not list(tmp_path.glob(".*"))


def test_spread_of_backscatter_is_in_decibel(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    path = write_raster(tmp_path / "in.tif", np.zeros((1, 64, 64), np.uint8), grid(64, 64))
    for stored, backscatter in (("float32", "dB"), ("float32", "power"), ("uint16", "amplitude")):
        target = Encoding("sar", stored, (Band("VV", low=-40, high=-10),), backscatter=backscatter)  # type: ignore[arg-type]
        model = make_model(Ramps, image_encoding(bands=1), target)
        config = PredictConfig(tile_size=64, uncertainty=tmp_path / "apart.tif")
        predict(model, path, tmp_path / "out.tif", config, overwrite=True)
        assert pixels(tmp_path / "apart.tif")[0, 0, 0] == pytest.approx(0.5 * 15, rel=1e-4)
        with rasterio.open(tmp_path / "apart.tif") as dataset:
            assert dataset.units == ("dB",) and dataset.descriptions == ("VV",)


def test_what_cannot_be_had_is_said_before_any_work(
    tmp_path: Path, make_model: Callable[..., Path], photo: Path
) -> None:
    def refused(message: str, module: type[nn.Module] = Identity, **settings: Any) -> None:
        card = {"statistics": "tile"} if settings.get("norm_stats") else {}
        with pytest.raises((ConfigError, OutputError, RasterError), match=message) as error:
            predict(make_model(module, image_encoding(), **card), photo, tmp_path / "o.tif", PredictConfig(**settings))
        assert "\n" not in str(error.value) and not list(tmp_path.glob("o.*"))

    apart = tmp_path / "apart.tif"
    refused("the model makes image; leave --confidence out", confidence=apart)
    refused("tiles, but none overlap, expected half", uncertainty=apart, uncertainty_by="tiles")
    refused("overlap by 16, expected half", uncertainty=apart, uncertainty_by="tiles", tile_size=64, overlap=0.25)
    refused("the network has none; give --uncertainty-by d4", uncertainty=apart, uncertainty_by="dropout")
    refused("engine onnx leaves out", Dropping, uncertainty=apart, uncertainty_by="dropout", engine="onnx")
    refused("the ground as it lies, not turned", uncertainty=apart, uncertainty_by="d4", norm_stats="global")
    refused("is the name of two outputs", uncertainty=apart, seam_map=tmp_path / "apart.tiff")
    refused("is the name of two outputs", uncertainty=tmp_path / "o.tif")
    refused("is the input", uncertainty=photo)
    refused("give a name that ends in .tif", uncertainty=tmp_path / "apart.png")
    apart.write_bytes(b"")
    refused("apart.tif: exists; give another name or --overwrite", uncertainty=apart)
    with pytest.raises(ConfigError, match="there is no --uncertainty FILE"):
        PredictConfig(uncertainty_by="d4")
    for settings in ({"uncertainty_by": "d4"}, {"uncertainty_by": "tiles"}, {"uncertainty": None}):
        with pytest.raises(ConfigError, match="dropout_samples is for --uncertainty FILE over dropout; leave it out"):
            PredictConfig(**{"uncertainty": apart, "dropout_samples": 3} | settings)
    refused("which would be d4 here; leave it out", uncertainty=tmp_path / "more.tif", dropout_samples=3)
    with pytest.raises(ConfigError, match="dropout_samples is 1, expected at least 2"):
        PredictConfig(uncertainty=apart, uncertainty_by="dropout", dropout_samples=1)


def test_the_memory_of_a_part_counts_what_is_made_with_it(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    lattice, rgb = Lattice(256, 128), image_encoding()
    extra = image_encoding("float32")
    alone, more = column_bytes(lattice, rgb, rgb), column_bytes(lattice, rgb, rgb, [extra], 12)
    assert more - alone == 12 * 256 + 6 * 512 * 13


def test_an_area_a_grid_and_a_vector_layer(
    tmp_path: Path, make_model: Callable[..., Path], photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import geopandas
    from shapely.geometry import Polygon, box

    model, left, top = make_model(Small, image_encoding(), stride=64, field=None), 500_000.0, 5_300_000.0
    shape = Polygon([(left + 61, top - 51), (left + 330, top - 80), (left + 90, top - 240)])
    geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:32632").to_file(tmp_path / "aoi.gpkg")
    like = write_raster(tmp_path / "like.tif", np.zeros((1, 100, 90), np.uint8), grid(100, 90, left=left + 40))
    found = {}
    for name, more in {"whole": {}, "cut": {"aoi": tmp_path / "aoi.gpkg"}, "like": {"like": like}}.items():
        config = PredictConfig(**BLENDED, uncertainty=tmp_path / f"{name}_apart.tif", **more)
        predict(model, photo, tmp_path / f"{name}_out.tif", config)
        found[name] = pixels(tmp_path / f"{name}_apart.tif")
        assert found[name].shape == pixels(tmp_path / f"{name}_out.tif").shape
        assert np.array_equal(np.isnan(found[name]), np.isnan(pixels(tmp_path / f"{name}_out.tif")))
    with rasterio.open(tmp_path / "cut_apart.tif") as dataset:
        col, row = (round(at) for at in ~grid(150, 203).transform @ (dataset.transform.c, dataset.transform.f))
    cut = found["cut"]
    there = np.isfinite(cut)
    assert np.array_equal(cut[there], found["whole"][:, row : row + cut.shape[1], col : col + cut.shape[2]][there])
    assert found["like"].shape == (3, 100, 90)

    uses = geopandas.GeoDataFrame({"use": ["water", "road"]}, crs="EPSG:32632", geometry=[
        box(left, top - 200, left + 150, top), box(left + 150, top - 200, left + 260, top)
    ])  # fmt: skip
    uses.to_file(tmp_path / "uses.gpkg")
    config = PredictConfig(source_field="use", confidence=tmp_path / "sure.tif", uncertainty=tmp_path / "u.tif")
    predict(make_model(Identity, MAP), tmp_path / "uses.gpkg", tmp_path / "drawn.tif", config)
    chance = math.e / (math.e + 2)
    assert np.nanmin(pixels(tmp_path / "sure.tif")) == pytest.approx(chance, abs=1e-6)


def test_rasters_beside_kept_parts_are_those_beside_one_file(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_raster(tmp_path / "in.tif", class_map(530, 560), grid(530, 560), nodata=0)
    model = make_model(Sure, MAP)
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: 512)
    for name, keep in (("one.tif", False), ("kept.vrt", True)):
        files = {"confidence": tmp_path / f"{name}_sure.tif", "uncertainty": tmp_path / f"{name}_apart.tif"}
        config = PredictConfig(tile_size=256, **files, keep_parts=keep)
        if keep:
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(assembly_module, "leave_parts", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
                predict(model, path, tmp_path / name, config)
            assert files["confidence"].exists() and not (tmp_path / name).exists()
        predict(model, path, tmp_path / name, config)
    for name in ("", "_sure.tif", "_apart.tif"):
        one, other = (pixels(tmp_path / f"{made}{name}") for made in ("one.tif", "kept.vrt"))
        assert np.array_equal(one, other, equal_nan=True), name


def test_only_what_the_killed_run_placed_is_replaced_unasked(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "in.tif", np.zeros((3, 80, 80), np.uint8), grid(80, 80))
    model, output, other = make_model(Identity, image_encoding()), tmp_path / "out.tif", tmp_path / "other.tif"
    other.write_bytes(b"of somebody")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("geop2p.mosaic.assembly.write_style", killed)
        predict(model, scene, output, PredictConfig(tile_size=64, uncertainty=tmp_path / "unsure.tif"))
    assert (tmp_path / "unsure.tif").exists() and not output.exists()
    with pytest.raises(OutputError, match=r"other\.tif: exists"):
        predict(model, scene, output, PredictConfig(tile_size=64, uncertainty=other))
    with pytest.raises(RasterError, match="is the name of two outputs"):
        nested = tmp_path / "a" / ".." / "out.tif"
        predict(model, scene, output, PredictConfig(tile_size=64, uncertainty=nested))
    predict(model, scene, output, PredictConfig(tile_size=64, uncertainty=tmp_path / "unsure.tif"))
    assert output.exists() and other.read_bytes() == b"of somebody"


def test_no_raster_is_put_among_the_parts_which_are_removed(
    tmp_path: Path, make_model: Callable[..., Path], photo: Path
) -> None:
    model = make_model(Identity, image_encoding())
    for output, place, more in (
        ("o.tif", "o.tif.parts/apart.tif", {}),
        ("o.vrt", "o.vrt.parts/in/apart.tif", {"keep_parts": True}),
        ("o.vrt", "o_parts/apart.tif", {"keep_parts": True}),
    ):
        for name in ("uncertainty", "seam_map"):
            config = PredictConfig(**BLENDED, **more, **{name: tmp_path / place})
            with pytest.raises(RasterError, match=r"apart\.tif: lies in o.*parts, which is for the parts alone; give"):
                predict(model, photo, tmp_path / output, config)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("o")] == []
    config = PredictConfig(**BLENDED, uncertainty=tmp_path / "o_parts" / "apart.tif")
    predict(model, photo, tmp_path / "o.tif", config)  # no parts stay there
    assert (tmp_path / "o_parts" / "apart.tif").exists()


def test_a_place_where_nothing_can_be_written_is_refused_at_once(
    tmp_path: Path, make_model: Callable[..., Path], photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, there = make_model(Identity, image_encoding()), tmp_path / "there"
    there.mkdir()
    with (
        monkeypatch.context() as patch,
        pytest.raises(OutputError, match="there: nothing can be written there; is it read-only"),
    ):
        patch.setattr("os.access", lambda path, mode: Path(path) != there)
        predict(model, photo, tmp_path / "o.tif", PredictConfig(**BLENDED, uncertainty=there / "apart.tif"))
    assert not list(tmp_path.glob("o.tif*"))


def test_styles_that_a_kill_left_unfinished_are_removed(
    tmp_path: Path, make_model: Callable[..., Path], photo: Path
) -> None:
    left = [tmp_path / ".o.k2j3h4_a.qml", tmp_path / ".apart.aaaaaaaa.qml"]
    for path in left:
        path.touch()
    config = PredictConfig(**BLENDED, uncertainty=tmp_path / "apart.tif")
    predict(make_model(Identity, image_encoding()), photo, tmp_path / "o.tif", config)
    assert (tmp_path / "o.qml").exists() and not any(path.exists() for path in left)
