"""The page in a browser: the slider uncovers, nothing is fetched, it fits a phone, and it is dark where asked."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import MISSING, Browser, browser
from conftest import class_map, grid, write_raster

from geop2p import TileConfig, TrainConfig, compare, evaluate, evaluate_mosaic, tile, train

HOME, END, RIGHT = "\ue011", "\ue010", "\ue014"
RED, BLUE = (200, 30, 20), (20, 40, 190)


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """A browser is there; where it must be, its absence is a failure."""
    if MISSING:
        missing = f"no {' and no '.join(MISSING)} on this machine"
        assert not os.environ.get("GEOP2P_REQUIRE_BROWSER"), missing
        pytest.skip(missing)
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red prediction of blue ground."""
    folder = tmp_path_factory.mktemp("page")
    for name, color in (("red", RED), ("blue", BLUE)):
        values = np.empty((3, 90, 160), np.uint8)
        values[:] = np.array(color)[:, None, None]
        write_raster(folder / f"{name}.tif", values, grid(90, 160), photometric="RGB")
    evaluate_mosaic(folder / "red.tif", folder / "blue.tif", folder / "report.html")
    return folder / "report.html"


def middle(picture: np.ndarray, column: float) -> np.ndarray:
    return picture[len(picture) // 2, int(picture.shape[1] * column)].astype(int)


def test_the_slider_moves_by_keys_and_uncovers_the_other_picture(window: Browser, page: Path) -> None:
    window.open(page)
    before = window.picture("#slider")
    assert np.abs(middle(before, 0.25) - BLUE).max() < 8 and np.abs(middle(before, 0.75) - RED).max() < 8
    window.press("#slider input", RIGHT * 40)
    assert window.run("return document.querySelector('#slider input').value") == "90"
    after = window.picture("#slider")
    assert np.abs(middle(after, 0.75) - BLUE).max() < 8 and np.abs(middle(after, 0.96) - RED).max() < 8
    window.press("#slider input", HOME)
    assert np.abs(middle(window.picture("#slider"), 0.04) - RED).max() < 8
    window.press("#slider input", END)
    assert np.abs(middle(window.picture("#slider"), 0.96) - BLUE).max() < 8


def test_nothing_is_fetched(window: Browser, page: Path) -> None:
    window.open(page)
    fetched = window.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert window.run("return [...document.images].every(image => image.naturalWidth > 0)")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of every kind: of a mosaic of classes, of a run, of its evaluation, of a comparison. Names are long."""
    folder = tmp_path_factory.mktemp("pages")
    chips, run = (
        folder / "drone_imagery_of_2021_dry_season_chips_of_32",
        folder / "pix2pix_dry_season_2021_width_2_long",
    )
    codes = class_map(160, 160)
    image = 40 * codes + np.random.default_rng(0).integers(0, 40, (3, 160, 160))
    first = write_raster(folder / "a.tif", codes, grid(160, 160))
    second = write_raster(folder / "b.tif", np.roll(codes, 5, axis=2), grid(160, 160))
    target = write_raster(folder / "image.tif", image.astype(np.uint8), grid(160, 160), photometric="RGB")
    tile(first, target, chips, TileConfig(size=32, split="3:1:1", format="packed"))
    config = TrainConfig(epochs=2, batch_size=8, width=2, downs=2, set=("patch=16",))
    train(chips, run, config)
    copy = shutil.copytree(run, folder / f"{run.name}_once_more")
    found = {name: folder / f"{name}.html" for name in ("mosaic", "evaluation", "comparison")}
    commands = [f"geop2p evaluate {run} {chips} {found['evaluation']}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geop2p.metrics.blocks.BOOTSTRAPS", 20)
        evaluate_mosaic(first, second, found["mosaic"])
        evaluate(run, chips, found["evaluation"], commands=commands)
        compare([run, copy], found["comparison"], commands=commands)
    return found | {"run": run / "report.html"}


SHOWN = {  # what makes a page wide: pictures, lines, cells
    "mosaic": {"#slider img": 2, ".strip img": 2, "th": 10},
    "run": {"polyline": 5, ".strip img": 12, "dt": 40},
    "evaluation": {"polyline": 5, ".strip img": 15, "th": 10, "pre": 2},
    "comparison": {"tr:first-child th": 9, ".strip img": 20, "pre": 2},
}


@pytest.mark.parametrize("name", SHOWN)
def test_it_fits_a_phone(window: Browser, pages: dict[str, Path], name: str) -> None:
    window.emulate("setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    try:
        window.open(pages[name])
        for selector, least in SHOWN[name].items():
            assert window.run(f"return document.querySelectorAll('{selector}').length") >= least, selector
        assert window.run("return innerWidth") == 360
        assert window.run("return document.scrollingElement.scrollWidth") <= 360
    finally:
        window.emulate("clearDeviceMetricsOverride")


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_it_is_light_or_dark_as_asked(window: Browser, page: Path, scheme: str, is_dark: bool) -> None:
    window.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    window.open(page)
    title = window.picture("h1")
    assert (np.median(title) < 60) == is_dark
    assert np.ptp(title.astype(int)) > 150  # the ink stands out
