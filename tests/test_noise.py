"""Noise of the ground: the same place has the same, in whatever tile, process or raster it lies."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from conftest import grid, write_raster
from hypothesis import given
from hypothesis import strategies as st

from geop2p import PredictConfig, TileConfig, TrainConfig, export, predict, tile, train
from geop2p.config import NormStats
from geop2p.errors import ConfigError
from geop2p.models import GENERATORS
from geop2p.models.positional_noise import drawn_noise, ground_noise, on_ground_of_its_own
from geop2p.raster.grid import Grid
from geop2p.tiling.chips import ChipSet
from geop2p.training.data import ChipArrays
from geop2p.training.feeding import encode_batch
from geop2p.training.recipes import recipe_of
from geop2p.training.validation import translate_chips
from geop2p.translator import Translator, read_card

OCTAVES = 3
SMALL = ("noise=2", "downs=3", "patch=16")
TINY = TrainConfig(recipe="pix2pix-geo", steps=2, width=2, batch_size=4, device="cpu", set=SMALL)


@given(st.integers(-(10**8), 10**8), st.integers(-(10**8), 10**8), st.integers(0, 40), st.integers(0, 40))
def test_windows_of_the_ground_agree(row: int, col: int, down: int, right: int) -> None:
    whole = ground_noise(row, col, (50, 60), OCTAVES)
    part = ground_noise(row + down, col + right, (50 - down, 60 - right), OCTAVES)
    assert torch.equal(part, whole[:, down:, right:])


def test_octaves_are_noise_of_squares_that_lie_on_the_ground() -> None:
    noise = ground_noise(-3, 5, (512, 512), 4)
    assert noise.shape == (4, 512, 512) and noise.dtype == torch.float32
    for octave, plane in enumerate(noise.numpy()):
        side = 2**octave
        assert plane.mean() == pytest.approx(0, abs=0.005 * side) and plane.std() == pytest.approx(1, abs=0.005 * side)
        rows, cols = (np.arange(512) - 3) // side, (np.arange(512) + 5) // side
        for axis, places in ((0, rows), (1, cols)):
            steps = np.abs(np.diff(plane, axis=axis)).max(axis=1 - axis)
            assert ((steps > 0) == (np.diff(places) > 0)).all()
        ends = plane[::side, ::side]
        for axis in (0, 1):
            neighbours = np.stack([ends.take(range(60), axis), ends.take(range(1, 61), axis)]).reshape(2, -1)
            assert abs(np.corrcoef(neighbours)[0, 1]) < 0.05
    assert np.abs(np.corrcoef(noise.reshape(4, -1).numpy()) - np.eye(4)).max() < 0.05


def test_drawn_noise_is_of_the_same_kind_and_as_seeded() -> None:
    like = torch.zeros(3, 2, 96, 128)

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return drawn_noise(like, OCTAVES)

    one = draw(0)
    assert one.shape == (3, OCTAVES, 96, 128) and torch.equal(one, draw(0)) and not torch.equal(one, draw(1))
    assert not torch.equal(one[0], one[1])
    starts = set()
    for seed in range(20):
        plane = draw(seed)[0, 2].numpy()
        steps = np.flatnonzero(np.abs(np.diff(plane, axis=0)).max(axis=1))
        assert (np.diff(steps) == 4).all()
        starts.add(int(steps[0]))
    assert starts == {0, 1, 2, 3}  # squares begin anywhere in a chip, as on the ground
    assert float(one.mean()) == pytest.approx(0, abs=0.02) and float(one.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unet", {"downs": 3, "width": 4, "dropout": 0.0}),
        ("resnet", {"blocks": 6, "width": 4}),
        ("smp", {"encoder": "resnet18"}),
    ],
)
def test_every_generator_takes_noise_or_makes_it(name: str, arguments: dict) -> None:
    torch.manual_seed(0)
    network = GENERATORS[name](in_channels=2 + OCTAVES, out_channels=3, noise=OCTAVES, **arguments)
    source = torch.zeros(2, 2, 64, 64)
    assert not torch.equal(network(source), network(source))  # drawn anew
    network.eval()
    given_noise = ground_noise(0, 0, (64, 64), OCTAVES).expand(2, -1, -1, -1)
    made = network(source)
    assert torch.equal(made, network(torch.cat([source, given_noise], dim=1)))
    other = ground_noise(7, 9, (64, 64), OCTAVES).expand(2, -1, -1, -1)
    assert not torch.equal(made, network(torch.cat([source, other], dim=1)))
    assert made[0].std(dim=(1, 2)).min() > 0  # texture on ground that is all one class


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with two octaves of noise, of imagery to imagery."""
    place = tmp_path_factory.mktemp("noise")
    values = np.random.default_rng(0).integers(0, 255, (3, 160, 160), dtype=np.uint8)
    files = [write_raster(place / f"{name}.tif", values, grid(160, 160)) for name in "ab"]
    tile(*files, place / "chips", TileConfig(size=32, split="8:2:0", buffer=0))
    train(place / "chips", place / "run", TINY)
    return place / "run"


def test_the_card_tells_of_it_and_the_discriminator_does_not_see_it(run: Path) -> None:
    card = read_card(run)
    assert (card.noise, card.in_channels, card.source.channels) == (2, 5, 3)
    state = torch.load(run / "last.pt", weights_only=True)
    first = next(tensor for name, tensor in state["discriminator"].items() if name.endswith(("weight", "original")))
    assert first.shape[1] == 6


