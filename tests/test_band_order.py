"""Bands are matched by their place; where names say that a place holds something else, nothing is made of it."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from conftest import Identity, class_map, grid, image_encoding, write_raster

from geop2p import PredictConfig, TileConfig, describe, evaluate_mosaic, predict, tile
from geop2p.errors import ChipSetError, RasterError
from geop2p.raster.agreement import color_bands, known_as, order_difference
from geop2p.raster.encoding import Band, Encoding
from geop2p.raster.rendering import render
from geop2p.raster.styles import write_style
from geop2p.raster.vrt import BandSummary

SENTINEL = ("B02", "B03", "B04")
SIDE = 96


def image(path: Path, names: Sequence[str], photometric: str = "MINISBLACK") -> Path:
    values = np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE), dtype=np.uint8)
    write_raster(path, values, grid(SIDE, SIDE), photometric=photometric)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = tuple(names)
    return path


@pytest.mark.parametrize(
    ("found", "expected", "told"),
    [
        (SENTINEL, SENTINEL, None),
        (("b02", "B03 ", "B04"), SENTINEL, None),
        (("", "", ""), SENTINEL, None),
        (SENTINEL, ("", "", ""), None),
        (("B02", "", "B04"), SENTINEL, None),
        (("blue", "green", "red"), SENTINEL, None),  # other names for what may be the same
        (("B04", "B03", "B02"), SENTINEL, "has the bands B04, B03, B02, expected B02, B03, B04 (its bands 3, 2, 1)"),
        (("B02", "B03", "B08"), SENTINEL, "has the bands B02, B03, B08, expected B02, B03, B04"),
        (("", "B02", "B03"), SENTINEL, "has the bands ?, B02, B03, expected B02, B03, B04"),
        (("a", "a", "b"), ("a", "b", "b"), "has the bands a, a, b, expected a, b, b"),
    ],
)
def test_names_in_other_places(found: Sequence[str], expected: Sequence[str], told: str | None) -> None:
    here, there = (known_as([Band(name) for name in names], ()) for names in (found, expected))
    assert order_difference(here, there) == told


def test_colours_are_names_where_bands_have_none() -> None:
    bands = [Band(), Band(), Band("nir")]
    assert known_as(bands, ("red", "undefined", "green")) == ["red", "", "nir"]
    assert known_as(bands, ("gray", "palette", "undefined")) == ["", "", "nir"]


@pytest.mark.parametrize(
    ("names", "roles", "expected"),
    [
        (("B1 blue", "B2 green", "B3 red", "B4 nir"), (), [2, 1, 0]),
        (("Blue", "Green", "Red", "Red edge", "rededge2", "near infra-red"), (), [2, 1, 0]),
        (("b4_blue", "b3_green", "b2_red"), ("red", "green", "blue"), [2, 1, 0]),  # GDAL's roles by default
        (("B8", "B4", "B3", "B2"), ("undefined", "red", "green", "blue"), [1, 2, 3]),
        (("", "", ""), ("blue", "green", "red"), [2, 1, 0]),
        (("B2", "B3", "B4"), ("gray", "undefined", "undefined"), None),
        (("red", "red", "green", "blue"), (), None),
        (("nir", "red", "green"), (), None),
    ],
)
def test_bands_that_are_drawn(names: tuple[str, ...], roles: tuple[str, ...], expected: list[int] | None) -> None:
    """In the style that QGIS loads and in pictures alike; the first three where nothing says which."""
    assert color_bands([Band(name) for name in names], roles) == expected


def test_a_style_and_a_picture_draw_the_same_bands(tmp_path: Path) -> None:
    names = ("B1 blue", "B2 green", "B3 red", "B4 nir")
    bands = tuple(Band(name, low=0, high=1000 * place) for place, name in enumerate(names, start=1))
    encoding = Encoding("image", "uint16", bands)
    values = np.array([100, 400, 1500, 4000], np.uint16).reshape(4, 1, 1)
    summaries = [BandSummary(place, 10 * place, 5 * place, place, 100.0) for place in (1, 2, 3, 4)]
    write_style(tmp_path / "a.tif", encoding, summaries)
    drawn = ElementTree.parse(tmp_path / "a.qml").find(".//rasterrenderer")
    assert [drawn.get(f"{color}Band") for color in ("red", "green", "blue")] == ["3", "2", "1"]
    assert float(drawn.findtext("redContrastEnhancement/minValue")) == 9.0  # 15 - 2 * 3
    assert render(values, np.ones((1, 1), bool), encoding)[0, 0].tolist() == [128, 51, 25]  # 0.5, 0.2, 0.1


def trained_on(names: Sequence[str], roles: tuple[str, ...] = ()) -> Encoding:
    return Encoding("image", "uint8", tuple(Band(name) for name in names), color_interp=roles)


def test_an_input_with_its_bands_in_another_order_is_refused(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    config, output = PredictConfig(tile_size=32), tmp_path / "out.tif"
    model = make_model(Identity, trained_on(SENTINEL))
    with pytest.raises(
        RasterError, match=r"in\.tif: has the bands B04, B03, B02, .* as in the training; reorder"
    ) as told:
        predict(model, image(tmp_path / "in.tif", SENTINEL[::-1]), output, config)
    assert "\n" not in str(told.value) and not output.exists()
    predict(model, image(tmp_path / "in.tif", SENTINEL), output, config)
    predict(model, image(tmp_path / "in.tif", ("", "", "")), output, config, overwrite=True)
    predict(
        make_model(Identity, image_encoding()), image(tmp_path / "in.tif", SENTINEL), output, config, overwrite=True
    )


def test_so_is_one_with_its_colours_in_another_order(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    model = make_model(Identity, trained_on(("", "", ""), ("blue", "green", "red")))
    rgb = image(tmp_path / "in.tif", ("", "", ""), photometric="RGB")
    with pytest.raises(RasterError, match=r"has the bands red, green, blue, expected blue, green, red"):
        predict(model, rgb, tmp_path / "out.tif", PredictConfig(tile_size=32))


@pytest.mark.parametrize(
    ("names", "trained", "said"),
    [
        (("blue", "green", "red"), ("", "", ""), r"blue, green, red, expected red, green, blue \(its bands 3, 2, 1\)"),
        (("B1 Blue", "B2 Green", "B3 Red"), ("", "", ""), "has the bands blue, green, red, expected red, green, blue"),
        (("Red", "Green", "NIR"), ("", "", ""), "has the bands red, green, NIR, expected red, green, blue"),
        (("", "", ""), ("blue", "green", "red"), "has the bands red, green, blue, expected blue, green, red"),
        (("B4_red", "B3_green", "B2_blue"), ("", "", ""), None),
        (("", "", ""), ("Red", "Green", "Blue"), None),
        (SENTINEL, ("", "", ""), None),
    ],
)
def test_names_on_one_side_and_colours_on_the_other_are_a_warning(
    names: Sequence[str],
    trained: Sequence[str],
    said: str | None,
    tmp_path: Path,
    make_model: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In every place where two rasters meet; GDAL's colours alone are no reason to refuse one."""
    rgb, config = ("red", "green", "blue"), PredictConfig(tile_size=32)
    given = image(tmp_path / "in.tif", names, "MINISBLACK" if any(names) else "RGB")
    other = image(tmp_path / "other.tif", trained, "MINISBLACK" if any(trained) else "RGB")
    model = make_model(Identity, trained_on(trained, () if any(trained) else rgb))
    codes = write_raster(tmp_path / "map.tif", class_map(SIDE, SIDE), grid(SIDE, SIDE))
    cut = TileConfig(size=32, split_by="random", target_kind="image")

    def join() -> None:
        for raster in (other, given):
            tile(codes, raster, tmp_path / "chips", cut)

    def read_as_one() -> None:
        (tmp_path / "many").mkdir()
        for name, raster in (("a.tif", other), ("b.tif", given)):
            raster.rename(tmp_path / "many" / name)
        describe(tmp_path / "many")

    for looking in (
        lambda: predict(model, given, tmp_path / "out.tif", config),
        lambda: evaluate_mosaic(given, other, tmp_path / "report.html"),
        join,
        read_as_one,
    ):
        caplog.clear()
        looking()
        told = [line for line in caplog.messages if "by names on one side and colours on the other" in line]
        assert len(told) == (said is not None) and all(re.search(str(said), line) for line in told), told


def test_so_is_a_scene_that_joins_a_chip_set(tmp_path: Path) -> None:
    codes = write_raster(tmp_path / "map.tif", class_map(SIDE, SIDE), grid(SIDE, SIDE))
    config = TileConfig(size=32, split_by="random", target_kind="image")
    tile(codes, image(tmp_path / "first.tif", SENTINEL), tmp_path / "chips", config)
    with pytest.raises(ChipSetError, match=r"second\.tif: has the bands B04, B03, B02, .* as in the chip set's target"):
        tile(codes, image(tmp_path / "second.tif", SENTINEL[::-1]), tmp_path / "chips", config)
