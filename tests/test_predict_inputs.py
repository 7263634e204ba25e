"""What `predict` takes: vector layers, maps with codes of their own, and the grid that was asked for."""

import logging
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import CLASSES, UTM, Identity, class_map, grid, image_encoding, write_raster
from shapely.geometry import LineString, Point, box

from geop2p import PredictConfig, predict
from geop2p.errors import ConfigError, GridMismatchError, RasterError
from geop2p.mosaic.classes import match_classes
from geop2p.raster.encoding import Band, Encoding, MapClass
from geop2p.raster.grid import Grid

MAP = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES)
TOP = 5_300_000


def layer(tmp_path: Path, crs: str = "EPSG:32632") -> Path:
    """A lake in a meadow, a road through both, and a kind of ground that no model knows."""
    shapes = [
        ("meadow", box(500_000, TOP - 200, 500_300, TOP)),
        ("water", box(500_100, TOP - 150, 500_200, TOP - 50)),
        ("road", LineString([(500_000, TOP - 101), (500_300, TOP - 101)])),
        ("lava", Point(500_050, TOP - 30)),
    ]
    kinds, geometry = zip(*shapes, strict=True)
    path = tmp_path / "ground.gpkg"
    geopandas.GeoDataFrame({"kind": kinds}, geometry=list(geometry), crs="EPSG:32632").to_crs(crs).to_file(path)
    return path


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
def test_a_vector_layer_is_drawn_on_the_pixels_of_the_training(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture, crs: str
) -> None:
    model = make_model(Identity, MAP)
    settings = PredictConfig(source_field="kind", line_width=6, draw_order="meadow,water,road", tile_size=64)
    result = predict(model, layer(tmp_path, crs), tmp_path / "out.tif", settings)
    assert (result.width, result.height) == pytest.approx((152, 101), abs=3)
    assert "never saw the classes lava (1 features)" in caplog.text
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.crs == UTM and dataset.res == pytest.approx((2, 2), rel=1e-3)
        places = [(500_150, TOP - 70), (500_050, TOP - 180), (500_250, TOP - 101)]
        codes = [int(value) for (value,) in dataset.sample(places)]
    assert codes == [1, 2, 5]


def test_ground_without_features_is_left_out_or_background(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    like = write_raster(tmp_path / "like.tif", np.zeros((1, 150, 200), np.uint8), grid(150, 200))
    settings = PredictConfig(source_field="kind", like=like, tile_size=64)
    predict(make_model(Identity, MAP), layer(tmp_path), tmp_path / "bare.tif", settings)
    with_background = Encoding(
        "classes", "uint8", (Band(),), nodata=0.0, classes=(*CLASSES, MapClass(9, "background", (1, 1, 1)))
    )
    predict(make_model(Identity, with_background), layer(tmp_path), tmp_path / "full.tif", settings)
    with rasterio.open(tmp_path / "bare.tif") as bare, rasterio.open(tmp_path / "full.tif") as full:
        assert bare.transform == full.transform == grid(150, 200).transform
        assert (bare.read(1)[:100, 151:] == 0).all() and (bare.read(1)[:100, :150] != 0).all()
        assert (full.read(1)[:100, 151:] == 9).all() and set(np.unique(full.read(1))) <= {1, 2, 5, 9}


def test_a_vector_layer_that_the_model_cannot_read(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    path, output = layer(tmp_path), tmp_path / "out.tif"
    with pytest.raises(RasterError, match="is a vector layer, the model expects image"):
        predict(make_model(Identity, image_encoding()), path, output)
    model = make_model(Identity, MAP)
    with pytest.raises(RasterError, match="has the classes feature, the model knows water, meadow, road; choose the"):
        predict(model, path, output)
    with pytest.raises(RasterError, match="has no field 'sort'; it has kind"):
        predict(model, path, output, PredictConfig(source_field="sort"))
    raster = write_raster(tmp_path / "map.tif", class_map(80, 80), grid(80, 80))
    with pytest.raises(ConfigError, match="are for vector layers"):
        predict(model, raster, output, PredictConfig(source_field="kind"))
    placeless = make_model(Identity, MAP, pixel_size=None)
    with pytest.raises(GridMismatchError, match="give a grid with --like"):
        predict(placeless, path, output, PredictConfig(source_field="kind"))
    assert not list(tmp_path.glob("out*"))


def named(tmp_path: Path, codes: np.ndarray, names: dict[int, str]) -> Path:
    path = write_raster(tmp_path / "map.tif", codes, grid(*codes.shape[1:]))
    entries = "".join(f"<Category>{names.get(code, '')}</Category>" for code in range(max(names) + 1))
    Path(f"{path}.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{entries}</CategoryNames></PAMRasterBand></PAMDataset>'
    )
    return path


def test_classes_are_matched_by_name_then_by_value(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    codes = class_map(80, 90)
    own = np.select([codes == 1, codes == 2, codes == 5], [7, 1, 5]).astype(np.uint8)
    path = named(tmp_path, own, {1: "Meadow", 7: "water "})  # 5 has no name: it keeps its value
    predict(make_model(Identity, MAP), path, tmp_path / "out.tif", PredictConfig(tile_size=64))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.array_equal(dataset.read(), codes)
    assert "1 Meadow is the model's 2, 7 water is the model's 1" in caplog.text
    assert "never saw" not in caplog.text


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, {}),
        ({1: "water", 2: "meadow", 5: "road"}, {}),
        ({1: "class 1", 2: "class 2"}, {}),  # names that tell nothing
        ({1: "meadow", 2: "water"}, {1: 2, 2: 1}),
        ({2: "road"}, {2: 5, 5: 0}),  # 5 is no road here: 0 is no class
        ({1: "forest", 3: "water"}, {3: 1, 1: 0}),
    ],
)
def test_codes_of_an_input(names: dict[int, str], expected: dict[int, int]) -> None:
    assert match_classes("map.tif", names, CLASSES) == expected


