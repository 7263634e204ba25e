"""Norm statistics of the ground: tiles agree because they are normalised alike."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import Identity, grid, image_encoding, write_raster
from rasterio.windows import Window
from test_exact import holed
from torch import nn

import geop2p.mosaic.statistics as statistics_module
from geop2p import PredictConfig, predict
from geop2p.config import NormStats
from geop2p.errors import ConfigError, RasterError
from geop2p.models import GENERATORS
from geop2p.models.field import one_sided_field
from geop2p.models.moments import Field, GivenNorms
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.statistics import GroundStatistics, drawn_cells
from geop2p.mosaic.strips import NetworkInput
from geop2p.raster.aligned import aligned_reader
from geop2p.translator import Card, Translator

FLOATS = image_encoding("float32", 2, -1, 1)
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("unet", {"downs": 3, "width": 4, "dropout": 0.0}),
    "resnet": ("resnet", {"blocks": 6, "width": 2, "dropout": 0.0}),
    "resnet-9": ("resnet", {"blocks": 9, "width": 2, "dropout": 0.0}),
}


def translator_of(name: str, chip_size: int = 64) -> Translator:
    generator, arguments = NETWORKS[name]
    arguments = {"in_channels": 2, "out_channels": 2, "head": "tanh", "norm": "instance", **arguments}
    torch.manual_seed(0)
    network = GENERATORS[generator](**arguments).eval()
    field = one_sided_field(network, 2, network.stride, rows=max(network.stride, network.smallest // 2))
    return Translator(
        network,
        Card(generator, arguments, FLOATS, FLOATS, (2.0, 2.0), chip_size, network.stride, field, "tile", "pix2pix", {}),
    )


def uneven(rows: int, cols: int) -> np.ndarray:
    """Ground whose mean and contrast change from place to place, (2, rows, cols)."""
    noise = np.random.default_rng(0).normal(0, 1, (2, rows, cols))
    tone = np.linspace(-0.6, 0.6, cols)
    contrast = np.linspace(0.02, 0.3, rows)[:, None]
    return np.clip(tone + contrast * noise, -1, 1).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("statistics", ["global", "field"])
def test_shifted_tiles_agree(tmp_path: Path, name: str, statistics: NormStats) -> None:
    values, (_, valid) = uneven(150, 203), holed(150, 203)
    path = write_raster(tmp_path / "in.tif", values, grid(150, 203), mask=valid)
    results = {}
    for mode in ("tile", statistics):
        translator = translator_of(name)
        assert translator.card.field is not None
        halo = -(-translator.card.field // translator.card.stride) * translator.card.stride
        config = PredictConfig(tile_size=64 if mode == "tile" else 2 * halo + 32, norm_stats=mode)
        mosaic = Mosaic(translator, grid(150, 203), config, tmp_path)
        assert mosaic.is_exact == (mode != "tile")
        with aligned_reader(path, grid(150, 203), "image") as reader:
            window = Window(20, 10, 150, 120)
            first, there = mosaic.window(reader, window)
            second, _ = mosaic.window(reader, window, (8, 16))
        results[mode] = np.abs(first - second)[:, there].max()
        assert first[:, there].std(axis=1).min() > 0.01
    assert results[statistics] < 1e-4 < 1e-3 < results["tile"]


def test_shifted_tiles_of_a_unet_of_eight_levels_agree(tmp_path: Path) -> None:
    """Its lattices lie 256 pixels apart, its field is 765."""
    arguments = {"in_channels": 2, "out_channels": 2, "width": 1, "norm": "instance", "dropout": 0.0}
    torch.manual_seed(0)
    network, (_, valid), where = GENERATORS["unet"](**arguments).eval(), holed(60, 300), grid(60, 300)
    path = write_raster(tmp_path / "in.tif", uneven(60, 300), where, mask=valid)
    card = Card("unet", arguments, FLOATS, FLOATS, (2.0, 2.0), 256, network.stride, 765, "tile", "pix2pix", {})
    config = PredictConfig(tile_size=2 * 768 + 512, norm_stats="field")
    mosaic = Mosaic(Translator(network, card), where, config, tmp_path)
    assert mosaic.is_exact and network.stride == 256
    with aligned_reader(path, where, "image") as reader:
        window = Window(226, 0, 60, 60)
        first, there = mosaic.window(reader, window)
        assert mosaic.network_pixels == (256 + 2 * 768) * (512 + 2 * 768)
        second, _ = mosaic.window(reader, window, (256, 256))
    assert mosaic.network_pixels == (256 + 2 * 768) * (512 + 2 * 768) + 2 * (256 + 2 * 768) ** 2
    assert first[:, there].std(axis=1).min() > 0.01 and np.abs(first - second)[:, there].max() < 1e-4


def test_what_lies_in_a_hole_does_not_matter_to_the_statistics_of_a_cell() -> None:
    """Not in those that are measured, nor in those that the cell is normalised by on the way."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 3, 1), nn.InstanceNorm2d(3), nn.ReLU(), nn.InstanceNorm2d(3, affine=True), nn.Tanh())
    norms, source = GivenNorms(nn.Sequential(*layers, nn.InstanceNorm2d(3))), torch.randn(1, 2, 16, 16)
    valid = torch.ones(1, 1, 16, 16)
    valid[..., 10:] = 0
    expected = norms.measure(source[..., :10].contiguous(), valid[..., :10])
    source[..., 10:] = 50
    assert torch.allclose(norms.measure(source, valid), expected, atol=1e-5)


