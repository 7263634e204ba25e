"""The page in a browser: the slider uncovers, nothing is fetched, it fits a phone, and it is dark where asked."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import MISSING, Browser, browser
from conftest import class_map, grid, write_raster

from geop2p import TileConfig, TrainConfig, compare, evaluate, evaluate_mosaic, tile, train
from geop2p.evaluation.report import Page, write_page

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
    config = TrainConfig(recipe="pix2pix", epochs=2, batch_size=8, width=2, downs=2, set=("patch=16",))
    train(chips, run, config)
    copy = shutil.copytree(run, folder / f"{run.name}_once_more")
    found = {name: folder / f"{name}.html" for name in ("mosaic", "evaluation", "comparison")}
    commands = [f"geop2p evaluate {run} {chips} {found['evaluation']}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geop2p.metrics.blocks.BOOTSTRAPS", 20)
        evaluate_mosaic(first, second, found["mosaic"])
        result = evaluate(run, chips, found["evaluation"], commands=commands)
        compare([run, copy], found["comparison"], commands=commands)
    wide = with_a_judge(result, folder / "judge.html")
    return found | {"run": run / "report.html", "judge": wide}


def with_a_judge(result: dict[str, Any], path: Path) -> Path:
    """The page of an evaluation with the tables of a judge and of eight classes, all of many digits."""
    scores = dict.fromkeys(("accuracy", "class_accuracy", "miou"), 0.12345)
    intervals = dict.fromkeys(scores, (0.123456, 0.123456))
    names = [f"long named class {number}" for number in range(8)]
    figures = dict.fromkeys(("share", "iou", "f1", "accuracy"), 0.12345)
    read = scores | {"intervals": intervals, "classes": dict.fromkeys(names, figures)}
    judge = {"architecture": "unet", "steps": 300, "chance": 0.123456, "real": read, "generated": read}
    frechet = {"generated": 1.2345, "real": 0.12345}
    baseline = result["baseline"] | {"judge": judge, "frechet": frechet}
    tables = {"classes": read["classes"], "confusion_classes": names, "confusion": [[123456] * 8] * 8}
    write_page(path, Page("judge", result | {"judge": judge, "frechet": frechet, "baseline": baseline} | tables))
    return path


SHOWN = {  # what makes a page wide: pictures, lines, cells
    "mosaic": {"#slider img": 2, ".strip img": 2, "th": 10},
    "run": {"polyline": 5, ".strip img": 12, "dt": 40},
    "evaluation": {"polyline": 5, ".strip img": 15, "th": 10, "pre": 2},
    "judge": {"th": 30},
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


@pytest.mark.parametrize("name", SHOWN)
def test_nothing_is_fetched(window: Browser, pages: dict[str, Path], name: str) -> None:
    window.open(pages[name])
    fetched = window.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert window.run("return [...document.images].every(image => image.naturalWidth > 0)")


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_it_is_light_or_dark_as_asked(window: Browser, page: Path, scheme: str, is_dark: bool) -> None:
    window.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    window.open(page)
    title = window.picture("h1")
    assert (np.median(title) < 60) == is_dark
    assert np.ptp(title.astype(int)) > 150  # the ink stands out


def boxes_of(window: Browser) -> dict[str, bool]:
    """Of each table in a box that scrolls: the words of its head, and whether some of it is out of sight."""
    script = "return [...document.querySelectorAll('.scroll')].map(box => "
    script += "[box.querySelector('tr').textContent, box.scrollWidth > box.clientWidth])"
    return dict(window.run(script))


def test_tables_are_whole_where_there_is_room_and_say_where_not(window: Browser, pages: dict[str, Path]) -> None:
    try:
        for width in (1280, 375):
            window.emulate("setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            window.open(pages["judge"])
            cut = boxes_of(window)
            words = ("accuracymIoU", "IoUreal", "IoUF1", "predicted")
            heads = [head for head in cut if any(word in head for word in words)]
            assert len(heads) == 4
            assert not any(cut[head] for head in heads) if width == 1280 else sum(cut[head] for head in heads) > 1
        window.run(
            "const boxes = [...document.querySelectorAll('.scroll')];"
            "const found = boxes.find(box => box.textContent.includes('predicted'));"
            "found.id = 'wide'; found.scrollIntoView()"
        )
        begun = window.picture("#wide")
        window.run("document.getElementById('wide').scrollLeft = 1e6")
        ended = window.picture("#wide")
        first, last = (int(picture[:, -4:].astype(int).mean()) for picture in (begun, ended))
        assert abs(first - last) > 15  # a shade at the right until there is no more
    finally:
        window.emulate("clearDeviceMetricsOverride")


def test_long_names_of_runs_leave_room_for_scores_on_a_phone(window: Browser, pages: dict[str, Path]) -> None:
    window.emulate("setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    try:
        window.open(pages["comparison"])
        widths = (
            "return [document.querySelector('.runs td').offsetWidth, document.querySelector('.scroll').clientWidth]"
        )
        name, box = window.run(widths)
        assert name < box / 2
    finally:
        window.emulate("clearDeviceMetricsOverride")
