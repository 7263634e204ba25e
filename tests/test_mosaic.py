"""Rules 1 and 2: the mosaic returns what goes in, and its seams are measured."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from conftest import CLASSES, UTM, Constant, Identity, TileMean, class_map, grid, image_encoding, write_raster
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.windows import Window
from rio_cogeo import cog_validate

from geop2p import PredictConfig, evaluate_mosaic, predict
from geop2p.errors import CheckpointError, ConfigError, OutputError, RasterError
from geop2p.models import GENERATORS
from geop2p.mosaic import seams
from geop2p.mosaic.blend import Blend, ramp
from geop2p.mosaic.grids import output_grid
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.plan import READ_ROWS, Lattice, part_side, part_windows
from geop2p.mosaic.seams import SeamIndex, mismatch
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.borders import overlap_slices
from geop2p.raster.encoding import Array, Band, Encoding, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.pixels import PixelRange, has_size, in_metres, range_in_metres
from geop2p.raster.rendering import render
from geop2p.translator import Card, Translator, read_card

SMALL = PredictConfig(tile_size=64, overlap=0.5)


@pytest.mark.parametrize(("size", "overlap"), [(8, 0), (8, 1), (9, 3), (64, 16), (64, 32)])
def test_ramps_sum_to_one_and_are_never_zero(size: int, overlap: int) -> None:
    weights = ramp(size, overlap).astype(float)
    assert weights.min() > 0
    if overlap:
        assert np.allclose(weights[:overlap] + weights[size - overlap :], 1)
    assert (weights[overlap : size - overlap] == 1).all()


@given(
    size=st.integers(2, 40), share=st.floats(0, 0.5), height=st.integers(1, 90), width=st.integers(1, 90),
    shift=st.integers(0, 50),
)  # fmt: skip
@settings(max_examples=100)
def test_tiles_cover_every_pixel_with_weight_one(size: int, share: float, height: int, width: int, shift: int) -> None:
    lattice = Lattice(size, int(size * share), shift=(shift, shift // 2))
    window = Window(0, 0, width, height)
    blend, rows = Blend(window, 1, size, lattice.overlap), []
    for tile in lattice.tiles(window):
        rows += [given.copy() for given in blend.until(int(tile.row_off))]
        blend.add(tile, torch.ones(1, size, size))
    rows += [given.copy() for given in blend.until(height)]
    made = np.concatenate(rows, axis=1)
    assert made.shape == (1, height, width) and np.allclose(made, 1, atol=1e-5)


@given(st.integers(8, 64), st.floats(0, 0.5), st.integers(1, 200), st.integers(0, 40))
def test_tiles_hand_over_where_the_later_one_begins_to_weigh_as_much(
    size: int, share: float, length: int, shift: int
) -> None:
    lattice = Lattice(size, int(size * share), shift=(0, shift))
    starts = lattice.starts(1, 0, length)
    weights = np.zeros((len(starts), length))
    for row, start in zip(weights, starts, strict=True):
        here, there = overlap_slices(start, size, length)
        row[here] = ramp(size, lattice.overlap)[there]
    of_most = np.argmax(weights.round(6)[::-1], axis=0)  # counted from the last tile: the later of two that weigh alike
    assert lattice.handovers(1, length) == (np.flatnonzero(np.diff(of_most)) + 1).tolist()


def test_parts_tile_the_raster_once() -> None:
    visits = np.zeros((1300, 777), int)
    for part in part_windows(Window(100, 30, 677, 1270), 512):
        visits[part.row_off : part.row_off + part.height, part.col_off : part.col_off + part.width] += 1
        assert part.row_off % 512 in (0, 30) and part.col_off % 512 in (0, 100)
    assert (visits[30:, 100:] == 1).all() and not visits[:30].any() and not visits[:, :100].any()
    assert part_side(5 * 10**8, 180_000) == 2560
    assert part_side(5 * 10**8, 180_000, 1024) == 2048
    assert part_side(10**6, 180_000) == 512
    assert part_side(10**12, 180_000) == 4096


IDENTITY_CASES = [
    (size, overlap, shape)
    for size in (16, 64)
    for overlap in (0.0, 0.25, 0.5)
    for shape in ((size - 1, size + 1), (size, 2 * size + 3), (1, 70), (70, 1), (131, 97))
]


@pytest.mark.parametrize(("size", "overlap", "shape"), IDENTITY_CASES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_an_identity_generator_returns_the_raster(
    tmp_path: Path, make_model: Callable[..., Path], size: int, overlap: float, shape: tuple[int, int], dtype: str
) -> None:
    top = np.iinfo(dtype).max
    values = np.random.default_rng(0).integers(0, top + 1, (3, *shape)).astype(dtype)
    valid = np.random.default_rng(1).random(shape) > 0.1
    valid[-1, -1] = True
    path = write_raster(tmp_path / "in.tif", values, grid(*shape), mask=valid, photometric="RGB")
    model = make_model(Identity, image_encoding(dtype, 3, 0, top))
    predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=size, overlap=overlap, batch_size=3))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.transform == grid(*shape).transform and dataset.crs == UTM
        assert np.array_equal(dataset.dataset_mask() > 0, valid)
        assert np.array_equal(dataset.read()[:, valid], values[:, valid])


@pytest.mark.parametrize(("dtype", "tf32"), [("uint8", True), ("int16", False)])
def test_cudnn_computes_in_one_way_and_as_finely_as_the_target_needs(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, dtype: str, tf32: bool
) -> None:
    cudnn, seen, original = torch.backends.cudnn, set[tuple[bool, ...]](), Translator.translate

    def translate(self: Translator, encoded: torch.Tensor) -> torch.Tensor:
        seen.add((cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32))
        return original(self, encoded)

    model = make_model(Identity, image_encoding(dtype, 3, 0, 255))
    path = write_raster(tmp_path / "in.tif", np.full((3, 90, 90), 9, dtype), grid(90, 90))
    monkeypatch.setattr(Translator, "translate", translate)
    monkeypatch.setattr(cudnn, "benchmark", True)  # as a training leaves it
    predict(model, path, tmp_path / "out.tif", SMALL)
    assert seen == {(True, True, False, tf32)}
    assert cudnn.benchmark and cudnn.allow_tf32 and not cudnn.deterministic


@pytest.mark.parametrize("config", [{"overlap": 0.5}, {}])
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_values_below_zero_return_too(
    tmp_path: Path, make_model: Callable[..., Path], dtype: str, config: dict[str, float]
) -> None:
    """All that the type has, its ends included."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = np.random.default_rng(0).integers(low, high + 1, (2, 131, 97)).astype(dtype)
    values[:, 0, :2] = low, high
    valid = np.random.default_rng(1).random((131, 97)) > 0.1
    valid[0, :2] = True
    path = write_raster(tmp_path / "in.tif", values, grid(131, 97), mask=valid)
    model = make_model(Identity, image_encoding(dtype, 2, low, high))
    result = predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=64, **config))
    assert result.mode == ("blend" if config else "exact")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.dtypes == (dtype, dtype)
        assert np.array_equal(dataset.dataset_mask() > 0, valid)
        assert np.array_equal(dataset.read()[:, valid], values[:, valid])


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    """A raster, the tiles and parts that it is cut to, the ground that is asked for and the ground that is missing."""
    rows, cols = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    size, side = draw(st.integers(16, 64)), draw(st.sampled_from([64, 100, 128]))
    top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))
    window = Window(left, top, draw(st.integers(1, cols - left)), draw(st.integers(1, rows - top)))
    overlap, pattern = draw(st.none() | st.floats(0, 0.5)), draw(st.sampled_from(["none", "specks", "hole", "most"]))
    return {"shape": (rows, cols), "size": size, "overlap": overlap, "window": window, "side": side, "holes": pattern}