def test_a_field_of_one_cell_is_what_the_cell_makes_of_itself(tmp_path: Path) -> None:
    """A raster of the chip's size: its own statistics, whichever way they are taken."""
    values = uneven(64, 64)
    path = write_raster(tmp_path / "in.tif", values, grid(64, 64))
    made = {}
    for mode in ("tile", "global", "field"):
        translator = translator_of("resnet")
        mosaic = Mosaic(translator, grid(64, 64), PredictConfig(norm_stats=mode, overlap=0, tile_size=64), tmp_path)
        with aligned_reader(path, grid(64, 64), "image") as reader:
            made[mode], _ = mosaic.window(reader, Window(0, 0, 64, 64))
    assert np.allclose(made["tile"], made["global"], atol=1e-5)
    assert np.allclose(made["tile"], made["field"], atol=1e-5)


def test_a_field_follows_the_ground_where_one_set_for_all_does_not(tmp_path: Path) -> None:
    """Nearer to what chips of their own statistics make, on average."""
    values = uneven(256, 384)
    path = write_raster(tmp_path / "in.tif", values, grid(256, 384))
    own = translator_of("resnet")
    apart = {}
    for mode in ("global", "field"):
        config = PredictConfig(norm_stats=mode)
        mosaic = Mosaic(translator_of("resnet"), grid(256, 384), config, tmp_path / mode)
        (tmp_path / mode).mkdir()
        with aligned_reader(path, grid(256, 384), "image") as reader:
            made, _ = mosaic.window(reader, Window(0, 0, 384, 256))
        differences = []
        for row in range(0, 256, 64):
            for col in range(0, 384, 64):
                chip = np.s_[:, row : row + 64, col : col + 64]
                alone = own.translate(torch.from_numpy(values[chip])[None])[0].numpy()
                differences.append(np.abs(alone - made[chip])[:, 24:40, 24:40].mean())
        apart[mode] = np.mean(differences)
    assert apart["field"] < 0.5 * apart["global"]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 2), (7, 1)])
def test_any_feature_map_takes_given_statistics(shape: tuple[int, int]) -> None:
    """Also one of 1 x 1, which has no variance of its own."""
    network = nn.Sequential(nn.InstanceNorm2d(3, affine=True))
    norms = GivenNorms(network)
    assert norms.channels == 3
    mean, square = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 8.0, 13.0])
    moments = torch.stack([mean, square]).double()[None, :, :, None, None].expand(2, 2, 3, 2, 2)
    zero = torch.zeros(2, dtype=torch.float64)
    features = torch.randn(2, 3, *shape)
    with norms.given(Field(moments, zero, zero, 16.0, (32, 32))):
        found = network(features)
    expected = (features - mean[:, None, None]) / torch.tensor([1.0, 4.0, 4.0]).add(1e-5).sqrt()[:, None, None]
    assert torch.allclose(found, expected, atol=1e-5)


