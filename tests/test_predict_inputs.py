"""What `predict` takes: vector layers, maps with codes of their own, and the grid that was asked for."""

import contextlib
import dataclasses
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from conftest import CLASSES, UTM, Identity, class_map, grid, image_encoding, write_names, write_raster
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform
from rasterio.windows import Window
from shapely.affinity import translate
from shapely.geometry import LineString, Point, Polygon, box
from torch import nn

import geop2p.mosaic.mosaic as mosaic_module
import geop2p.mosaic.predictor as predictor
from geop2p import PredictConfig, predict
from geop2p.errors import ConfigError, GridMismatchError, RasterError
from geop2p.mosaic.aoi import outside_share
from geop2p.mosaic.checks import check_space
from geop2p.mosaic.classes import codes_by_name, match_classes
from geop2p.mosaic.grids import framed
from geop2p.raster.class_table import class_name
from geop2p.raster.damaged import DamagedReader
from geop2p.raster.encoding import Band, Encoding, MapClass
from geop2p.raster.grid import Grid
from geop2p.raster.vectors import Area, VectorReader, read_vector

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


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
@pytest.mark.parametrize(("width", "height"), [(300, 200), (301, 203), (0, 0), (0, 121)])
def test_lines_and_points_on_the_edges_of_a_layer_are_drawn(
    tmp_path: Path, make_model: Callable[..., Path], crs: str, width: int, height: int
) -> None:
    corners = [(500_000, TOP), (500_000 + width, TOP), (500_000 + width, TOP - height), (500_000, TOP - height)]
    shapes = [LineString(edge) if edge[0] != edge[1] else Point(edge[0]) for edge in pairwise([*corners, corners[0]])]
    frame = geopandas.GeoDataFrame({"kind": ["road"] * 4}, geometry=shapes, crs="EPSG:32632").to_crs(crs)
    frame.to_file(tmp_path / "edges.gpkg")
    settings = PredictConfig(source_field="kind", tile_size=64)
    predict(make_model(Identity, MAP), tmp_path / "edges.gpkg", tmp_path / "out.tif", settings)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        drawn = dataset.read(1) == 5
    if crs == "EPSG:32632":
        assert drawn[[0, -1]].all() and drawn[:, [0, -1]].all()
    rows, cols = drawn.any(axis=1), drawn.any(axis=0)
    assert rows.sum() == pytest.approx(height / 2 + 1, abs=2) and cols.sum() == pytest.approx(width / 2 + 1, abs=2)


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


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
def test_ground_without_features_is_background_as_far_as_the_area_reaches(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture, crs: str
) -> None:
    """On the pixels that the layer alone has, all around it."""
    known = dataclasses.replace(MAP, classes=(*CLASSES, MapClass(9, "background", (1, 1, 1))))
    model, settings = make_model(Identity, known, stride=32), PredictConfig(source_field="kind", tile_size=64)
    predict(model, layer(tmp_path), tmp_path / "alone.tif", settings)
    around = box(500_000 - 90, TOP - 340, 500_300 + 110, TOP + 50)
    aoi = tmp_path / "aoi.gpkg"
    geopandas.GeoDataFrame(geometry=[around], crs="EPSG:32632").to_crs(crs).to_file(aoi)
    predict(model, layer(tmp_path), tmp_path / "all.tif", dataclasses.replace(settings, aoi=aoi))
    with rasterio.open(tmp_path / "alone.tif") as alone, rasterio.open(tmp_path / "all.tif") as every:
        assert every.bounds == pytest.approx(around.bounds, abs=3)
        (col, row), codes, own = ~every.transform @ (alone.transform.c, alone.transform.f), every.read(1), alone.read(1)
        assert (col, row) == pytest.approx((round(col), round(row)), abs=1e-6)
        inside = np.s_[round(row) : round(row) + alone.height, round(col) : round(col) + alone.width]
        assert np.array_equal(codes[inside], own)
        beyond = every.index(500_304, TOP - 101)[1]  # the road touches one pixel more
        assert (codes[2:-2, beyond:-2] == 9).all() and (codes[2 : round(row), 2:-2] == 9).all()
    assert "left out" not in caplog.text and "the rest is background" not in caplog.text
    far = tmp_path / "far.gpkg"
    geopandas.GeoDataFrame(geometry=[around.buffer(2500)], crs="EPSG:32632").to_crs(crs).to_file(far)
    predict(model, layer(tmp_path), tmp_path / "far.tif", dataclasses.replace(settings, aoi=far))
    assert re.search(r"covers 0\.\d+ % of the 2\d{3} x 2\d{3} pixels that .*far.gpkg reaches to", caplog.text)
    predict(make_model(Identity, MAP), layer(tmp_path), tmp_path / "bare.tif", dataclasses.replace(settings, aoi=aoi))
    assert "ends within the area of" in caplog.text and " % of that is left out" in caplog.text