@given(job=jobs(), seed=st.integers(0, 99))
@settings(max_examples=10)
def test_whatever_is_cut_how_an_identity_generator_returns_it(
    tmp_path_factory: pytest.TempPathFactory, job: dict[str, Any], seed: int
) -> None:
    import geop2p.mosaic.mosaic as mosaic_module

    rows, cols = job["shape"]
    draw, folder, where = np.random.default_rng(seed), tmp_path_factory.mktemp("identity"), grid(rows, cols)
    values, valid = draw.integers(0, 256, (2, rows, cols), dtype=np.uint8), np.ones((rows, cols), bool)
    if job["holes"] == "specks":
        valid = draw.random((rows, cols)) > 0.1
    elif job["holes"] == "hole":
        valid[rows // 4 : rows // 2 + 1, cols // 3 : cols // 2 + 1] = False
    elif job["holes"] == "most":
        valid[: rows - rows // 3] = False
    source = write_raster(folder / "in.tif", values, where, mask=valid)
    here = job["window"].toslices()
    area = where.window(job["window"]).footprint.buffer(-0.1)  # no pixel of its neighbours by rounding
    geopandas.GeoDataFrame(geometry=[area], crs=UTM).to_file(folder / "area.gpkg")
    config = PredictConfig(tile_size=job["size"], overlap=job["overlap"], aoi=folder / "area.gpkg")
    encoding = image_encoding(bands=2)
    card = Card("identity", {}, encoding, encoding, (2.0, 2.0), 64, 1, 5, "none", "pix2pix", {})
    Translator(Identity(), card).save(folder / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GENERATORS, "identity", Identity)
        patch.setattr(mosaic_module, "choose_part_side", lambda *_: job["side"])
        predict(folder / "model.safetensors", source, folder / "out.tif", config)
    with rasterio.open(folder / "out.tif") as dataset:
        found, mask = dataset.read(), dataset.dataset_mask() > 0
        assert dataset.transform == where.window(job["window"]).transform
    assert np.array_equal(mask, valid[here])
    assert np.array_equal(found[:, mask], values[:, *here][:, mask])


def test_floats_return_within_1e5_of_the_range(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values = np.random.default_rng(0).uniform(-30, 5, (2, 150, 133)).astype(np.float32)
    values[:, 40:60, 50:90] = np.nan
    path = write_raster(tmp_path / "in.tif", values, grid(150, 133), nodata=np.nan)
    model = make_model(Identity, image_encoding("float32", 2, -30, 5, "sar"))
    predict(model, path, tmp_path / "out.tif", SMALL)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        found = dataset.read()
        assert np.isnan(dataset.nodata)
    assert np.array_equal(np.isnan(found), np.isnan(values))
    assert np.nanmax(np.abs(found - values)) <= 1e-5 * 35


def test_a_constant_stays_that_constant(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 200, 190), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(200, 190))
    model = make_model(Constant, image_encoding())
    for overlap in (0, 0.3, 0.5):
        predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=48, overlap=overlap), overwrite=True)
        with rasterio.open(tmp_path / "out.tif") as dataset:
            assert set(np.unique(dataset.read())) == {round((0.25 + 1) / 2 * 255)}


class Held:
    """A raster in memory, all of it valid."""

    def __init__(self, values: Array) -> None:
        self.grid, self._values = grid(*values.shape[1:]), values

    def read(self, window: Window) -> tuple[Array, Mask]:
        made = self._values[:, *window.toslices()]
        return made, np.ones(made.shape[1:], bool)