def test_moments_are_interpolated_between_their_places() -> None:
    norms = GivenNorms(nn.Sequential(nn.InstanceNorm2d(1)))
    table = torch.zeros(1, 2, 1, 1, 3, dtype=torch.float64)
    table[0, 0, 0, 0] = torch.tensor([0.0, 1.0, 5.0])  # means; the squares leave no variance below 0
    zero = torch.zeros(1, dtype=torch.float64)
    with norms.given(Field(table, zero, zero + 2.0, 4.0, (4, 12))):  # places at columns 2, 6 and 10
        found = norms.statistics(torch.zeros(1, 1, 2, 12), 0)
    assert found is not None
    mean, variance = found
    assert torch.allclose(
        mean[0, 0, 0, [0, 1, 3, 5, 7, 9, 11]], torch.tensor([0, 0, 0.375, 0.875, 2.5, 4.5, 5]).double()
    )
    assert (variance >= 0).all() and torch.equal(mean[0, 0, 0], mean[0, 0, 1])


def test_moments_weigh_by_valid_ground() -> None:
    norms = GivenNorms(network := nn.Sequential(nn.InstanceNorm2d(1)))
    source = torch.zeros(1, 1, 4, 4)
    source[..., :2] = 3.0
    valid = torch.zeros(1, 1, 4, 4)
    valid[..., :1] = 1.0
    assert norms.measure(source, valid).flatten().tolist() == [3.0, 9.0]
    assert norms.measure(source, torch.ones(1, 1, 4, 4)).flatten().tolist() == [1.5, 4.5]
    assert torch.allclose(network(source), nn.InstanceNorm2d(1)(source))  # nothing given: its own


class OneNorm(Identity):
    """A network that is an instance norm: what it measures of a cell are the moments of the ground."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(2)

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.norm(source)
        return made


SIDE = 32
# Valid shares of cells: two hold too little to say something.
SHARES = np.array([[1.0, 0.5, 0.0, 0.25], [0.1, 1.0, 0.75, 1.0], [0.3, 1.0, 1.0, 0.9]])


def patchy(shares: np.ndarray = SHARES) -> tuple[np.ndarray, np.ndarray]:
    """Values (2, rows, cols) and valid pixels of cells of 32 pixels, each of its own tone, of these valid shares."""
    draw, (rows, cols) = np.random.default_rng(0), np.array(shares.shape) * SIDE
    tone = draw.uniform(-0.6, 0.6, (2, *shares.shape)).repeat(SIDE, 1).repeat(SIDE, 2)
    values = (tone + draw.normal(0, 0.1, (2, rows, cols))).clip(-1, 1).astype(np.float32)
    there = shares.repeat(SIDE, 0).repeat(SIDE, 1) * SIDE
    return values, np.arange(rows)[:, None] % SIDE < np.floor(there)


def moments(values: np.ndarray) -> np.ndarray:
    """Means of x and of x² (2, channels) of pixels (channels, pixels)."""
    exact = values.astype(np.float64)
    return np.stack([exact.mean(axis=1), np.square(exact).mean(axis=1)])


def cells_in(folder: Path) -> dict[tuple[int, int], np.ndarray]:
    """The moments (2, channels) of the cells that were kept, by row and column."""
    files = (folder / "norm_cells").glob("r*/c*.f64")
    return {(int(file.parent.name[1:]), int(file.stem[1:])): np.fromfile(file).reshape(2, -1) for file in files}


@pytest.fixture
def measured(tmp_path: Path, make_model: Callable[..., Path]) -> tuple[np.ndarray, np.ndarray, Path, Translator]:
    """Patchy ground: its values, its valid pixels, the raster of both, and what measures it."""
    values, valid = patchy()
    stored = np.where(valid, values, 9).astype(np.float32)
    path = write_raster(tmp_path / "in.tif", stored, grid(*valid.shape), mask=valid)
    return values, valid, path, Translator.load(make_model(OneNorm, FLOATS, chip_size=SIDE))


def test_the_moments_of_the_raster_are_those_of_its_valid_pixels(
    tmp_path: Path, measured: tuple[np.ndarray, np.ndarray, Path, Translator]
) -> None:
    """Of those cells that hold enough to say something."""
    values, valid, path, translator = measured
    where = grid(*valid.shape)
    statistics = GroundStatistics(translator, where, False, tmp_path)
    with aligned_reader(path, where, "image") as reader:
        tile = Window(0, 0, SIDE, SIDE)
        made = statistics.translate(torch.zeros(1, 2, SIDE, SIDE), [tile], NetworkInput(reader, FLOATS).look)
    enough = (SHARES >= 0.25).repeat(SIDE, 0).repeat(SIDE, 1)
    expected = moments(values[:, valid & enough])
    assert np.allclose(np.fromfile(tmp_path / "norm_cells" / "all.f64").reshape(2, 2), expected, atol=1e-6)
    variance = expected[1] - np.square(expected[0])
    assert np.allclose(made[0, :, 0, 0], -expected[0] / np.sqrt(variance + 1e-5), atol=1e-4)
    assert not np.allclose(moments(values[:, valid]), expected, atol=1e-4)


def test_the_statistics_of_a_raster_are_pooled_over_32_of_its_cells(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    values, _ = patchy(np.ones((7, 7)))
    path = write_raster(tmp_path / "in.tif", values, grid(7 * SIDE, 7 * SIDE))
    looked: list[tuple[int, int]] = []
    measured = GroundStatistics._measured

    def watched(self: GroundStatistics, row: int, col: int, look: Any) -> Any:
        looked.append((row, col))
        return measured(self, row, col, look)

    monkeypatch.setattr(GroundStatistics, "_measured", watched)
    statistics = GroundStatistics(
        Translator.load(make_model(OneNorm, FLOATS, chip_size=SIDE)), grid(224, 224), False, tmp_path
    )
    with aligned_reader(path, grid(224, 224), "image") as reader:
        statistics.translate(
            torch.zeros(1, 2, SIDE, SIDE), [Window(0, 0, SIDE, SIDE)], NetworkInput(reader, FLOATS).look
        )
    assert len(looked) == len(set(looked)) == 32
    assert len({row for row, _ in looked}) == len({col for _, col in looked}) == 7  # drawn from all over the raster
    cells = [
        values[:, row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE].reshape(2, -1) for row, col in looked
    ]
    found = np.fromfile(tmp_path / "norm_cells" / "all.f64").reshape(2, 2)
    assert np.allclose(found, np.mean([moments(cell) for cell in cells], axis=0), atol=1e-6)


def test_so_many_cells_are_looked_at_for_ground(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ground in the sixth cell that is drawn, and nowhere else."""
    row, col = drawn_cells((7, 7))[5]
    shares = np.zeros((7, 7))
    shares[row, col] = 1
    values, valid = patchy(shares)
    path = write_raster(tmp_path / "in.tif", values, grid(224, 224), mask=valid)
    model = make_model(OneNorm, FLOATS, statistics="tile", chip_size=SIDE)
    config = PredictConfig(norm_stats="global", tile_size=64, overlap=0)
    monkeypatch.setattr(statistics_module, "MOST_LOOKS", 5)
    with pytest.raises(RasterError, match="no window of 32 pixels out of 5 has 25 % valid ground"):
        predict(model, path, tmp_path / "out.tif", config)
    monkeypatch.setattr(statistics_module, "MOST_LOOKS", 6)
    predict(model, path, tmp_path / "other.tif", config)


