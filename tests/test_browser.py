"""The page in a browser: the slider uncovers, nothing is fetched, it fits a phone, and it is dark where asked."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import MISSING, Browser, browser
from conftest import class_map, grid, write_raster

from geop2p import evaluate_mosaic

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


def test_it_fits_a_phone(window: Browser, tmp_path: Path) -> None:
    codes = class_map(90, 160)
    write_raster(tmp_path / "a.tif", codes, grid(90, 160))
    write_raster(tmp_path / "b.tif", np.roll(codes, 5, axis=2), grid(90, 160))
    evaluate_mosaic(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "report.html")
    window.emulate("setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    try:
        window.open(tmp_path / "report.html")
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