def test_a_mosaic_is_a_function_of_the_ground(run: Path, tmp_path: Path) -> None:
    """Of other tiles, and of a raster that was cut out along the stride: the same pixels."""
    where = grid(200, 240)
    values = np.full((3, 200, 240), 90, np.uint8)  # nothing but the noise tells places apart
    whole = write_raster(tmp_path / "whole.tif", values, where)
    cut = dataclasses.replace(where, transform=where.transform @ Affine.translation(40, 24), height=150, width=170)
    part = write_raster(tmp_path / "part.tif", values[:, :150, :170], cut)
    made = {}
    for name, source, size in (("whole", whole, 512), ("small", whole, 192), ("part", part, 512)):
        result = predict(run, source, tmp_path / f"{name}_made.tif", PredictConfig(tile_size=size, device="cpu"))
        assert result.mode == "exact" and result.tile_mismatch_percent == 0
        with rasterio.open(tmp_path / f"{name}_made.tif") as dataset:
            made[name] = dataset.read().astype(int)
    assert made["whole"].std() > 0
    assert np.abs(made["whole"] - made["small"]).max() <= 1
    assert np.abs(made["whole"][:, 24:174, 40:210] - made["part"]).max() <= 1
    elsewhere = made["whole"][:, :150, :170]
    assert np.abs(elsewhere - made["part"]).max() > 1  # and not of the place in the raster


@pytest.mark.parametrize("norm_stats", ["global", "field"])
def test_given_norm_statistics_see_the_noise_of_the_ground(run: Path, tmp_path: Path, norm_stats: NormStats) -> None:
    settings = ("generator=resnet", "blocks=6", "noise=1", "patch=16")
    train(run.parent / "chips", tmp_path / "run", dataclasses.replace(TINY, recipe="pix2pix", set=settings))
    source = write_raster(tmp_path / "in.tif", np.full((3, 200, 240), 90, np.uint8), grid(200, 240))
    config = PredictConfig(norm_stats=norm_stats, device="cpu")
    result = predict(tmp_path / "run", source, tmp_path / "out.tif", config)
    assert result.mode == "exact" and result.tile_mismatch_percent == pytest.approx(0, abs=0.01)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.read().std() > 0


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5, 0.75])
def test_grids_that_are_cut_from_one_another_count_alike(offset: float) -> None:
    for pixel in (0.5, 30.0, 1 / 3600):
        where = Grid(None, Affine(pixel, 0, (1000 + offset) * pixel, 0, -pixel, (7000 + offset) * pixel), 900, 900)
        row, col = where.pixel_on_ground
        for shift in range(1, 400, 7):
            cut = dataclasses.replace(where, transform=where.transform @ Affine.translation(shift, 2 * shift))
            assert cut.pixel_on_ground == (row + 2 * shift, col + shift)


def test_onnx_takes_the_noise_of_the_ground(run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    source = write_raster(tmp_path / "in.tif", np.full((3, 96, 96), 90, np.uint8), grid(96, 96))
    made = {}
    for engine in ("torch", "onnx"):
        predict(run, source, tmp_path / f"{engine}.tif", PredictConfig(engine=engine, device="cpu"))
        with rasterio.open(tmp_path / f"{engine}.tif") as dataset:
            made[engine] = dataset.read().astype(int)
    assert np.abs(made["torch"] - made["onnx"]).max() <= 1 and made["torch"].std() > 0
    export(run, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape[1] == 5


def test_fine_tuning_keeps_the_weights_of_the_noise(run: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=1, lr=1e-12, init_from=run)
    train(run.parent / "chips", tmp_path / "tuned", config)
    before, after = (Translator.load(folder).generator.state_dict() for folder in (run, tmp_path / "tuned"))
    name = "encoder.0.0.weight"
    assert before[name].shape[1] == 5 and torch.allclose(before[name], after[name], atol=1e-6)
    other = dataclasses.replace(config, set=("noise=1", "downs=3", "patch=16"))
    with pytest.raises(ConfigError, match="noise is 2 there and 1 here"):
        train(run.parent / "chips", tmp_path / "other", other)


def test_chips_are_judged_with_the_noise_of_many_places(run: Path) -> None:
    """Statistics and scores would else be those of one picture of noise; a chip's does not depend on its batch."""
    translator, chipset = Translator.load(run), ChipSet.open(run.parent / "chips")
    chips = ChipArrays.load(chipset, "train")
    sources = encode_batch(chips, np.array([3, 3, 5]), chipset.source, chipset.target).source
    together = translate_chips(translator, sources, np.array([3, 4, 5]))
    assert not torch.equal(together[0], together[1])
    assert torch.allclose(translate_chips(translator, sources[1:2], np.array([4])), together[1:2], atol=1e-6)
    seen = on_ground_of_its_own(torch.zeros(200, 1, 32, 32), range(200), 6)[:, 1:]
    assert seen[:, 5].std() == pytest.approx(1, abs=0.05)  # squares of 32 pixels


def test_one_array_is_translated_with_the_noise_of_the_origin(run: Path) -> None:
    translator = Translator.load(run)
    array = np.full((3, 64, 64), 90, np.uint8)
    assert np.array_equal(translator(array), translator(array)) and translator(array).std() > 0


def test_noise_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="noise is 9, expected 0 to 8"):
        recipe_of(TrainConfig(recipe="pix2pix", set=("noise=9",)))