def test_cells_without_ground_take_the_statistics_of_the_raster(
    tmp_path: Path, measured: tuple[np.ndarray, np.ndarray, Path, Translator]
) -> None:
    """Those of no neighbour, and the same in whichever order cells are asked for."""
    values, valid, path, translator = measured
    where = grid(*valid.shape)
    for name, starts in (("forth", (0, 64)), ("back", (64, 0))):
        statistics = GroundStatistics(translator, where, True, tmp_path / name)
        with aligned_reader(path, where, "image") as reader:
            for col in starts:
                tile = Window(col, 0, 64, 96)
                statistics.translate(torch.zeros(1, 2, 96, 64), [tile], NetworkInput(reader, FLOATS).look)
    forth, back = cells_in(tmp_path / "forth"), cells_in(tmp_path / "back")
    everywhere = np.fromfile(tmp_path / "forth" / "norm_cells" / "all.f64").reshape(2, 2)
    assert set(forth) == set(back) == set(np.ndindex(SHARES.shape))
    for (row, col), found in forth.items():
        here = np.s_[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE]
        expected = moments(values[:, *here][:, valid[here]]) if SHARES[row, col] >= 0.25 else everywhere
        assert np.allclose(found, expected, atol=1e-6) and np.array_equal(found, back[row, col])