def test_features_called_background_are_no_class_of_the_model(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The code 1, which background has in chip sets of vector layers, may be that of another class."""
    shapes = [box(500_000, TOP - 200, 500_300, TOP), box(500_100, TOP - 150, 500_200, TOP - 50)]
    path = tmp_path / "ground.gpkg"
    geopandas.GeoDataFrame({"kind": ["meadow", "background"]}, geometry=shapes, crs="EPSG:32632").to_file(path)
    like = write_raster(tmp_path / "like.tif", np.zeros((1, 150, 200), np.uint8), grid(150, 200))
    settings = PredictConfig(source_field="kind", like=like, tile_size=64)
    predict(make_model(Identity, MAP), path, tmp_path / "out.tif", settings)
    assert "never saw the classes background (1 features)" in caplog.text
    kinds = read_vector(path, "kind", CLASSES)
    assert kinds.features["code"].tolist() == [2, 6] and kinds.classes[0].value == 6
    drawn, _ = VectorReader(kinds, grid(150, 200)).read(Window(0, 0, 200, 150))
    assert drawn[0, 50, 75] == drawn[0, 50, 180] == 6 and drawn[0, 10, 10] == 2


def test_names_that_differ_in_capitals_are_the_same_unless_the_layer_has_both(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    shapes = [box(500_000 + 100 * number, TOP - 200, 500_100 + 100 * number, TOP) for number in range(4)]
    path = tmp_path / "ground.gpkg"

    def codes(*kinds: str) -> list[int]:
        geopandas.GeoDataFrame({"kind": kinds}, geometry=shapes, crs="EPSG:32632").to_file(path)
        return read_vector(path, "kind", CLASSES).features["code"].tolist()

    caplog.set_level(logging.INFO)
    assert codes("Meadow", "WATER ", "road", "lava") == [2, 1, 5, 7]
    assert "takes 'Meadow' for 'meadow', 'WATER ' for 'water'" in caplog.text
    assert len(set(codes("Meadow", "meadow", "Road", "ROAD"))) == 4
    settings = PredictConfig(source_field="kind", tile_size=64)
    codes("Meadow", "Water", "Road", "Road")
    predict(make_model(Identity, MAP), path, tmp_path / "out.tif", settings)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        places = [(500_050 + 100 * number, TOP - 100) for number in range(4)]
        assert [int(value) for (value,) in dataset.sample(places)] == [2, 1, 5, 5]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035", "EPSG:32632"])
@pytest.mark.parametrize("window", [Window(30, 41, 60, 70), Window(0, 7, 113, 90), Window(5, 0, 7, 3)])
def test_an_area_on_the_edges_of_pixels_holds_no_more(tmp_path: Path, crs: str, window: Window) -> None:
    where, path = grid(150, 200, pixel=0.5), tmp_path / "area.gpkg"
    shape = box(*where.window(window).bounds)
    geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:32632").to_crs(crs).to_file(path)
    assert Area(path, where).window(Window(0, 0, 200, 150)) == window


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
def test_the_share_of_an_area_beyond_a_raster_is_told_in_any_crs(tmp_path: Path, crs: str) -> None:
    where = Grid(CRS.from_string(crs), Affine(0.5, 0, 9, 0, -0.5, 48), 4, 6)
    geopandas.GeoDataFrame(geometry=[box(9, 46, 14, 48), box(20, 46, 21, 48)], crs=crs).to_file(tmp_path / "area.gpkg")
    assert outside_share(where, tmp_path / "area.gpkg") == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [box(179.9, 13, 180.1, 13.2), box(-180.1, 13, -179.9, 13.2)])
def test_an_area_across_the_edge_of_a_map_of_the_world_is_whole(tmp_path: Path, shape: Polygon) -> None:
    """Web Mercator counts on beyond 180 degrees where a raster does."""
    geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:4326").to_file(tmp_path / "area.gpkg")
    where = Grid(CRS.from_epsg(3857), Affine(500, 0, 20_037_508 - 50_000, 0, -500, 1_500_000), 120, 200)
    assert outside_share(where, tmp_path / "area.gpkg") == pytest.approx(0, abs=1e-9)
    half = where.window(Window(0, 0, 100, 120))
    assert outside_share(half, tmp_path / "area.gpkg") == pytest.approx(0.5, abs=0.01)
    found = Area(tmp_path / "area.gpkg", where).window(Window(0, 0, 200, 120))
    assert abs(found.col_off - 78) <= 1 and abs(found.width - 44) <= 2


@pytest.mark.parametrize("shape", [box(-180, -90, 180, 90), box(100, 50, 180, 70), box(-180, 0, -170, 10)])
def test_an_area_on_the_edge_of_the_world_is_not_outside_of_it(tmp_path: Path, shape: Polygon) -> None:
    geopandas.GeoDataFrame(geometry=[shape], crs=4326).to_file(tmp_path / "area.gpkg")
    earth = Grid(CRS.from_epsg(4326), Affine(0.5, 0, -180, 0, -0.5, 90), 360, 720)
    assert outside_share(earth, tmp_path / "area.gpkg") == pytest.approx(0, abs=1e-9)


def test_an_area_partly_off_the_earth_is_not_measured(tmp_path: Path) -> None:
    shapes = [box(2e6, 1e6, 3e7, 5e6), box(3e6, 3e6, 4e6, 4e6)]
    geopandas.GeoDataFrame(geometry=shapes, crs=3035).to_file(tmp_path / "area.gpkg")
    earth = Grid(CRS.from_epsg(4326), Affine(0.5, 0, -180, 0, -0.5, 90), 360, 720)
    assert outside_share(earth, tmp_path / "area.gpkg") == 0


@pytest.mark.parametrize("left", [-169.5, 190.5, 179.0])
@pytest.mark.parametrize("far", [-360, 0, 360])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4258"])
def test_longitudes_of_an_area_may_be_written_a_turn_away(tmp_path: Path, left: float, far: float, crs: str) -> None:
    where = Grid(CRS.from_epsg(4326), Affine(0.01, 0, left, 0, -0.01, 1.0), 100, 200)
    inside = Window(30, 40, 120, 50)  # across 180 degrees, the last of three
    shapes = [translate(where.window(inside).footprint, far), box(-10, -1, 10, 1)]
    geopandas.GeoDataFrame(geometry=shapes, crs=crs).to_file(tmp_path / "area.gpkg")
    assert Area(tmp_path / "area.gpkg", where).window(Window(0, 0, 200, 100)) == inside
    earth = geopandas.GeoDataFrame(geometry=[box(-180, -90, 180, 90)], crs=crs)
    earth.to_file(tmp_path / "earth.gpkg")
    assert Area(tmp_path / "earth.gpkg", where).mask(Window(0, 0, 200, 100)).all()


UNNAMED = tuple(dataclasses.replace(entry, name=class_name(entry.value)) for entry in CLASSES)
NUMBERED = tuple(dataclasses.replace(entry, name=str(entry.value - 1)) for entry in CLASSES)


@pytest.mark.parametrize(
    ("values", "known", "codes", "level"),
    [
        ([1, 2, 5], UNNAMED, [1, 2, 5], logging.INFO),
        ([1.0, 2.0, 5.0], UNNAMED, [1, 2, 5], logging.INFO),
        (["1", "2.0", " 5"], UNNAMED, [1, 2, 5], logging.INFO),
        ([1, 5, 5], CLASSES, [1, 5, 5], logging.WARNING),  # names that may say otherwise
        (["1", "2", "road"], CLASSES, [7, 8, 5], None),  # a name means that the numbers are names
        ([1, 2, 6], CLASSES, [7, 8, 9], None),
        ([1.5, 2, 5], CLASSES, [7, 8, 9], None),
        ([0, 1, 4], NUMBERED, [1, 2, 5], None),  # by the name
        ([2, 5, 5], NUMBERED, [7, 8, 8], None),  # numbers as names: others are other classes
        ([1, 2, 2], (MapClass(1, "background", (0, 0, 0)), MapClass(2, "road", (1, 1, 1))), [3, 4, 4], None),
    ],
)
def test_codes_in_a_field_are_those_of_the_model_where_no_name_is(
    tmp_path: Path, values: list, known: tuple[MapClass, ...], codes: list[int], level: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    shapes = [box(500_000 + 100 * number, TOP - 200, 500_100 + 100 * number, TOP) for number in range(3)]
    path = tmp_path / "ground.gpkg"
    geopandas.GeoDataFrame({"code": values}, geometry=shapes, crs="EPSG:32632").to_file(path)
    assert read_vector(path, "code", known).features["code"].tolist() == codes
    said = [record.levelno for record in caplog.records if "matched by code" in record.message]
    assert said == ([] if level is None else [level])


def test_a_field_of_codes_is_translated(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    path, model = tmp_path / "ground.gpkg", make_model(Identity, dataclasses.replace(MAP, classes=UNNAMED))
    ground = geopandas.GeoDataFrame({"code": [5]}, geometry=[box(500_000, TOP - 200, 500_300, TOP)], crs="EPSG:32632")
    ground.to_file(path)
    predict(model, path, tmp_path / "out.tif", PredictConfig(source_field="code", tile_size=64))
    assert (pixels(tmp_path / "out.tif") == 5).all()
    ground.assign(code=7).to_file(path)
    with pytest.raises(RasterError, match="has the classes 7, the model knows 1 class 1, 2 class 2, 5 class 5; choose"):
        predict(model, path, tmp_path / "no.tif", PredictConfig(source_field="code"))


def test_a_vector_layer_that_the_model_cannot_read(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    path, output = layer(tmp_path), tmp_path / "out.tif"
    with pytest.raises(RasterError, match="is a vector layer, the model expects image"):
        predict(make_model(Identity, image_encoding()), path, output)
    model = make_model(Identity, MAP)
    with pytest.raises(RasterError, match="has the classes feature, the model knows 1 water, 2 meadow, 5 road; choose"):
        predict(model, path, output)
    with pytest.raises(RasterError, match="has no field 'sort'; it has kind"):
        predict(model, path, output, PredictConfig(source_field="sort"))
    raster = write_raster(tmp_path / "map.tif", class_map(80, 80), grid(80, 80))
    for name in (".", "", "/"):
        with pytest.raises(RasterError, match="is to be a GeoTIFF; give a name that ends in"):
            predict(model, raster, name)
    with pytest.raises(ConfigError, match="are for vector layers"):
        predict(model, raster, output, PredictConfig(source_field="kind"))
    with pytest.raises(RasterError, match=r"none\.xyz: no such file"):
        predict(model, tmp_path / "none.xyz", output, PredictConfig(source_field="kind"))
    placeless = make_model(Identity, MAP, pixel_size=None)
    with pytest.raises(GridMismatchError, match="give a grid with --like"):
        predict(placeless, path, output, PredictConfig(source_field="kind"))
    assert not list(tmp_path.glob("out*"))


def named(tmp_path: Path, codes: np.ndarray, names: dict[int, str]) -> Path:
    path = write_raster(tmp_path / "map.tif", codes, grid(*codes.shape[1:]))
    write_names(path, (names.get(code, "") for code in range(max(names) + 1)))
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


@pytest.mark.parametrize(("dtype", "wide"), [("uint16", (111, 311, 512)), ("int16", (-7, 2, 300))])
def test_codes_of_a_model_need_not_fit_the_type_of_an_input(
    tmp_path: Path, make_model: Callable[..., Path], dtype: str, wide: tuple[int, ...]
) -> None:
    classes = tuple(dataclasses.replace(entry, value=value) for entry, value in zip(CLASSES, wide, strict=True))
    model = make_model(Identity, dataclasses.replace(MAP, dtype=dtype, classes=classes))
    codes = class_map(80, 90)
    path = named(tmp_path, codes, {entry.value: entry.name for entry in CLASSES})
    predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=64))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.array_equal(dataset.read(), np.select([codes == entry.value for entry in CLASSES], wide))


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


class Blur(Identity):
    """A mean over 17 x 17 pixels that takes what lies beyond the tile for 0."""

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(source, 17, 1, 8)


@pytest.mark.parametrize("settings", [{"field": 8}, {"statistics": "tile", "field": 8}], ids=["exact", "blend"])
def test_a_grid_inside_the_input_is_a_cut_of_the_whole(
    tmp_path: Path, make_model: Callable[..., Path], settings: dict
) -> None:
    """It sees the ground beyond its border, on the same tiles: two neighbours meet without a seam."""
    model = make_model(Blur, image_encoding(), **settings)
    values = np.random.default_rng(0).integers(0, 255, (3, 230, 310), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(230, 310))
    predict(model, path, tmp_path / "whole.tif", PredictConfig(tile_size=64))
    whole = pixels(tmp_path / "whole.tif")
    for row, col, height, width in ((0, 0, 50, 60), (37, 101, 90, 70), (37, 171, 90, 139)):
        moved = Grid(UTM, Affine(2, 0, 500_000 + 2 * col, 0, -2, TOP - 2 * row), height, width)
        like = write_raster(tmp_path / "like.tif", np.zeros((1, height, width), np.uint8), moved)
        predict(model, path, tmp_path / "out.tif", PredictConfig(like=like, tile_size=64), overwrite=True)
        with rasterio.open(tmp_path / "out.tif") as dataset:
            assert dataset.transform == moved.transform
            assert np.array_equal(dataset.read(), whole[:, row : row + height, col : col + width])


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_a_grid_that_is_no_cut_is_read_with_what_lies_around_it(tmp_path: Path) -> None:
    asked = Grid(UTM, Affine(2, 0, 500_011, 0, -2, TOP - 21), 60, 70)  # off the pixels of the input, by half of one
    around, frame = framed("a.tif", asked, grid(9000, 120), UTM, grid(9000, 120).bounds)
    assert (frame.col_off, frame.row_off, around.width) == (5, 10, 5 + 70 + 44)
    assert around.height == 10 + 60 + 2048 and around.window(frame) == asked
    beyond = Grid(UTM, Affine(2, 0, 500_230, 0, -2, TOP + 30), 60, 70)  # over the input's first corner, to the right
    around, frame = framed("a.tif", beyond, grid(9000, 120), UTM, grid(9000, 120).bounds)
    assert (frame.col_off, frame.row_off, around.width) == (115, 0, 115 + 70)
    globe = Grid(CRS.from_epsg(4326), Affine(0.1, 0, -180, 0, -0.1, 90), 1800, 3600)
    around, frame = framed("a.tif", asked, None, globe.crs, globe.bounds)
    assert (frame.col_off, frame.row_off, around.height, around.width) == (2048, 2048, 4156, 4166)
    with pytest.raises(GridMismatchError, match=r"a\.tif: lies elsewhere"):
        framed("a.tif", Grid(UTM, Affine(2, 0, 600_000, 0, -2, TOP), 9, 9), None, UTM, grid(90, 90).bounds)


@pytest.mark.parametrize(("east", "cols"), [(0, 90), (20_000, 300), (20_000, 2500)])
def test_grids_at_the_dateline_are_found_on_either_side(east: float, cols: int) -> None:
    """Two degrees before it, or those after 180 as they are written, or all of the globe."""
    fiji = CRS.from_epsg(32760)
    (left,), (top,) = transform(CRS.from_epsg(4326), fiji, [179.8], [-17.0])
    asked = Grid(fiji, Affine(10, 0, left + east, 0, -10, top), 300, cols)
    wgs84 = CRS.from_epsg(4326)
    for bounds in ((178.0, -19.0, 180.0, -16.0), (178.0, -19.0, 182.0, -16.0), (-180.0, -90.0, 180.0, 90.0)):
        around, frame = framed("a.tif", asked, None, wgs84, bounds)
        assert frame is not None and around.window(frame) == asked and frame.row_off == 2048
    with pytest.raises(GridMismatchError, match=r"a\.tif: lies elsewhere"):
        framed("a.tif", asked, None, wgs84, (10.0, -19.0, 12.0, -16.0))


def test_a_file_that_goes_away_is_no_damaged_block(tmp_path: Path) -> None:
    raster = Damaged({5})

    @contextlib.contextmanager
    def gone() -> Iterator[Damaged]:
        raise RasterError("in.tif: no such file")
        yield raster

    for skip in (True, False):
        with pytest.raises(RasterError, match=r"^in\.tif: no such file$"):
            DamagedReader(raster, (1, 8), gone, skip=skip).read(Window(0, 0, 8, 20))


def write_broken(path: Path, height: int, row: int) -> np.ndarray:
    """A raster of 128-pixel blocks, of which the third of a row of them is damaged; its values."""
    values = np.random.default_rng(0).integers(0, 255, (3, height, 420), dtype=np.uint8)
    layout = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate", "interleave": "pixel"}
    write_raster(path, values, grid(height, 420), **layout)
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item(f"BLOCK_OFFSET_2_{row}", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[offset + 2 : offset + 400] = b"\xff" * 398
    path.write_bytes(data)
    return values


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A raster with a damaged block; its values."""
    return tmp_path / "in.tif", write_broken(tmp_path / "in.tif", 300, 1)


@pytest.mark.parametrize("overlap", [None, 0.5])
def test_a_block_that_cannot_be_read_is_named_or_left_out(
    tmp_path: Path, make_model: Callable[..., Path], broken: tuple[Path, np.ndarray], overlap: float | None,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path, values = broken
    model = make_model(Identity, image_encoding())
    message = r"in\.tif: pixels .* damaged.*it is block \(1, 2\) of 128 x 128 pixels of the grid, which --skip-bad"
    with pytest.raises(RasterError, match=message):
        predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=64, overlap=overlap))
    assert not (tmp_path / "out.tif").exists()
    predict(model, path, tmp_path / "skipped.tif", PredictConfig(tile_size=64, overlap=overlap, skip_bad=True))
    with rasterio.open(tmp_path / "skipped.tif") as dataset:
        assert dataset.tags()["GEOP2P_SKIP_BAD"] == "YES"
    assert caplog.text.count("block (1, 2) of 128 x 128 pixels of the grid is left without data") == 1
    with rasterio.open(tmp_path / "skipped.tif") as dataset:
        made, valid = dataset.read(), dataset.dataset_mask() > 0
    expected = np.ones((300, 420), bool)
    expected[128:256, 256:384] = False
    assert np.array_equal(valid, expected) and np.array_equal(made[:, valid], values[:, valid])