def test_the_grid_that_was_asked_for(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    model = make_model(Identity, image_encoding())
    ramp = np.broadcast_to(np.arange(120, dtype=np.uint8), (3, 100, 120))
    path = write_raster(tmp_path / "in.tif", ramp.copy(), grid(100, 120))
    moved = Grid(UTM, Affine(2, 0, 500_011, 0, -2, TOP - 20), 60, 70)
    like = write_raster(tmp_path / "like.tif", np.zeros((1, 60, 70), np.uint8), moved)
    predict(model, path, tmp_path / "out.tif", PredictConfig(like=like, tile_size=64))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.transform == moved.transform and dataset.shape == (60, 70)
        assert np.abs(dataset.read(1)[30].astype(float) - (np.arange(70) + 5.5)).max() <= 0.5
    coarse = write_raster(tmp_path / "coarse.tif", np.zeros((1, 9, 9), np.uint8), grid(9, 9, pixel=5))
    with pytest.raises(GridMismatchError, match=r"pixels of 5\.002 m, the model was trained on 2 m; give a grid"):
        predict(model, path, tmp_path / "no.tif", PredictConfig(like=coarse))


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A raster of 128-pixel blocks, one of which is damaged; its values."""
    values = np.random.default_rng(0).integers(0, 255, (3, 300, 420), dtype=np.uint8)
    layout = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate", "interleave": "pixel"}
    path = write_raster(tmp_path / "in.tif", values, grid(300, 420), **layout)
    with rasterio.open(path) as dataset:
        offset = int(dataset.tags(1, ns="TIFF")["BLOCK_OFFSET_2_1"]) if dataset.tags(1, ns="TIFF") else None
        if offset is None:
            offset = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[offset + 2 : offset + 400] = b"\xff" * 398
    path.write_bytes(data)
    return path, values


@pytest.mark.parametrize("overlap", [None, 0.5])
def test_a_block_that_cannot_be_read_is_named_or_left_out(
    tmp_path: Path, make_model: Callable[..., Path], broken: tuple[Path, np.ndarray], overlap: float | None,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path, values = broken
    model = make_model(Identity, image_encoding())
    with pytest.raises(RasterError, match=r"in\.tif"):
        predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=64, overlap=overlap))
    assert not (tmp_path / "out.tif").exists()
    predict(model, path, tmp_path / "skipped.tif", PredictConfig(tile_size=64, overlap=overlap, skip_bad=True))
    assert caplog.text.count("block (1, 2) of 128 x 128 pixels is left without data") == 1
    with rasterio.open(tmp_path / "skipped.tif") as dataset:
        made, valid = dataset.read(), dataset.dataset_mask() > 0
    expected = np.ones((300, 420), bool)
    expected[128:256, 256:384] = False
    assert np.array_equal(valid, expected) and np.array_equal(made[:, valid], values[:, valid])


def test_no_room_is_said_before_the_start(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    class Usage:
        free = 10_000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    path = write_raster(tmp_path / "in.tif", np.zeros((3, 80, 80), np.uint8), grid(80, 80))
    with pytest.raises(RasterError, match=r"GB are free, parts and mosaic take about .* GB; make room"):
        predict(make_model(Identity, image_encoding()), path, tmp_path / "out.tif")
    assert not list(tmp_path.glob("out*"))


def test_a_grid_elsewhere_is_refused(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    model = make_model(Identity, image_encoding())
    path = write_raster(tmp_path / "in.tif", np.zeros((3, 80, 80), np.uint8), grid(80, 80))
    far = write_raster(tmp_path / "far.tif", np.zeros((1, 9, 9), np.uint8), grid(9, 9, left=900_000.0))
    with pytest.raises(GridMismatchError, match="lies elsewhere than the grid that --like gives"):
        predict(model, path, tmp_path / "out.tif", PredictConfig(like=far))
    assert not list(tmp_path.glob("out*"))


def test_vector_layers_take_codes_of_any_size(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    known = (MapClass(311, "meadow", (1, 2, 3)), MapClass(511, "water", (4, 5, 6)))
    corine = Encoding("classes", "uint16", (Band(),), nodata=0.0, classes=known)
    settings = PredictConfig(source_field="kind", tile_size=64)
    predict(make_model(Identity, corine), layer(tmp_path), tmp_path / "out.tif", settings)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        (water,), (meadow,) = dataset.sample([(500_150, TOP - 70), (500_250, TOP - 180)])
    assert (water, meadow) == (511, 311)


def test_names_that_contradict_a_value_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert match_classes("map.tif", {1: "desert", 2: "meadow", 5: "glacier"}, CLASSES) == {}
    assert "takes 1 desert for water, 5 glacier for road, by the value alone" in caplog.text
    caplog.clear()
    assert match_classes("map.tif", {1: "forest", 2: "lava", 5: "Meadow"}, CLASSES) == {5: 2, 2: 0}
    assert "5 Meadow is the model's 2, 2 lava is none of them" in caplog.text
    assert "takes 1 forest for water" in caplog.text