def test_a_shard_measures_the_cells_that_it_touches_and_a_repeated_run_none(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geop2p.mosaic.mosaic.choose_part_side", lambda *_: 128)
    values, _ = patchy(np.ones((4, 16)))
    path = write_raster(tmp_path / "in.tif", values, grid(128, 512))
    model = make_model(OneNorm, FLOATS, statistics="tile", chip_size=SIDE)
    asked: list[tuple[int, int]] = []
    measured = GroundStatistics._measured

    def watched(self: GroundStatistics, row: int, col: int, look: Any) -> Any:
        asked.append((row, col))
        return measured(self, row, col, look)

    monkeypatch.setattr(GroundStatistics, "_measured", watched)
    config = PredictConfig(norm_stats="field", tile_size=64, overlap=0.25, shard="2/4")
    predict(model, path, tmp_path / "out.tif", config)
    folder = tmp_path / "out.tif.parts"
    kept = cells_in(folder)
    # Tiles of 48 + 16 pixels that touch columns 128 to 255 cover 80 to 288, with half a cell around: cells 2 to 9.
    assert set(kept) == set(asked) == {(row, col) for row in range(4) for col in range(2, 10)}
    assert len(asked) == len(kept) and not (folder / "norm_cells" / "all.f64").exists()
    before = {file: file.stat().st_mtime_ns for file in folder.glob("norm_cells/*/*")}
    (part,) = folder.glob("part_*.tif")
    pixels = part.read_bytes()
    part.unlink()
    asked.clear()
    predict(model, path, tmp_path / "out.tif", config)
    assert not asked and {file: file.stat().st_mtime_ns for file in folder.glob("norm_cells/*/*")} == before
    assert part.read_bytes() == pixels


@pytest.mark.parametrize("statistics", ["global", "field"])
def test_shards_and_nodata_take_the_same_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statistics: NormStats
) -> None:
    import geop2p.mosaic.mosaic as mosaic_module

    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: 256)
    measured = GroundStatistics._measured
    values, valid = uneven(300, 530), np.ones((300, 530), bool)
    valid[:, 120:330] = False
    model = tmp_path / "model.safetensors"
    translator_of("unet").save(model)
    outputs = []
    for junk in (0.0, 0.9):
        path = write_raster(
            tmp_path / f"{junk}.tif", np.where(valid, values, junk).astype(np.float32), grid(300, 530), mask=valid
        )
        config = {"norm_stats": statistics, "tile_size": 128}
        result = predict(model, path, tmp_path / "whole.tif", PredictConfig(**config), overwrite=True)
        assert result.norm_stats == statistics and result.mode == "exact"
        assert result.tile_mismatch is not None and result.tile_mismatch < 1e-5
        for number in (3, 1, 2):
            predict(model, path, tmp_path / f"{junk}_out.tif", PredictConfig(**config, shard=f"{number}/3"))
            if statistics == "global":  # the others take what the first one found
                monkeypatch.setattr(GroundStatistics, "_measured", None)
        monkeypatch.setattr(GroundStatistics, "_measured", measured)
        predict(model, path, tmp_path / f"{junk}_out.tif", PredictConfig(**config))
        for name in ("whole.tif", f"{junk}_out.tif"):
            with rasterio.open(tmp_path / name) as dataset:
                outputs.append(dataset.read())
    assert np.array_equal(np.isnan(outputs[0][0]), ~valid)
    for other in outputs[1:]:
        assert np.array_equal(outputs[0], other, equal_nan=True)


def test_statistics_that_are_not_to_be_had(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    values, valid = uneven(100, 90), np.zeros((100, 90), bool)
    valid[::11, ::9] = True
    path = write_raster(tmp_path / "in.tif", values, grid(100, 90), mask=valid)
    model = tmp_path / "model.safetensors"
    translator_of("resnet").save(model)
    with pytest.raises(RasterError, match="no window of 64 pixels has 25 % valid ground"):
        predict(model, path, tmp_path / "out.tif", PredictConfig(norm_stats="global"))

    class Grouped(Identity):
        def __init__(self, **_: Any) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(1, 2)

    grouped = make_model(Grouped, FLOATS, statistics="tile")
    with pytest.raises(ConfigError, match="are for instance norm: statistics of a GroupNorm cannot be given"):
        predict(grouped, path, tmp_path / "out2.tif", PredictConfig(norm_stats="field"))
    caplog.set_level(logging.INFO)
    result = predict(make_model(Identity, FLOATS), path, tmp_path / "out3.tif", PredictConfig(norm_stats="field"))
    assert result.norm_stats == "none" and "the network uses no statistics of its input" in caplog.text
