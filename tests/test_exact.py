"""Rule 2: where the network allows it, the mosaic is what the network makes of the whole raster at once."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import Identity, TileMean, grid, image_encoding, stir_norms, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window
from torch import nn

from geop2p import PredictConfig, predict
from geop2p.evaluation.offsets import error_by_position
from geop2p.models import GENERATORS
from geop2p.models.field import one_sided_field
from geop2p.models.layers import uses_input_statistics
from geop2p.models.memory import LiveBytes, activation_bytes
from geop2p.models.positional_noise import ground_noise
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.plan import column_bytes
from geop2p.mosaic.strips import FILL_DEPTH
from geop2p.mosaic.tiles import BASE, BLEND_OVERLAP, GOOD_COST, WORKSPACE, choose_part_side, choose_tiles
from geop2p.mosaic.uncertainty import VariantSpread, turned_tiles, variant_bytes
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.borders import reflect_indices
from geop2p.raster.filling import fill_from_nearest
from geop2p.translator import Card, Translator

FLOATS = image_encoding("float32", 2, -1, 1)
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("unet", {"norm": "batch", "downs": 3, "width": 4}),
    "unet-resize": ("unet", {"norm": "batch", "downs": 3, "width": 4, "up": "resize", "padding": "reflect"}),
    "unet-shuffle": ("unet", {"norm": "none", "downs": 2, "width": 4, "up": "pixelshuffle", "padding": "replicate"}),
    "encoder-decoder": ("unet", {"norm": "batch", "downs": 3, "width": 4, "skips": False}),
    "resnet": ("resnet", {"norm": "batch", "blocks": 6, "width": 2}),
    "noisy": ("unet", {"norm": "batch", "downs": 3, "width": 4, "in_channels": 5, "noise": 3}),
}


def translator_of(name: str) -> Translator:
    """A network with weights that matter: random ones, with norm statistics of another distribution."""
    generator, arguments = NETWORKS[name]
    torch.manual_seed(0)
    arguments = {"in_channels": 2, "out_channels": 2, "head": "tanh", **arguments}
    network = GENERATORS[generator](**arguments)
    stir_norms(network)
    rows = max(network.stride, network.smallest // 2)
    field = one_sided_field(network.eval(), network.in_channels, network.stride, rows=rows)
    statistics = "tile" if uses_input_statistics(network) else "none"
    card = Card(
        generator, arguments, FLOATS, FLOATS, (2.0, 2.0), 64, network.stride, field, statistics, "pix2pix", {}
    )  # fmt: skip
    return Translator(network, card)


def at_once(translator: Translator, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Inference on the raster extended by reflection and filled in its holes, in one piece."""
    card = translator.card
    assert card.field is not None
    margin = -(-max(card.field, FILL_DEPTH) // card.stride) * card.stride
    rows, cols = values.shape[1:]
    at = np.ix_(
        reflect_indices(-margin, rows + margin + -rows % card.stride, rows),
        reflect_indices(-margin, cols + margin + -cols % card.stride, cols),
    )
    encoded = card.source.encode(values[:, at[0], at[1]], valid[at])
    filled = fill_from_nearest(encoded, valid[at], FILL_DEPTH)
    row, col = (place - margin for place in grid(rows, cols).pixel_on_ground)
    noise = ground_noise(row, col, filled.shape[1:], card.noise)
    made = translator.translate(torch.cat([torch.from_numpy(filled), noise])[None])[0].numpy()
    return made[:, margin : margin + rows, margin : margin + cols]


def holed(rows: int, cols: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random values (2, rows, cols) and a valid mask with a hole and single pixels missing."""
    generator = np.random.default_rng(seed)
    values = generator.uniform(-1, 1, (2, rows, cols)).astype(np.float32)
    valid = generator.random((rows, cols)) > 0.01
    valid[rows // 3 : rows // 2, cols // 4 : cols // 2] = False
    return values, valid


@pytest.mark.parametrize("name", NETWORKS)
def test_lattices_agree_with_each_other_and_with_the_whole_raster(tmp_path: Path, name: str) -> None:
    translator = translator_of(name)
    card = translator.card
    assert card.statistics == "none" and card.field is not None
    values, valid = holed(150, 203)
    path = write_raster(tmp_path / "in.tif", values, grid(150, 203), mask=valid)
    whole = at_once(translator, values, valid)
    halo = -(-card.field // card.stride) * card.stride
    tile = 2 * halo + max(2 * card.stride, 32)
    mosaic = Mosaic(translator, grid(150, 203), PredictConfig(tile_size=tile), tmp_path)
    assert mosaic.is_exact
    with aligned_reader(path, grid(150, 203), "image") as reader:
        for shift, window in (
            (0, Window(0, 0, 203, 150)),
            (card.stride, Window(0, 0, 203, 150)),
            (0, Window(37, 61, 70, 80)),
        ):
            made, there = mosaic.window(reader, window, (shift, 2 * shift))
            rows, cols = window.toslices()
            assert np.array_equal(there, valid[rows, cols])
            apart = np.abs(made - whole[:, rows, cols])[:, there]
            assert apart.max() < 1e-4
            assert made[:, there].std() > 0.01  # it has something to tell


def test_a_margin_that_is_too_small_is_seen(tmp_path: Path) -> None:
    """The test above can fail: half the field is not enough."""
    translator = translator_of("resnet")
    assert translator.card.field is not None
    values, valid = holed(150, 203)
    path = write_raster(tmp_path / "in.tif", values, grid(150, 203), mask=valid)
    whole = at_once(translator, values, valid)
    translator.card = Card(**{**vars(translator.card), "field": 8})
    mosaic = Mosaic(translator, grid(150, 203), PredictConfig(tile_size=64), tmp_path)
    with aligned_reader(path, grid(150, 203), "image") as reader:
        made, there = mosaic.window(reader, Window(0, 0, 203, 150))
    assert np.abs(made - whole)[:, there].max() > 1e-3


@given(
    rows=st.integers(1, 90),
    cols=st.integers(1, 90),
    tile=st.integers(8, 14),
    shift=st.integers(0, 5),
    seed=st.integers(0, 9),
)
@settings(max_examples=25)
def test_any_size_any_tile_any_shift(
    tmp_path_factory: pytest.TempPathFactory, rows: int, cols: int, tile: int, shift: int, seed: int
) -> None:
    translator = translator_of("unet-shuffle")
    values, valid = holed(rows, cols, seed)
    folder = tmp_path_factory.mktemp("exact")
    path = write_raster(folder / "in.tif", values, grid(rows, cols), mask=valid)
    mosaic = Mosaic(translator, grid(rows, cols), PredictConfig(tile_size=8 * tile), folder)
    assert mosaic.is_exact
    with aligned_reader(path, grid(rows, cols), "image") as reader:
        made, there = mosaic.window(reader, Window(0, 0, cols, rows), (4 * shift, 8))
    if there.any():
        assert np.abs(made - at_once(translator, values, valid))[:, there].max() < 1e-4


def save(tmp_path: Path, translator: Translator) -> Path:
    path = tmp_path / "model.safetensors"
    translator.save(path)
    return path


def test_predict_is_exact_where_it_can_be_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    translator = translator_of("unet-resize")
    values, valid = holed(700, 600)
    path = write_raster(tmp_path / "in.tif", values, grid(700, 600), mask=valid)
    result = predict(save(tmp_path, translator), path, tmp_path / "out.tif", PredictConfig(tile_size=304))
    assert result.mode == "exact" and "exact: tiles of" in caplog.text
    assert result.tile_mismatch is not None and result.tile_mismatch < 1e-5
    assert result.seam_index == pytest.approx(1, abs=0.2)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        made, tags = dataset.read(), dataset.tags()
    assert np.abs(made - at_once(translator, values, valid))[:, valid].max() < 1e-4
    assert tags["GEOP2P_MODE"] == "exact" and int(tags["GEOP2P_HALO"]) >= (translator.card.field or 0)


def test_the_memory_decides_the_tiles(tmp_path: Path) -> None:
    translator = translator_of("unet-resize")
    sizes = {}
    for memory in ("20MB", "300MB", "2GB"):
        tiles = choose_tiles(translator, PredictConfig(memory=memory), "none", 30_000)
        sizes[memory] = tiles.lattice.size if tiles.mode == "exact" else 0
    assert sizes["20MB"] < sizes["300MB"] < sizes["2GB"] == 2048
    assert sizes["300MB"] % 512 == 0


@pytest.mark.parametrize("memory", ["100MB", "200MB", "300MB", "500MB", "2GB"])
@pytest.mark.parametrize("config", [{}, {"overlap": 0.5}, {"overlap": 0.5, "tile_size": 2048, "batch_size": 4}])
def test_tiles_and_parts_fit_the_memory_or_a_line_says_what_they_take(
    caplog: pytest.LogCaptureFixture, memory: str, config: dict[str, Any]
) -> None:
    translator, settings = translator_of("unet-resize"), PredictConfig(memory=memory, **config)
    tiles = choose_tiles(translator, settings, "none", 30_000)
    a_column = column_bytes(tiles.lattice, translator.card.source, translator.card.target)
    side = choose_part_side(tiles, settings, a_column)
    a_pixel = activation_bytes(translator.generator, translator.card.source.channels, 128)
    network = tiles.batch_size * a_pixel * tiles.lattice.network_size**2
    fits = BASE + WORKSPACE * network + side * a_column <= settings.memory_bytes
    assert fits == ("is not kept" not in caplog.text)
    assert fits or memory == "100MB" or "batch_size" in config  # what was asked for is not made smaller


@pytest.fixture(scope="module")
def resnet_of_nine_blocks() -> Translator:
    """The default ResNet with tile-independent norms."""
    arguments = {"in_channels": 3, "out_channels": 3, "blocks": 9, "norm": "batch"}
    network = GENERATORS["resnet"](**arguments).eval()
    field, stride = one_sided_field(network, 3, network.stride, rows=network.smallest), network.stride
    colors = image_encoding()
    return Translator(
        network, Card("resnet", arguments, colors, colors, (2.0, 2.0), 256, stride, field, "none", "", {})
    )


@pytest.mark.parametrize(("memory", "is_enough"), [("1GB", False), (PredictConfig().memory, True), ("8GB", True)])
def test_halos_cost_half_of_the_network_at_most_or_a_line_asks_for_more_memory(
    resnet_of_nine_blocks: Translator, caplog: pytest.LogCaptureFixture, memory: str, is_enough: bool
) -> None:
    caplog.set_level(logging.INFO)
    tiles = choose_tiles(resnet_of_nine_blocks, PredictConfig(memory=memory), "none", 30_000)
    lattice = tiles.lattice
    assert tiles.mode == "exact" and lattice.halo == 84
    assert ((lattice.network_size / lattice.size) ** 2 <= 1.5 == GOOD_COST) == is_enough
    assert ("more --memory makes them larger" in caplog.text) == (not is_enough)


def test_the_network_sees_at_most_half_as_much_again(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    path = write_raster(tmp_path / "in.tif", np.full((1, 1000, 900), 90, np.uint8), grid(1000, 900))
    model = make_model(Identity, image_encoding(bands=1), field=84, stride=4)
    result = predict(model, path, tmp_path / "out.tif")
    assert result.mode == "exact" and 1 < result.network_px_per_px <= 1.5


def test_blended_tiles_share_a_pass_as_the_memory_allows() -> None:
    translator = translator_of("unet-resize")
    tiles = choose_tiles(translator, PredictConfig(overlap=0.5, tile_size=512), "none", 30_000)
    a_tile = tiles.network_bytes / tiles.batch_size
    columns = 512 * column_bytes(tiles.lattice, translator.card.source, translator.card.target)
    for room, expected in ((0.5, 1), (2.5, 2), (3.5, 3), (99, 4)):
        memory = f"{(BASE + columns + room * a_tile) / 1e6:.3f}MB"
        config = PredictConfig(memory=memory, overlap=0.5, tile_size=512)
        assert choose_tiles(translator, config, "none", 30_000).batch_size == expected


@pytest.mark.parametrize("channels", [1, 4])
def test_what_turned_tiles_hold_beside_the_network_counts(channels: int) -> None:
    """Sums and the turned source, while the network makes another translation; the tile itself is an activation."""
    target, held = image_encoding(bands=channels), list[int]()
    with LiveBytes() as counter:
        sources, made = torch.zeros(2, 3, 32, 32), torch.zeros(2, channels, 32, 32)

        def translate(turned: torch.Tensor) -> torch.Tensor:
            held.append(counter.held.now - sources.nbytes)
            return turned[:, :1].repeat(1, channels, 1, 1)

        VariantSpread(target, turned_tiles).measure(made, sources, [], translate)
    assert len(held) == 7 and max(held) == variant_bytes(3, target) * 2 * 32 * 32


def test_a_raster_of_the_spread_leaves_less_memory_to_the_tiles(tmp_path: Path) -> None:
    translator, plain = translator_of("unet-resize"), PredictConfig(overlap=0.5, tile_size=256)
    spread = PredictConfig(overlap=0.5, tile_size=256, uncertainty=tmp_path / "spread.tif")
    one, other = (choose_tiles(translator, settings, "none", 30_000) for settings in (plain, spread))
    pixels, a_pixel = one.batch_size * 256**2, variant_bytes(translator.card.in_channels, translator.card.target)
    assert one.lattice == other.lattice and other.network_bytes - one.network_bytes == a_pixel * pixels > 0


def test_activations_are_counted_while_they_are_held() -> None:
    layers = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)).eval()
    held = activation_bytes(layers, 2, 32)
    assert held == 4 * (2 + 8 + 8)  # the input stays held outside; at the second layer 8 and 1


WHY = {
    "an overlap was given": ({}, PredictConfig(overlap=0.25)),
    "normalises every tile by its own statistics": ({"statistics": "tile"}, PredictConfig()),
    "field is unbounded": ({"field": None}, PredictConfig()),
    "needs a margin of 766, a tile has 256": ({"field": 765, "stride": 2}, PredictConfig(tile_size=256)),
    "too much for tiles that fit into 2GB": ({"field": 765, "stride": 256, "chip_size": 256}, PredictConfig()),
}


@pytest.mark.parametrize("reason", WHY)
def test_blending_is_explained(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    card, config = WHY[reason]
    values = np.zeros((3, 70, 70), np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(70, 70))
    result = predict(make_model(TileMean, image_encoding(), **card), path, tmp_path / "out.tif", config)
    assert result.mode == "blend" and reason in caplog.text


class Blur(Identity):
    """A mean over 17 x 17 pixels that takes what lies beyond the tile for 0."""

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(source, 17, 1, 8)


def test_neither_the_rim_of_a_hole_nor_the_border_of_the_raster_is_darker(
    tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    values = np.full((1, 200, 230), 240.0, np.float32)
    valid = np.ones((200, 230), bool)
    valid[60:130, 90:150] = False
    path = write_raster(tmp_path / "in.tif", np.where(valid, values, 0), grid(200, 230), mask=valid)
    model = make_model(Blur, image_encoding("float32", 1), field=8)
    predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=96))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        made = dataset.read(1)
    assert np.array_equal(np.isnan(made), ~valid)
    assert np.abs(made[valid] - 240).max() < 1e-3


class BadCorners(Identity):
    """A generator that is wrong at the border of what it sees."""

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        away = torch.ones_like(source)
        away[..., 8:-8, 8:-8] = 0
        return source * (1 - away) + away * 0.2


@pytest.mark.parametrize(
    ("overlap", "low", "high"), [(0.0, 2.0, 1e9), (BLEND_OVERLAP, 0.95, 1.05), (None, 0.999, 1.001)]
)
def test_corners_over_centre_tell_bad_tiles_from_good_ones(
    tmp_path: Path, make_model: Callable[..., Path], overlap: float | None, low: float, high: float
) -> None:
    """Every pixel takes every place, so the ground cancels out: what is left is the tile."""
    where = grid(200, 210)
    values = np.random.default_rng(0).uniform(0, 255, (1, 200, 210)).astype(np.float32)
    truth = values + 10
    truth[:, :100] += 20  # errors that belong to the ground
    source, target = (write_raster(tmp_path / f"{n}.tif", v, where) for n, v in (("in", values), ("real", truth)))
    model = make_model(BadCorners, image_encoding("float32", 1), field=8)
    mosaic = Mosaic(Translator.load(model), where, PredictConfig(tile_size=64, overlap=overlap), tmp_path)
    windows = [Window(col, row, 70, 50) for row in (0, 50, 150) for col in (0, 70, 140)]
    with aligned_reader(source, where, "image") as reader, aligned_reader(target, where, "image") as real:
        ratio = error_by_position(mosaic, reader, real, windows).corner_ratio()
    assert ratio.value is not None and ratio.low is not None and ratio.high is not None
    assert low < ratio.low <= ratio.value <= ratio.high < high