@st.composite
def cuts(draw: st.DrawFn) -> dict[str, Any]:
    """A raster, a window of it, the tiles, and where they begin; sizes about that of a tile more often than others."""
    size = draw(st.integers(16, 40))
    near = st.integers(size - 2, size + 2) | st.integers(2 * size - 1, 2 * size + 1) | st.integers(1, 100)
    rows, cols = draw(near), draw(near)
    top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))
    window = Window(left, top, draw(st.integers(1, cols - left)), draw(st.integers(1, rows - top)))
    is_exact = draw(st.booleans())
    tiles = {"overlap": None if is_exact else draw(st.sampled_from([0.0, 0.5]) | st.floats(0, 0.5))}
    field = draw(st.integers(0, (size - 1) // 2)) if is_exact else None
    shift = draw(st.integers(0, size)), draw(st.integers(0, size))
    return {"shape": (rows, cols), "window": window, "field": field, "shift": shift, "tile_size": size} | tiles


ODD = {
    "shape": (60, 50),
    "window": Window(0, 0, 50, 60),
    "field": None,
    "shift": (0, 16),
    "tile_size": 35,
    "overlap": 0.5,
}


@example(cut=ODD, dn=100, batch_size=1)  # half of the side is 17.5
@given(cut=cuts(), dn=st.integers(0, 255), batch_size=st.integers(1, 4))
@settings(max_examples=40)
def test_a_constant_stays_that_constant_for_every_window_overlap_and_size(
    tmp_path_factory: pytest.TempPathFactory, cut: dict[str, Any], dn: int, batch_size: int
) -> None:
    network, encoding = Constant(), image_encoding("float32", bands=1)
    network.value = 2 * dn / 255 - 1
    card = Card("constant", {}, encoding, encoding, (2.0, 2.0), 64, 1, cut["field"], "none", "pix2pix", {})
    config = PredictConfig(tile_size=cut["tile_size"], overlap=cut["overlap"], batch_size=batch_size, device="cpu")
    values = np.random.default_rng(0).uniform(0, 255, (1, *cut["shape"])).astype(np.float32)
    mosaic = Mosaic(Translator(network, card), grid(*cut["shape"]), config, tmp_path_factory.getbasetemp())
    assert mosaic.is_exact == (cut["overlap"] is None)
    made, valid = mosaic.window(Held(values), cut["window"], cut["shift"])
    assert valid.all() and made.shape[1:] == (cut["window"].height, cut["window"].width)
    assert np.abs(made - dn).max() <= 1e-5 * 255


def test_classes_return_with_names_colours_and_style(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    codes = np.random.default_rng(0).choice([1, 2, 5], (1, 130, 150)).astype(np.uint8)
    codes[0, :10, :10] = 0
    path = write_raster(tmp_path / "in.tif", codes, grid(130, 150), nodata=0)
    encoding = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES, color_interp=("palette",))
    predict(make_model(Identity, encoding), path, tmp_path / "out.tif", SMALL)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.array_equal(dataset.read(), codes)
        assert dataset.nodata == 0 and dataset.colormap(1)[2] == (150, 190, 110, 255)
        flags = [flag.name for flag in dataset.mask_flag_enums[0]]
        assert flags == ["nodata"]
    assert "<Category>meadow</Category>" in (tmp_path / "out.tif.aux.xml").read_text()
    style = (tmp_path / "out.qml").read_text()
    assert 'type="paletted"' in style and 'color="#96be6e" label="meadow"' in style
    assert cog_validate(tmp_path / "out.tif", strict=True)[0]


def test_overviews_of_classes_show_the_class_of_most_pixels(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    codes = np.full((1, 1024, 1100), 1, np.uint8)
    codes[:, :, 512:] = 2
    for number in range(4):  # one pixel of four, wherever it lies in them
        codes[0, number // 2 :: 2, 256 * number + number % 2 : 256 * number + 256 : 2] = 5
    codes[0, 1::2, :256:2] = 2  # two waters, a road and a meadow: in the mean of colours nearest to the road
    path = write_raster(tmp_path / "in.tif", codes, grid(1024, 1100), nodata=0)
    encoding = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES, color_interp=("palette",))
    predict(make_model(Identity, encoding), path, tmp_path / "out.tif", PredictConfig(tile_size=512))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.array_equal(dataset.read(), codes) and dataset.overviews(1)[0] == 2
        levels = range(len(dataset.overviews(1)))
    for level in levels:
        with rasterio.open(tmp_path / "out.tif", overview_level=level) as dataset:
            seen, edge = dataset.read(1), 512 >> (level + 1)
        assert set(np.unique(seen)) == {1, 2}
        assert (seen[:, :edge] == 1).all() and (seen[:, edge:] == 2).all()


@pytest.mark.parametrize("side", [512, 1024])
def test_parts_meet_exactly(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """The same pixels whatever the parts, even for a generator that knows its tile."""
    import geop2p.mosaic.mosaic as mosaic

    values = np.random.default_rng(0).integers(0, 255, (3, 700, 1100), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(700, 1100))
    model = make_model(TileMean, image_encoding())
    predict(model, path, tmp_path / "whole.tif", SMALL)
    monkeypatch.setattr(mosaic, "choose_part_side", lambda *_: side)
    predict(model, path, tmp_path / "parts.tif", SMALL)
    with rasterio.open(tmp_path / "whole.tif") as one, rasterio.open(tmp_path / "parts.tif") as many:
        assert np.array_equal(one.read(), many.read())


def test_a_killed_prediction_is_finished_by_repeating(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import geop2p.mosaic.mosaic as mosaic
    import geop2p.mosaic.parts as on_disk

    values = np.random.default_rng(0).integers(0, 255, (3, 600, 1100), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(600, 1100))
    model = make_model(TileMean, image_encoding())
    predict(model, path, tmp_path / "whole.tif", SMALL)
    monkeypatch.setattr(mosaic, "choose_part_side", lambda *_: 512)
    written: list[Path] = []
    original = on_disk.part_writer

    @contextlib.contextmanager
    def dying(part: Path, *arguments) -> Iterator[Any]:
        with original(part, *arguments) as write:
            if len(written) < 3:
                yield write
                written.append(part)
            else:
                yield lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)

    monkeypatch.setattr(on_disk, "part_writer", dying)
    with pytest.raises(KeyboardInterrupt):
        predict(model, path, tmp_path / "out.tif", SMALL)
    assert not (tmp_path / "out.tif").exists()
    kept = {part: part.stat().st_mtime_ns for part in written}
    again: list[Path] = []
    monkeypatch.setattr(on_disk, "part_writer", lambda part, *rest: (again.append(part), original(part, *rest))[1])
    predict(model, path, tmp_path / "out.tif", SMALL)
    assert len(kept) == 3 and not set(kept) & set(again)
    with rasterio.open(tmp_path / "whole.tif") as one, rasterio.open(tmp_path / "out.tif") as other:
        assert np.array_equal(one.read(), other.read())
    assert not (tmp_path / "out.tif.parts").exists()


@pytest.mark.parametrize(("config", "shapes"), [
    ({"overlap": 0.5}, {(4, 3, 64, 64)}),
    ({}, {(4, 3, rows, cols) for rows in (64, 40) for cols in (64, 50)}),  # 48 of ground, but 24 and 34 at the end
])  # fmt: skip
def test_the_network_sees_batches_of_one_shape(
    tmp_path: Path, make_model: Callable[..., Path], config: dict[str, Any], shapes: set[tuple[int, ...]]
) -> None:
    """However many tiles there are; exact ones end where the raster does."""
    seen: list[tuple[int, ...]] = []

    class Watched(TileMean):
        def forward(self, source: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(source.shape))
            return super().forward(source)

    where, settings = grid(120, 130), PredictConfig(tile_size=64, batch_size=4, **config)
    path = write_raster(tmp_path / "in.tif", np.full((3, 120, 130), 7, np.uint8), where)
    translator = Translator.load(make_model(Watched, image_encoding(), field=8))
    mosaic = Mosaic(translator, where, settings, tmp_path)
    seen.clear()  # of the look at its memory
    with aligned_reader(path, where, "image") as reader:
        made, _ = mosaic.window(reader, Window(0, 0, 130, 120))
    assert len(mosaic.lattice.tiles(Window(0, 0, 130, 120))) % 4 and (made == 7).all()
    assert set(seen) == shapes


class CountingReader:
    """A reader that keeps a list of what it was asked for."""

    def __init__(self, reader: Reader) -> None:
        self.grid, self._reader, self.windows = reader.grid, reader, list[Window]()

    def read(self, window: Window) -> tuple[Array, Mask]:
        self.windows.append(window)
        return self._reader.read(window)


@pytest.mark.parametrize("config", [{"overlap": 0.5}, {}])
@pytest.mark.parametrize(("window", "rows", "cols"), [
    (Window(0, 0, 300, 1700), (0, 1700), (0, 300)),
    (Window(100, 512, 120, 512), (0, 1536), (100 - 64, 220 + 64)),
])  # fmt: skip
def test_every_row_is_read_once_in_whole_blocks(
    tmp_path: Path, make_model: Callable[..., Path], config: dict[str, Any], window: Window,
    rows: tuple[int, int], cols: tuple[int, int],
) -> None:  # fmt: skip
    """Those around the window included, which holes are filled from and halos show."""
    where = grid(1700, 300)
    valid = np.random.default_rng(0).random((1700, 300)) > 0.01
    valid[400:600, 50:250] = False
    path = write_raster(tmp_path / "in.tif", np.full((1, 1700, 300), 7, np.uint8), where, mask=valid)
    translator = Translator.load(make_model(Identity, image_encoding(bands=1), field=16))
    mosaic = Mosaic(translator, where, PredictConfig(tile_size=128, **config), tmp_path)
    with aligned_reader(path, where, "image") as reader:
        counting = CountingReader(reader)
        made, there = mosaic.window(counting, window)
    here = window.toslices()
    assert np.array_equal(there, valid[here]) and (made[:, there] == 7).all()
    visits = np.zeros(where.height, int)
    for read in counting.windows:
        assert read.row_off % READ_ROWS == 0 and (read.height == READ_ROWS or read.row_off + read.height == 1700)
        assert read.col_off <= cols[0] and read.col_off + read.width >= cols[1]
        visits[read.row_off : read.row_off + read.height] += 1
    assert (visits[slice(*rows)] == 1).all() and visits.sum() == rows[1] - rows[0]


def test_nodata_changes_nothing_and_empty_ground_costs_nothing(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).uniform(0, 255, (1, 400, 400)).astype(np.float32)
    valid = np.zeros((400, 400), bool)
    valid[:100, :130] = True
    model = make_model(TileMean, image_encoding("float32", 1))
    outputs, costs = [], []
    for number, junk in enumerate((3.0, 200.0)):
        changed = np.where(valid, values, junk).astype(np.float32)
        path = write_raster(tmp_path / f"in{number}.tif", changed, grid(400, 400), mask=valid)
        result = predict(model, path, tmp_path / f"out{number}.tif", SMALL)
        costs.append(result.network_px_per_px)
        with rasterio.open(tmp_path / f"out{number}.tif") as dataset:
            outputs.append(dataset.read())
    assert np.array_equal(outputs[0], outputs[1], equal_nan=True)
    assert np.array_equal(np.isnan(outputs[0][0]), ~valid)
    full = write_raster(tmp_path / "full.tif", values, grid(400, 400))
    assert costs[0] < 0.3 * predict(model, full, tmp_path / "full_out.tif", SMALL).network_px_per_px


def test_all_nodata_gives_an_empty_mosaic(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    path = write_raster(tmp_path / "in.tif", np.zeros((1, 90, 90), np.uint8), grid(90, 90), nodata=0)
    result = predict(make_model(Constant, image_encoding(bands=1)), path, tmp_path / "out.tif", SMALL)
    assert result.seam_index is None and result.tile_mismatch is None
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert not dataset.dataset_mask().any()


class Toned(Identity):
    """A generator whose colours are those of the ground in part, and in part of the whole tile."""

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return 0.1 * source + source.mean(dim=(2, 3), keepdim=True)


def test_seam_index_and_mismatch_tell_seams(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    ramp_image = np.add.outer(np.arange(512), np.arange(512)) / 8
    noise = np.random.default_rng(0).normal(0, 1, (1, 512, 512))
    path = write_raster(tmp_path / "in.tif", (60 + ramp_image + noise).astype(np.float32), grid(512, 512))
    toned, same = make_model(Toned, image_encoding("float32", 1)), make_model(Identity, image_encoding("float32", 1))
    hard = predict(toned, path, tmp_path / "hard.tif", PredictConfig(tile_size=64, overlap=0))
    soft = predict(toned, path, tmp_path / "soft.tif", PredictConfig(tile_size=64, overlap=0.5))
    none = predict(same, path, tmp_path / "same.tif", SMALL)
    step = 0.1 * 2 / np.sqrt(np.pi)  # between neighbours that differ by a tenth of the noise, in the mean
    assert hard.seam_index == pytest.approx(8 / step, rel=0.02)  # tiles of 64 pixels differ by 8
    assert none.seam_index == pytest.approx(1, abs=0.02)
    assert hard.seam_index is not None and soft.seam_index is not None
    assert 1.1 < soft.seam_index < 0.1 * hard.seam_index
    assert hard.tile_mismatch == pytest.approx(4, rel=0.02)  # moved by half a tile, a quarter lies 8 above, one 8 below
    assert none.tile_mismatch is not None and none.tile_mismatch < 1e-4
    assert hard.tile_mismatch is not None and soft.tile_mismatch is not None
    assert 0.2 < soft.tile_mismatch < 0.5 * hard.tile_mismatch
    assert none.tile_mismatch_percent == pytest.approx(100 * none.tile_mismatch / 255)
    with rasterio.open(tmp_path / "soft.tif") as dataset:
        tags = dataset.tags()
    assert tags["GEOP2P_SYNTHETIC"] == "YES" and float(tags["GEOP2P_TILE_MISMATCH"]) == soft.tile_mismatch
    for name, made in (("hard", hard), ("soft", soft)):
        found = evaluate_mosaic(tmp_path / f"{name}.tif", path, tmp_path / f"{name}.html")
        assert found["seam_index"] == made.seam_index and found["tile_mismatch"] == made.tile_mismatch
        assert found["tile_mismatch_percent"] == made.tile_mismatch_percent


class Striped(Identity):
    """A generator of classes that paints the first columns of every tile water."""

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        made = source.clone()
        made[..., :16] = 0
        made[:, 0, :, :16] = 1
        return made


def test_seams_of_classes_are_shares_of_pixels(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    codes = class_map(153, 208)[:, 3:, 5:]  # no class ends where a tile does
    valid = np.ones((150, 203), bool)
    valid[20:60, 40:90] = False
    path = write_raster(tmp_path / "in.tif", np.where(valid, codes, 0), grid(150, 203), nodata=0)
    encoding = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES, color_interp=("palette",))
    config = PredictConfig(tile_size=64, overlap=0, seam_map=tmp_path / "seams.tif")
    result = predict(make_model(Striped, encoding), path, tmp_path / "out.tif", config)

    cols = np.arange(203)
    first, second = (np.where((cols + shift) % 64 < 16, 1, codes[0]) for shift in (0, 32))
    apart = (first != second) & valid
    assert result.tile_mismatch == pytest.approx(apart[valid].mean(), rel=1e-9)
    assert result.tile_mismatch_percent == pytest.approx(100 * apart[valid].mean(), rel=1e-9)
    with rasterio.open(tmp_path / "seams.tif") as dataset:
        assert np.array_equal(dataset.read(1), np.where(valid, apart, np.nan), equal_nan=True)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.array_equal(dataset.read(1), np.where(valid, first, 0))
        share = float(dataset.tags(1)["STATISTICS_VALID_PERCENT"])
    assert share == pytest.approx(100 * valid.mean(), rel=1e-3) and share < 99

    ratios = []
    for made, known in ((first, valid), (first.T, valid.T)):
        changes, both = made[1:] != made[:-1], known[1:] & known[:-1]
        line = np.arange(1, len(made)) % 64 == 0
        ratios.append(changes[line][both[line]].mean() / changes[~line][both[~line]].mean())
    assert ratios[1] > 2 and ratios[0] == 0
    assert result.seam_index == pytest.approx(np.mean(ratios), rel=1e-9)


@pytest.mark.parametrize("is_classes", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_seam_index_is_the_mean_step_at_lines_over_that_elsewhere(dtype: str, is_classes: bool) -> None:
    draw = np.random.default_rng(0)
    top = 4 if is_classes else np.iinfo(dtype).max if dtype.startswith("u") else 9000
    values = draw.integers(0, top, (1 if is_classes else 3, 50, 41)).astype(dtype)
    valid, lattice = draw.random((50, 41)) > 0.2, Lattice(16, 4, shift=(3, 0))
    index = SeamIndex(lattice, 50, 41, is_classes)
    index.add(values, valid, (0, 0), (0, 0))
    ratios = []
    for axis in (0, 1):
        at: dict[bool, list[float]] = {True: [], False: []}
        for place in range(1, values.shape[1 + axis]):
            after, before = (np.take(values, number, 1 + axis).astype(float) for number in (place, place - 1))
            known = np.take(valid, place, axis) & np.take(valid, place - 1, axis)
            steps = (after != before if is_classes else np.abs(after - before)).mean(axis=0)
            at[place in lattice.handovers(axis, values.shape[1 + axis])] += steps[known].tolist()
        ratios.append(np.mean(at[True]) / np.mean(at[False]))
    assert index.result() == pytest.approx(np.mean(ratios), rel=1e-9)


def test_seam_index_counts_each_line_once() -> None:
    """However the mosaic is cut into windows that share a row or a column."""
    values = np.zeros((1, 8, 8))
    values[:, 4:] += 3.0  # a step between rows 3 and 4, where tiles of 4 hand over
    values[:, :, :] += np.arange(8)
    whole, pieces = (SeamIndex(Lattice(4, 0), 8, 8, False) for _ in range(2))
    valid = np.ones((8, 8), bool)
    whole.add(values, valid, (0, 0), (0, 0))
    for top, bottom in ((0, 5), (4, 8)):
        for left, right in ((0, 3), (2, 6), (5, 8)):
            here = np.s_[top:bottom, left:right]
            pieces.add(values[:, *here], valid[here], (top, left), (int(top > 0), int(left > 0)))
    assert whole.result() == pieces.result() == pytest.approx(1.0)  # rows have no other step, columns are even
    values[:, :, :] += np.arange(8)[:, None]
    other = SeamIndex(Lattice(4, 0), 8, 8, False)
    other.add(values, valid, (0, 0), (0, 0))
    assert other.result() == pytest.approx((4 / 1 + 1) / 2)


def test_seam_index_of_exact_tiles_does_not_mind_what_the_network_repeats() -> None:
    """A pattern with the stride of the network is no seam: lines are compared with those at its same places."""
    pattern = np.array([5.0, 0, 1, 0])
    ground = np.random.default_rng(0).normal(0, 0.2, (1, 64, 64))
    values, valid = ground + np.tile(pattern, 16)[:, None] + np.tile(pattern, 16), np.ones((64, 64), bool)
    found = []
    for stride in (1, 4):
        for seam in (0.0, 3.0):
            index = SeamIndex(Lattice(16, 0, stride=stride), 64, 64, False)
            index.add(values + seam * (np.arange(64) // 16)[:, None], valid, (0, 0), (0, 0))
            found.append(index.result())
    assert found[0] > 1.5 and found[2] == pytest.approx(1, abs=0.03) and found[3] > 1.25
    beside = np.isin(np.arange(64) % 16, (15, 0, 1)) | np.zeros((64, 1), bool)  # ground at the lines alone
    strips = SeamIndex(Lattice(16, 0, stride=4), 64, 64, False)
    strips.add(ground, beside, (0, 0), (0, 0))
    assert strips.result() == pytest.approx(1, abs=0.2)
    plain = SeamIndex(Lattice(4, 0, stride=4), 64, 64, False)  # no other line is at the same place
    plain.add(ground, valid, (0, 0), (0, 0))
    assert plain.result() == pytest.approx(1, abs=0.1)


def test_a_mosaic_is_surveyed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics and seam index are those of all of it at once."""
    draw = np.random.default_rng(0)
    values, valid = draw.integers(0, 255, (3, 300, 700), dtype=np.uint8), draw.random((300, 700)) > 0.1
    path, encoding = write_raster(tmp_path / "made.tif", values, grid(300, 700), mask=valid), image_encoding()
    found = []
    for piece in (seams.PIECE, 256, 512):
        monkeypatch.setattr(seams, "PIECE", piece)
        with aligned_reader(path, grid(300, 700), "image") as reader:
            found.append(seams.survey(reader, encoding, Lattice(64, 0)))
    assert [index for _, index in found] == pytest.approx([found[0][1]] * 3, rel=1e-12)
    for summaries, _ in found:
        for summary, plane in zip(summaries, values, strict=True):
            told = (summary.minimum, summary.maximum, summary.mean, summary.std)
            seen = plane[valid].astype(np.float64)
            assert told == pytest.approx((seen.min(), seen.max(), seen.mean(), seen.std()), rel=1e-9)


def test_the_mosaic_is_a_valid_cog_with_its_figures(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 1100, 600), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(1100, 600))
    names = ("red", "green", "blue")
    encoding = Encoding("image", "uint8", tuple(Band(name) for name in names), color_interp=names)
    model = make_model(Identity, encoding)
    result = predict(model, path, tmp_path / "out.tif", SMALL)
    assert cog_validate(tmp_path / "out.tif", strict=True) == (True, [], [])
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert [entry.name for entry in dataset.colorinterp] == ["red", "green", "blue"]
        assert dataset.descriptions == ("red", "green", "blue")
        assert float(dataset.tags(1)["STATISTICS_MEAN"]) == pytest.approx(values[0].mean())
        assert dataset.overviews(1)
        tags = dataset.tags()
    assert tags["TIFFTAG_IMAGEDESCRIPTION"].startswith("Generated by a model")
    assert tags["GEOP2P_MODEL_SHA256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert result.seam_index is not None and float(tags["GEOP2P_SEAM_INDEX"]) == result.seam_index
    assert 'type="multibandcolor"' in (tmp_path / "out.qml").read_text()
    assert (result.width, result.height, result.mode, result.tile_size) == (600, 1100, "blend", 64)
    assert result.network_px_per_px > 4


def test_the_peak_memory_is_that_of_the_process(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    status = Path("/proc/self/status")
    if "VmHWM" not in (status.read_text() if status.exists() else ""):
        pytest.skip("this system does not tell the peak memory of a process")
    path = write_raster(tmp_path / "in.tif", np.zeros((3, 70, 70), np.uint8), grid(70, 70))
    result = predict(make_model(Identity, image_encoding()), path, tmp_path / "out.tif", SMALL)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    held = 1024 * int(line.split()[1]) / 1e6  # of the process that began this one it may be more
    assert result.peak_rss_mb is not None and 0.99 * held < result.peak_rss_mb < 3 * held


@pytest.mark.parametrize(("side", "counted"), [(64, 1), (256, 8), (512, 16)])
def test_the_mismatch_is_that_of_an_eighth_of_the_windows_up_to_16(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, side: int, counted: int
) -> None:
    monkeypatch.setattr("geop2p.mosaic.assembly.MISMATCH_SIDE", 32)
    again: list[Window] = []
    predicted = Mosaic.window

    def counting(self: Mosaic, reader: Reader, window: Window, shift: tuple[int, int] = (0, 0)) -> tuple[Array, Mask]:
        again.append(window)
        assert shift == (32, 32)
        return predicted(self, reader, window, shift)

    monkeypatch.setattr(Mosaic, "window", counting)
    values = np.random.default_rng(0).integers(0, 255, (1, side, side), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(side, side))
    config = PredictConfig(tile_size=64, overlap=0)
    predict(make_model(TileMean, image_encoding(bands=1)), path, tmp_path / "out.tif", config)
    assert len({(window.row_off, window.col_off) for window in again}) == len(again) == counted


def test_the_mismatch_does_not_rest_on_the_few_pixels_of_a_border_or_a_hole(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geop2p.mosaic.assembly.MISMATCH_SIDE", 32)
    seen: list[int] = []

    def counted(first: Array, second: Array, valid: Mask, is_classes: bool) -> np.ndarray:
        seen.append(int(valid.sum()))
        return mismatch(first, second, valid, is_classes)

    monkeypatch.setattr("geop2p.mosaic.assembly.mismatch", counted)
    values = np.random.default_rng(0).integers(1, 255, (1, 65, 65), dtype=np.uint8)
    values[:, :33], values[:, 20, 20] = 0, 9  # no window is whole
    path = write_raster(tmp_path / "in.tif", values, grid(65, 65), nodata=0)
    config = PredictConfig(tile_size=64, overlap=0)
    predict(make_model(TileMean, image_encoding(bands=1)), path, tmp_path / "out.tif", config)
    assert sum(seen) >= 32 * 32


def test_pixels_of_the_training_size_stay_on_the_grid_of_the_input(make_model: Callable[..., Path]) -> None:
    card = read_card(make_model(Identity, image_encoding()))
    near = grid(90, 110, pixel=2.08)
    assert output_grid(near, card, no_resample=False) is near
    far = grid(90, 110, pixel=4.0)
    assert output_grid(far, card, no_resample=True) is far
    made = output_grid(far, card, no_resample=False)
    assert made.pixel_size == pytest.approx((2.0, 2.0), rel=1e-3)
    assert (made.height, made.width) == pytest.approx((180, 220), abs=2)
    degrees = Grid(CRS.from_epsg(4326), Affine(6e-5, 0, 9.3, 0, -4e-5, 48.2), 200, 300)
    there = output_grid(degrees, card, no_resample=False)
    assert there.crs == UTM and there.pixel_size == pytest.approx((2.0, 2.0), rel=1e-3)
    mercator = Grid(CRS.from_epsg(3857), Affine(10, 0, 0, 0, -10, 8_399_738), 50, 50)
    there = output_grid(mercator, card, no_resample=False)
    assert there.crs == CRS.from_epsg(3857) and there.pixel_size == pytest.approx((2.0, 2.0), rel=0.01)


def test_a_coarser_input_in_degrees_is_read_at_the_training_pixel_size(
    tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    where = Grid(CRS.from_epsg(4326), Affine(6e-5, 0, 9.3, 0, -4e-5, 48.2), 60, 70)
    values = np.full((2, 60, 70), -12, np.float32)
    path = write_raster(tmp_path / "sar.tif", values, where, nodata=np.nan)
    predict(make_model(Identity, image_encoding("float32", 2, -30, 5, "sar")), path, tmp_path / "out.tif", SMALL)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        found = dataset.read()
        assert dataset.crs == UTM and dataset.res == pytest.approx((2.0, 2.0), rel=1e-3)
    assert np.nanmax(np.abs(found + 12)) < 1e-3 and np.isfinite(found).mean() > 0.9


def test_clear_refusals(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    model, output = make_model(Identity, image_encoding()), tmp_path / "out.tif"
    rgb = write_raster(tmp_path / "rgb.tif", np.zeros((3, 80, 80), np.uint8), grid(80, 80))

    def fails(error: type[Exception], message: str, *arguments) -> None:
        with pytest.raises(error, match=message) as caught:
            predict(*arguments)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.glob("out*")) == []

    one = write_raster(tmp_path / "one.tif", np.zeros((1, 80, 80), np.uint8), grid(80, 80))
    fails(RasterError, "has 1 band, the model expects 3", model, one, output)
    nowhere = Grid(None, Affine(2, 0, 5, 0, -2, 5), 8, 8)
    bare = write_raster(tmp_path / "bare.tif", np.zeros((3, 8, 8), np.uint8), nowhere)
    fails(RasterError, "has no CRS", model, bare, output)
    fails(RasterError, "no such file", model, tmp_path / "none.tif", output)
    fails(CheckpointError, "no such model; train one first", tmp_path / "none", rgb, output)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(model.read_bytes()[:100])
    fails(CheckpointError, "not a whole safetensors file", broken, rgb, output)
    strided = make_model(Constant, image_encoding(), stride=32)
    fails(ConfigError, "tile_size is 80, expected a multiple of 32", strided, rgb, output, PredictConfig(tile_size=80))
    output.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists; give another name or --overwrite"):
        predict(model, rgb, output)
    assert output.read_bytes() == b"mine"


def test_bad_settings_are_refused_on_construction() -> None:
    for bad in ({"overlap": 0.6}, {"memory": "lots"}, {"batch_size": 0}, {"tile_size": 3}, {"tile_size": "big"}):
        with pytest.raises(ConfigError):
            PredictConfig(**bad)
    assert PredictConfig(tile_size="auto") == PredictConfig() != PredictConfig(tile_size=64)
    assert PredictConfig(memory="1.5GB").memory_bytes == 1_500_000_000


class Hungry(Identity):
    def forward(self, source: torch.Tensor) -> torch.Tensor:
        if source.shape[-1] > 128:  # as activations are measured on
            return torch.empty(2**60)
        return source


def test_tiles_that_memory_is_too_small_for_are_told_in_one_line(
    tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    path = write_raster(tmp_path / "in.tif", np.zeros((3, 40, 50), np.uint8), grid(40, 50))
    model = make_model(Hungry, image_encoding(), statistics="tile")
    with pytest.raises(ConfigError, match=r"out of memory with tiles of 256 pixels, 4 at a time; .*\(--tile-size\)"):
        predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=256))


def test_exact_tiles_are_no_larger_than_the_raster(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    path = write_raster(tmp_path / "in.tif", np.zeros((3, 40, 50), np.uint8), grid(40, 50))
    model = make_model(Identity, image_encoding(), field=5, stride=4)
    result = predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=2**20))
    assert (result.mode, result.tile_size) == ("exact", 52 + 2 * 8)


def test_a_newer_or_foreign_model_is_refused(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    from safetensors.torch import save_file

    model = make_model(Identity, image_encoding())
    card = json.loads(read_card(model).to_json()) | {"format": 99}
    newer, foreign = tmp_path / "newer.safetensors", tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, newer, metadata={"geop2p": json.dumps(card)})
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="made by a newer geop2p"):
        Translator.load(newer)
    with pytest.raises(CheckpointError, match="without a geop2p card"):
        Translator.load(foreign)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"strides": 3}, "strides"),
        ({"arguments": {"depth": 3}}, "depth"),
        ({"format": None}, "TypeError"),
        ({"source": {}}, "KeyError"),
        ({"target": []}, "Error"),
        (None, "JSONDecodeError"),
    ],
)
def test_a_damaged_card_is_told_in_one_line(tmp_path: Path, change: dict[str, Any] | None, found: str) -> None:
    from safetensors.torch import save_file

    model, encoding = tmp_path / "model.safetensors", image_encoding()
    whole = Card("unet", {}, encoding, encoding, None, 64, 8, None, "none", "pix2pix", {}).to_json()
    card = whole[:-3] if change is None else json.dumps(json.loads(whole) | change)
    save_file({"a": torch.zeros(1)}, model, metadata={"geop2p": card})
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: its card cannot be read \(.*{found}") as told:
        Translator.load(model)
    assert "\n" not in str(told.value)


def test_the_translator_translates_one_array(make_model: Callable[..., Path]) -> None:
    translator = Translator.load(make_model(Identity, image_encoding(), stride=16))
    values = np.random.default_rng(0).integers(0, 255, (3, 33, 50), dtype=np.uint8)
    assert np.array_equal(translator(values), values)


def test_what_is_no_data_in_an_array_is_not_seen(make_model: Callable[..., Path]) -> None:
    translator = Translator.load(make_model(Identity, image_encoding("float32", 1, 0, 100, "elevation")))
    values = np.full((1, 40, 50), 60, np.float32)
    valid = np.ones((40, 50), bool)
    valid[7:9, 20:] = False
    holes = np.where(valid, values, np.nan)
    expected = translator(np.where(valid, values, 5), valid)
    assert np.allclose(expected[:, valid], 60, atol=1e-3)
    for array, mask in (
        (holes, None),
        (np.where(valid, values, -np.inf), None),
        (np.ma.masked_array(np.where(valid, values, 9), ~valid[np.newaxis]), None),
        (np.where(valid, values, 9), valid.astype(np.uint8) * 255),
        (np.where(valid, values, 9), valid.astype(float)),
    ):
        assert np.array_equal(translator(array, mask), expected)


@pytest.mark.parametrize(
    ("shape", "mask", "message"),
    [
        ((40, 50), None, r"array has the shape \(40, 50\), expected \(bands, rows, cols\)"),
        ((1, 3, 40, 50), None, r"array has the shape \(1, 3, 40, 50\)"),
        ((3, 0, 50), None, r"array has the shape \(3, 0, 50\)"),
        ((3, 40, 50), (50, 40), r"valid has the shape \(50, 40\), expected \(rows, cols\), \(40, 50\)"),
        ((3, 40, 50), (1, 40, 50), r"valid has the shape \(1, 40, 50\)"),
        ((2, 40, 50), None, "array has 2 bands, the encoding has 3"),
    ],
)
def test_arrays_of_another_shape_are_refused(
    make_model: Callable[..., Path], shape: tuple[int, ...], mask: tuple[int, ...] | None, message: str
) -> None:
    translator = Translator.load(make_model(Identity, image_encoding()))
    with pytest.raises(ConfigError, match=message):
        translator(np.zeros(shape, np.uint8), None if mask is None else np.ones(mask, bool))


def test_a_device_of_no_name_is_refused(make_model: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="device is 'gpu', expected auto or cuda or mps or cpu"):
        Translator.load(make_model(Identity, image_encoding()), device="gpu")  # type: ignore[arg-type]


def test_pictures_show_no_data_in_grey() -> None:
    values = np.full((3, 2, 2), 255, np.uint8)
    valid = np.array([[True, False], [True, True]])
    picture = render(values, valid, image_encoding())
    assert picture.shape == (2, 2, 3)
    assert picture[0, 1].tolist() == [225, 225, 225] and picture[0, 0].tolist() == [255, 255, 255]


def test_four_8_bit_bands_come_out_as_four(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 90, 90), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(90, 90), photometric="minisblack", alpha="no")
    predict(make_model(Identity, image_encoding(bands=4)), path, tmp_path / "out.tif", SMALL)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.array_equal(dataset.read(), values)
        assert "alpha" not in [entry.name for entry in dataset.colorinterp]


def test_classes_the_model_never_saw(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    encoding = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES)
    model, codes = make_model(Identity, encoding), class_map(80, 80)
    strange = write_raster(tmp_path / "strange.tif", codes + 100, grid(80, 80))
    with pytest.raises(
        RasterError,
        match=r"has the classes 105 \(2368 of 6400 pixels\), 102 .*, 101 .*, the model knows 1 water, 2 meadow, 5 road",
    ):
        predict(model, strange, tmp_path / "out.tif", SMALL)
    codes[0, :9, :9] = 77
    some = write_raster(tmp_path / "some.tif", codes, grid(80, 80))
    predict(model, some, tmp_path / "out.tif", SMALL)
    assert "the model never saw the classes 77 (81 of 6400 pixels) of a sample" in caplog.text


def test_values_in_other_units_are_noticed(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_raster(tmp_path / "in.tif", np.full((1, 70, 70), 9000, np.uint16), grid(70, 70))
    predict(make_model(Identity, image_encoding("uint16", 1, 0, 255)), path, tmp_path / "out.tif", SMALL)
    assert "100 % of the values lie outside those of the training" in caplog.text


def test_a_run_killed_while_the_cog_is_made_is_continued(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import geop2p.mosaic.assembly as assembly

    values = np.random.default_rng(0).integers(0, 255, (3, 100, 100), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(100, 100))
    model = make_model(TileMean, image_encoding())
    whole = predict(model, path, tmp_path / "whole.tif", SMALL)

    def dying(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(assembly, "write_style", dying)
        predict(model, path, tmp_path / "out.tif", SMALL)
    assert not (tmp_path / "out.tif").exists()
    result = predict(model, path, tmp_path / "out.tif", SMALL)
    assert result.network_px_per_px == whole.network_px_per_px
    assert (tmp_path / "out.qml").exists() and not (tmp_path / "out.tif.parts").exists()
    assert {entry.name for entry in tmp_path.glob(".*")} == set()


def test_nothing_of_a_replaced_raster_stays(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    path = write_raster(tmp_path / "in.tif", np.full((3, 70, 70), 9, np.uint8), grid(70, 70))
    (tmp_path / "out.tif").write_bytes(path.read_bytes())
    (tmp_path / "out.tif.aux.xml").write_text("<PAMDataset/>")
    predict(make_model(Identity, image_encoding()), path, tmp_path / "out.tif", SMALL, overwrite=True)
    assert not (tmp_path / "out.tif.aux.xml").exists()


def test_the_input_is_never_the_output(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    path = write_raster(tmp_path / "in.tif", np.full((3, 70, 70), 9, np.uint8), grid(70, 70))
    model, before = make_model(Identity, image_encoding()), path.read_bytes()
    with pytest.raises(RasterError, match="is the input"):
        predict(model, path, path, SMALL, overwrite=True)
    with pytest.raises(RasterError, match=r"give a name that ends in \.tif"):
        predict(model, path, tmp_path / "out.png", SMALL)
    assert path.read_bytes() == before


def test_mismatch_is_in_physical_units(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values = np.random.default_rng(0).uniform(0, 255, (1, 150, 150)).astype(np.float32)
    values += np.arange(150)
    path = write_raster(tmp_path / "in.tif", values, grid(150, 150))
    results = []
    for scale in (1.0, 1e-4):
        source, target = (Encoding("image", "float32", (Band(scale=s, low=0, high=400),)) for s in (1.0, scale))
        results.append(predict(make_model(TileMean, source, target), path, tmp_path / f"{scale}.tif", SMALL))
    one, other = results
    assert one.tile_mismatch is not None and other.tile_mismatch == pytest.approx(one.tile_mismatch * 1e-4)
    assert other.tile_mismatch_percent == pytest.approx(one.tile_mismatch_percent)


@pytest.mark.parametrize(
    ("trained", "pixel", "fits"),
    [
        (None, 2.08, True),
        (None, 2.2, False),
        (((2.0, 2.0), (4.0, 4.0)), 2.2, True),
        (((2.0, 2.0), (4.0, 4.0)), 1.92, True),
        (((2.0, 2.0), (4.0, 4.0)), 4.16, True),
        (((2.0, 2.0), (4.0, 4.0)), 4.4, False),
        (((2.0, 3.9), (2.1, 4.1)), 4.0, False),  # of each axis for itself
    ],
)
def test_any_pixel_size_of_the_training_stays_on_the_grid_of_the_input(
    make_model: Callable[..., Path], trained: PixelRange | None, pixel: float, fits: bool
) -> None:
    card = read_card(make_model(Identity, image_encoding(), pixel_range=trained))
    here = grid(90, 110, pixel=pixel)
    assert (output_grid(here, card, no_resample=False) is here) == fits


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_a_size_is_the_same_within_five_percent_on_both_axes(axes: tuple[int, ...]) -> None:
    for factor, is_same in ((0.949, False), (0.951, True), (1.049, True), (1.051, False)):
        found = tuple(size * factor if axis in axes else size for axis, size in enumerate((8.0, 11.0)))
        assert has_size(found, ((8.0, 11.0), (8.0, 11.0))) == is_same


@pytest.mark.parametrize(("pixel", "made"), [(40.0, 20.0), (5.0, 10.0), (1000.0, 20.0)])
def test_other_pixels_are_read_at_the_nearest_size_of_the_training(
    make_model: Callable[..., Path], pixel: float, made: float
) -> None:
    known = ((10.0, 10.0), (20.0, 20.0))
    card = read_card(make_model(Identity, image_encoding(), pixel_size=(10.0, 10.0), pixel_range=known))
    size = output_grid(grid(90, 110, pixel=pixel), card, no_resample=False).pixel_size
    assert size == pytest.approx((made, made), rel=1e-2)


def test_pixels_that_are_no_squares_are_told_by_both_sides() -> None:
    assert in_metres((10.0, 10.05)) == "10.02 m"
    assert in_metres((8.0, 11.0)) == "8 m down and 11 m along"
    assert range_in_metres(((8.0, 8.0), (8.05, 8.0))) == "8 m"
    assert range_in_metres(((8.0, 8.0), (40.0, 40.0))) == "8 m to 40 m"
    assert range_in_metres(None) == "unknown size"


def test_both_sides_of_a_training_pixel_are_kept(make_model: Callable[..., Path]) -> None:
    card = read_card(make_model(Identity, image_encoding(), pixel_size=(8.0, 11.0)))
    made = output_grid(grid(200, 300, pixel=20.0), card, no_resample=False)
    assert made.pixel_size == pytest.approx((8.0, 11.0), rel=1e-3)