@pytest.mark.parametrize("shard", [None, "1/1"])
def test_what_was_made_before_a_damaged_block_was_met_stays(
    tmp_path: Path, make_model: Callable[..., Path], shard: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command with --skip-bad goes on, and does not mix with one that would refuse what it skipped."""
    path = tmp_path / "in.tif"
    write_broken(path, 700, 5)
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: 512)
    model, output = make_model(Identity, image_encoding()), tmp_path / "out.tif"
    settings = PredictConfig(tile_size=64, shard=shard)
    skipping = dataclasses.replace(settings, skip_bad=True)
    with pytest.raises(RasterError, match="which --skip-bad leaves without data"):
        predict(model, path, output, settings)
    made = {part: part.stat().st_mtime_ns for part in (tmp_path / "out.tif.parts").glob("part_*.json")}
    assert len(made) == 1
    predict(model, path, output, dataclasses.replace(skipping, shard="1/1"))
    assert {part: part.stat().st_mtime_ns for part in made} == made
    with pytest.raises(ConfigError, match=r"another skip_bad \(True, now False\)"):
        predict(model, path, output, settings)
    skipping = dataclasses.replace(skipping, shard=None)
    predict(model, path, output, skipping)
    predict(model, path, tmp_path / "fresh.tif", skipping)
    with rasterio.open(output) as dataset, rasterio.open(tmp_path / "fresh.tif") as fresh:
        assert np.array_equal(dataset.read(), fresh.read())
        assert np.array_equal(dataset.dataset_mask(), fresh.dataset_mask())


class Damaged:
    """Rows of one block each, some of which cannot be read; counts how often it is opened."""

    grid = grid(300, 8)

    def __init__(self, bad: set[int]) -> None:
        self.bad, self.opened = bad, 0

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(int(window.row_off), int(window.row_off + window.height))
        if self.bad & set(rows.tolist()):
            raise RasterError("damaged")
        values = np.broadcast_to(rows[None, :, None], (1, len(rows), int(window.width)))
        return values, np.ones(values.shape[1:], bool)

    @contextlib.contextmanager
    def anew(self) -> Iterator["Damaged"]:
        self.opened += 1
        yield self


@given(st.sets(st.integers(0, 299), max_size=4), st.integers(0, 250), st.integers(1, 50))
def test_few_files_are_opened_to_find_what_cannot_be_read(bad: set[int], first: int, height: int) -> None:
    raster = Damaged(bad)
    reader = DamagedReader(raster, (1, 8), raster.anew, skip=True)
    window = Window(1, first, 6, height)
    here = [row - first for row in bad if first <= row < first + height]
    expected = np.ones((height, 6), bool)
    expected[here] = False
    for _ in range(2):
        values, valid = reader.read(window)
        assert np.array_equal(valid, expected)
        rows = np.broadcast_to(np.arange(first, first + height)[:, None], (height, 6))
        assert np.array_equal(values[0], np.where(expected, rows, 0))
        assert (
            raster.opened <= (2 + 2 * math.ceil(math.log2(height))) * max(1, len(here)) if here else not raster.opened
        )
        raster.opened = 0


def test_no_room_is_said_before_the_start(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    class Usage:
        free = 10_000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    path = write_raster(tmp_path / "in.tif", np.zeros((3, 80, 80), np.uint8), grid(80, 80))
    with pytest.raises(
        RasterError, match=r"GB are free, parts and mosaic take .* GB on 80x80 EPSG:32632 .*; make room"
    ):
        predict(make_model(Identity, image_encoding()), path, tmp_path / "out.tif")
    assert not list(tmp_path.glob("out*"))


def test_the_room_that_is_asked_for_holds_what_is_written(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts and mosaic of an image with the noise of a sensor, which compresses as such do."""
    draw, taken = np.random.default_rng(0), list[int]()
    smooth = np.linspace(60, 180, 700)[:, None] + 20 * np.sin(np.arange(900) / 40)
    values = np.clip(smooth + draw.normal(0, 6, (3, 700, 900)), 0, 255).astype(np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(700, 900))
    remove = predictor.remove_folder

    def watched(folder: Path) -> None:
        taken.append(sum(file.stat().st_size for file in folder.rglob("*.tif")))
        remove(folder)

    monkeypatch.setattr(predictor, "remove_folder", watched)
    model, asked = make_model(Identity, image_encoding(), statistics="tile"), list[Any]()
    monkeypatch.setattr(predictor, "check_space", lambda *given: asked.append(given))
    predict(model, path, tmp_path / "out.tif")
    used = taken[0] + (tmp_path / "out.tif").stat().st_size

    class Usage:
        free = used

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(RasterError, match="make room"):
        check_space(*asked[0])
    Usage.free = 2 * used
    check_space(*asked[0])
    predict(model, path, tmp_path / "more.tif", PredictConfig(seam_map=tmp_path / "seams.tif"))
    assert [held.dtype for held in asked[1][-1]] == ["uint8", "float32"]


def test_a_layer_of_all_the_world_is_refused_before_its_parts_are_listed(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "part_windows", lambda *_: pytest.fail("lists all parts"))
    path = tmp_path / "world.gpkg"
    world = [box(-179.9, -85, 0, 85), box(0, -85, 179.9, 85)]
    geopandas.GeoDataFrame({"kind": ["water", "road"]}, geometry=world, crs="EPSG:4326").to_file(path)
    model = make_model(Identity, MAP, pixel_size=(0.5, 0.5))
    with pytest.raises(RasterError, match=r"GB on [0-9]{7,}x[0-9]{7,} EPSG:.*predict less at a time \(--aoi, --like\)"):
        predict(model, path, tmp_path / "out.tif", PredictConfig(source_field="kind"))


def test_parts_that_are_there_need_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    folder, where = tmp_path / "out.tif.parts", grid(80, 80)
    with pytest.raises(RasterError, match=r"parts and mosaic take about 3\.07e-05 GB"):
        check_space(folder, where, 1.0, [image_encoding()])
    folder.mkdir()
    (folder / "part_r0000000_c0000000.tif").write_bytes(bytes(9_000))
    with pytest.raises(RasterError, match=r"take about 2\.17e-05 GB"):
        check_space(folder, where, 1.0, [image_encoding()])
    (folder / "part_r0000000_c0000512.tif").write_bytes(bytes(13_000))
    check_space(folder, where, 1.0, [image_encoding()])


def test_a_grid_elsewhere_is_refused(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    model = make_model(Identity, image_encoding())
    path = write_raster(tmp_path / "in.tif", np.zeros((3, 80, 80), np.uint8), grid(80, 80))
    far = write_raster(tmp_path / "far.tif", np.zeros((1, 9, 9), np.uint8), grid(9, 9, left=900_000.0))
    nowhere = write_raster(
        tmp_path / "nowhere.tif", np.zeros((1, 8, 8), np.uint8), Grid(None, Affine(2, 0, 0, 0, -2, 8), 8, 8)
    )
    with pytest.raises(GridMismatchError, match=r"has a CRS, the raster of --like none; assign one"):
        predict(model, path, tmp_path / "no.tif", PredictConfig(like=nowhere, no_resample=True))
    with pytest.raises(GridMismatchError, match="lies elsewhere than the grid that --like gives"):
        predict(model, path, tmp_path / "out.tif", PredictConfig(like=far))
    assert not list(tmp_path.glob("out*"))


def test_longitudes_of_a_layer_may_be_written_a_turn_away(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    layers = geopandas.read_file(layer(tmp_path)).to_crs(4326)
    encoding = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES)
    model, config = make_model(Identity, encoding), PredictConfig(source_field="kind", tile_size=64)
    made = []
    for far in (0, 360):
        layers.set_geometry(layers.translate(far)).to_file(tmp_path / f"{far}.gpkg")
        predict(model, tmp_path / f"{far}.gpkg", tmp_path / f"{far}.tif", config)
        with rasterio.open(tmp_path / f"{far}.tif") as dataset:
            made.append(dataset.read())
    assert np.array_equal(*made)


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
    assert (
        "classes matched by code, not by name: 1 desert is the model's water, 5 glacier is the model's road"
        in caplog.text
    )
    caplog.clear()
    assert match_classes("map.tif", {1: "forest", 2: "lava", 5: "Meadow"}, CLASSES) == {5: 2, 2: 0}
    assert "5 Meadow is the model's 2, 2 lava is none of them" in caplog.text
    assert "1 forest is the model's water" in caplog.text
    caplog.clear()
    assert match_classes("map.tif", {1: "urban", 2: "Class 2", 5: "port"}, CLASSES) == {}  # a legend of somebody else
    assert (
        "classes matched by code, not by name: 1 urban is the model's water, 5 port is the model's road" in caplog.text
    )
    caplog.clear()
    assert match_classes("map.tif", {1: "class 1", 2: "2", 5: " "}, CLASSES) == {}
    assert match_classes("map.tif", {1: "urban"}, (MapClass(1, "class 1", (0, 0, 0)),)) == {}
    assert not caplog.text


@pytest.mark.parametrize(
    ("names", "ours", "codes"),
    [
        ({1: "Forest", 2: "Crops", 3: "Forest"}, {1: "Forest", 2: "Crops", 3: "Forest"}, {}),
        ({1: "forest", 2: "Forest", 3: ""}, {1: "Forest", 2: "forest", 3: ""}, {}),
        ({1: "", 2: "", 5: "water"}, {1: "", 2: "", 5: "water"}, {}),
        ({1: "water", 2: "forest"}, {1: "forest", 2: "water"}, {1: 2, 2: 1}),
        ({5: "WATER "}, {1: "water", 2: "forest"}, {5: 1, 1: 0}),  # 1 is no water then
        ({2: "Forest"}, {1: "Forest", 2: "Crops", 3: "Forest"}, {}),  # which of the two nobody knows
        ({7: "sand"}, {1: "water"}, {}),
    ],
)
def test_codes_follow_names_that_are_of_one_class(
    names: dict[int, str], ours: dict[int, str], codes: dict[int, int]
) -> None:
    classes = [MapClass(value, name, (0, 0, 0)) for value, name in ours.items()]
    assert codes_by_name(names, classes) == codes
