"""Every layout of a chip set holds the same chips, and a killed run ends in the same bytes."""

import dataclasses
import errno
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from conftest import UTM, class_map, grid, write_raster
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.geometry import box

import geop2p.raster.aligned as aligned
import geop2p.tiling.chips as chips_module
import geop2p.tiling.cutting as cutting
import geop2p.tiling.packed as packed_module
import geop2p.tiling.staging as staging_module
import geop2p.tiling.survey as survey_module
from geop2p import TileConfig, TrainConfig, check, convert, tile, train
from geop2p.config import SPLITS
from geop2p.errors import ChipSetError, OutputError, RasterError
from geop2p.raster.chip_metadata import ChipMetadata
from geop2p.raster.chipfile import ChipFiles
from geop2p.raster.encoding import Band
from geop2p.raster.grid import Grid
from geop2p.raster.threads import in_order
from geop2p.tiling.check import check_chips
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.packed import array_path

SMALL = TileConfig(size=32, stride=24, min_valid=0.8)
LAYOUTS = ("geotiff", "packed", "virtual")


@pytest.fixture(autouse=True)
def small_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many regions on small rasters."""
    monkeypatch.setattr(cutting, "REGION_BYTES", 40_000)


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a chip set by name: its bytes."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "index.gpkg" in files and not any(".staging" in name for name in files)
    return files


@pytest.mark.parametrize("layout", ["packed", "virtual"])
def test_every_layout_holds_the_same_chips(pair: tuple[Path, Path], tmp_path: Path, layout: str) -> None:
    second = write_raster(tmp_path / "b.tif", class_map(200, 260, 4), grid(200, 260, left=600_000.0))
    image = np.random.default_rng(2).integers(0, 255, (3, 200, 260)).astype(np.uint8)
    other = write_raster(tmp_path / "b_image.tif", image, grid(200, 260, left=600_000.0))
    sets = []
    for name in ("geotiff", layout):
        config = dataclasses.replace(SMALL, format=name, source_kind="classes")
        for sides in (pair, (second, other)):
            tile(*sides, tmp_path / name, config)
        sets.append(ChipSet.open(tmp_path / name))
    reference, chipset = sets
    pd.testing.assert_frame_equal(reference.index(), chipset.index())
    assert (reference.counts, reference.source, reference.target) == (chipset.counts, chipset.source, chipset.target)
    for split in SPLITS:
        assert reference.entries(split) == chipset.entries(split)
        with reference.reader(split) as first, chipset.reader(split) as again:
            for row in range(reference.counts[split]):
                one, two = first.read(row), again.read(row)
                assert np.array_equal(one.valid, two.valid)
                assert np.array_equal(one.source, two.source) and np.array_equal(one.target, two.target)
    assert check_chips(chipset) == []


def test_packed_arrays_are_plain_numpy_files(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tile(*pair, tmp_path / "chips", dataclasses.replace(SMALL, format="packed"))
    chipset = ChipSet.open(tmp_path / "chips")
    for split in SPLITS:
        source, target, valid = (
            np.load(array_path(chipset.folder, split, name)) for name in ("source", "target", "valid")
        )
        assert source.shape == (chipset.counts[split], 1, 32, 32) and target.shape[1:] == (3, 32, 32)
        chip = chipset.read(split, chipset.entries(split)[-1].id)
        assert np.array_equal(np.unpackbits(valid[-1], axis=-1).astype(bool), chip.valid)


@pytest.mark.parametrize(("stride", "buffer", "hole"), [(32, 0, False), (24, 0, False), (32, 20, True)])
def test_packed_chips_of_whole_ground_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int, buffer: int, hole: bool
) -> None:
    """The split is known before the pixels are read, if all ground is valid: a kill between renames is survived too."""
    where, valid = grid(300, 420), np.ones((300, 420), bool)
    valid[100:140, 100:200] = not hole
    source = write_raster(tmp_path / "map.tif", class_map(300, 420), where)
    target = write_raster(tmp_path / "image.tif", np.tile(class_map(300, 420), (3, 1, 1)), where, mask=valid)
    config = TileConfig(size=32, stride=stride, buffer=buffer, min_valid=0.5)
    tile(source, target, tmp_path / "files", config)
    config = dataclasses.replace(config, format="packed")
    with monkeypatch.context() as patch:
        copied = []
        patch.setattr(packed_module, "_append", lambda *arguments: copied.append(arguments))
        if not hole:
            tile(source, target, tmp_path / "packed", config)
            assert not copied
    for number in (1, 5, 9):  # of nine arrays
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(packed_module, "_header", die_at(number, packed_module._header))
            tile(source, target, tmp_path / str(number), config)
        tile(source, target, tmp_path / str(number), config)
        assert contents(tmp_path / str(number)) == contents(tmp_path / "1")
    files, packed = ChipSet.open(tmp_path / "files"), ChipSet.open(tmp_path / "1")
    assert files.counts == packed.counts and packed.counts["train"] > 30
    for split in SPLITS:
        with files.reader(split) as first, packed.reader(split) as again:
            for row in range(packed.counts[split]):
                one, two = first.read(row), again.read(row)
                assert np.array_equal(one.valid, two.valid)
                assert np.array_equal(one.source, two.source) and np.array_equal(one.target, two.target)


def test_threads_read_their_regions_side_by_side() -> None:
    region, meeting = cutting.Region((0,), (0,), 8), threading.Barrier(2, timeout=20)

    def read(window: Window) -> np.ndarray:
        meeting.wait()
        return np.zeros((1, window.height, window.width), np.uint8)

    grounds = [cutting.RegionPair(region, np.ones((8, 8), bool), (read, read)) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert [values.shape for values in pool.map(lambda ground: ground.source, grounds)] == [(1, 8, 8)] * 2


@pytest.mark.parametrize("layout", ["geotiff", "packed", "virtual"])
def test_rasters_are_tiled_without_pandas(pair: tuple[Path, Path], tmp_path: Path, layout) -> None:
    arguments = ["tile", *map(str, pair), str(tmp_path / "chips"), "--size", "32", "--format", layout, "--json"]
    program = (
        "import sys\nfrom geop2p_cli.main import main\n"
        f"try: main({arguments})\nexcept SystemExit as stop: assert not stop.code\n"
        "sys.exit(bool({'pandas', 'geopandas', 'pyogrio', 'torch', 'tqdm'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert ChipSet.open(tmp_path / "chips").counts["train"]


@pytest.mark.parametrize("changed", ["nothing", "nodata", "max_shift", "floats"])
def test_virtual_chips_read_what_is_needed_to_know_them(tmp_path: Path, changed: str) -> None:
    """Of an image that is valid throughout only the chips whose shift is measured and that are shown."""
    where = grid(1024, 1024)
    values = np.random.default_rng(0).integers(1, 255, (3, 1024, 1024)).astype("f4" if changed == "floats" else "u1")
    image = write_raster(tmp_path / "image.tif", values, where, nodata=0 if changed == "nodata" else None)
    source = write_raster(tmp_path / "map.tif", class_map(1024, 1024), where)
    config = TileConfig(size=32, format="virtual", max_shift=12 if changed == "max_shift" else None)
    pixels, read = [], aligned._read_masked

    def counted(dataset: Any, bands: list[int], read_masks: Any, path: Path, window: Window) -> Any:
        pixels.append(window.width * window.height if len(bands) == 3 else 0)
        return read(dataset, bands, read_masks, path, window)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aligned, "_read_masked", counted)
        tile(source, image, tmp_path / "chips", config)
    assert (sum(pixels) < 0.1 * 1024**2) == (changed == "nothing")
    tile(source, image, tmp_path / "packed", dataclasses.replace(config, format="packed"))
    first, again = ChipSet.open(tmp_path / "chips"), ChipSet.open(tmp_path / "packed")
    pd.testing.assert_frame_equal(first.index(), again.index())
    assert first.target == again.target


@pytest.mark.parametrize("target", ["image", "map"])
def test_training_from_packed_chips_needs_neither_rasterio_nor_geopandas(
    pair: tuple[Path, Path], tmp_path: Path, target: str
) -> None:
    if target == "map":
        with rasterio.open(pair[1]) as dataset:
            drawn = grid(dataset.height, dataset.width)
        pair = (pair[1], write_raster(tmp_path / "map.tif", class_map(drawn.height, drawn.width), drawn))
    tile(*pair, tmp_path / "chips", dataclasses.replace(SMALL, format="packed"))
    tile(*pair, tmp_path / "files", SMALL)
    blocked = ("rasterio", "geopandas", "pyproj", "shapely", "pyogrio", "pandas")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "from geop2p.training.trainer import train; from geop2p.config import TrainConfig\n"
        f"train({str(tmp_path / 'chips')!r}, {str(tmp_path / 'run')!r}, "
        "TrainConfig(recipe='pix2pix', steps=2, batch_size=2, width=4))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    train(tmp_path / "files", tmp_path / "again", TrainConfig(recipe="pix2pix", steps=2, batch_size=2, width=4))
    first, second = ((tmp_path / run / "metrics.jsonl").read_text() for run in ("run", "again"))
    assert json.loads(first)["losses"] == pytest.approx(json.loads(second)["losses"], rel=1e-5)  # of another process


def die_at(
    number: int, original: Callable[..., Any], error: BaseException | type[BaseException] = KeyboardInterrupt
) -> Callable[..., Any]:
    """The function, that kills the run at its n-th call."""
    calls = 0

    def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        return original(*arguments, **named)

    return dying


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("place", "name", "number"),
    [
        (survey_module.Survey, "examine", 1),
        (survey_module.Survey, "examine", 5),
        (survey_module, "class_counts", 5),
        (staging_module, "staged_chips", 1),
        (chips_module, "write_json", 1),
        (Path, "replace", 25),
    ],
)
def test_a_killed_run_repeated_ends_in_the_same_bytes(
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    place: Any,
    name: str,
    number: int,
) -> None:
    config = dataclasses.replace(SMALL, format=layout)
    tile(*pair, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, die_at(number, getattr(place, name)))
        try:
            tile(*pair, tmp_path / "chips", config)
        except KeyboardInterrupt:
            with pytest.raises(ChipSetError, match=r"began 'image' from .*\(size is 64, there it is 32; stride "):
                tile(*pair, tmp_path / "chips", dataclasses.replace(config, size=64, stride=64))
            for name in (".preview.a1_45678.png", ".index.b2345678.gpkg", ".chipset.c3456789.json"):  # were to replace
                (tmp_path / "chips" / name).write_bytes(b"cut off")
        else:
            assert name == "replace" and layout != "geotiff"  # few files, few renames
    tile(*pair, tmp_path / "chips", config)
    assert contents(tmp_path / "chips") == contents(tmp_path / "whole")


def die_before_step(patch: pytest.MonkeyPatch, number: int, *more: tuple[Any, str]) -> None:
    """Kill the run before the n-th time that a file or folder goes, or takes its name; nothing comes after it."""
    steps = itertools.count(1)

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            if next(steps) >= number:
                raise KeyboardInterrupt
            return original(*arguments, **named)

        return step

    for place, name in ((Path, "unlink"), (Path, "replace"), (Path, "rename"), (shutil, "rmtree"), *more):
        patch.setattr(place, name, counted(getattr(place, name)))


@pytest.mark.parametrize(
    ("layout", "overwrite", "steps"), [("packed", False, 99), ("packed", True, 30), ("geotiff", True, 14)]
)
def test_a_kill_at_any_step_leaves_what_the_same_command_finishes(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Any, overwrite: bool, steps: int
) -> None:
    config = TileConfig(size=64, format=layout, source_kind="classes")
    tile(*pair, tmp_path / "whole", config)
    tile(*pair, tmp_path / "old", dataclasses.replace(config, size=96, min_valid=0.5))
    number, was_killed = 0, True
    while was_killed and number < steps:
        number, was_killed, chips = number + 1, False, tmp_path / f"chips{number + 1}"
        if overwrite:
            shutil.copytree(tmp_path / "old", chips)
        with monkeypatch.context() as patch:
            die_before_step(patch, number, *([(Path, "rmdir")] if overwrite else []))
            try:
                tile(*pair, chips, config, overwrite=overwrite)
            except KeyboardInterrupt:
                was_killed = True
        tile(*pair, chips, config, overwrite=overwrite and number % 2 == 0)
        assert contents(chips) == contents(tmp_path / "whole"), number
        assert check_chips(ChipSet.open(chips)) == []
        shutil.rmtree(chips)
    assert number > 10


def test_ctrl_c_before_a_chip_set_has_made_room_leaves_it_as_it_was(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TileConfig(size=64, format="packed", source_kind="classes")
    tile(*pair, tmp_path / "chips", config)
    before = contents(tmp_path / "chips")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", die_at(3, Path.rename))
        tile(*pair, tmp_path / "chips", dataclasses.replace(config, size=96), overwrite=True)
    assert contents(tmp_path / "chips") == before and check_chips(ChipSet.open(tmp_path / "chips")) == []
    assert not (tmp_path / "chips" / ".staging").exists()


def test_a_kill_in_the_middle_of_a_journal_line_is_survived(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(SMALL, format="packed")
    tile(*pair, tmp_path / "whole", config)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(survey_module.Survey, "examine", die_at(8, survey_module.Survey.examine))
        tile(*pair, tmp_path / "chips", config)
    (journal,) = (tmp_path / "chips" / ".staging" / "image").glob("journal-*.jsonl")
    assert len(journal.read_text().splitlines()) > 2  # the threads are a few regions apart
    journal.write_text(journal.read_text()[:-30])
    tile(*pair, tmp_path / "chips", config)
    assert contents(tmp_path / "chips") == contents(tmp_path / "whole")


@pytest.mark.parametrize("layout", ["geotiff", "packed"])
def test_kill_9_at_any_moment(tmp_path: Path, layout: str) -> None:
    """A real process on a raster that takes a while, killed by the system as soon as its journal grows."""
    where = grid(1200, 1200)
    source = write_raster(tmp_path / "map.tif", class_map(1200, 1200), where)
    image = np.random.default_rng(0).integers(0, 255, (3, 1200, 1200)).astype(np.uint8)
    target = write_raster(
        tmp_path / "image.tif", image, where, mask=np.broadcast_to(np.arange(1200) % 400 > 3, (1200, 1200)).copy()
    )
    program = (
        "import sys, geop2p, geop2p.tiling.cutting as cutting; cutting.REGION_BYTES = 100_000\n"
        "geop2p.tile(*sys.argv[1:4], geop2p.TileConfig(size=32, format=sys.argv[4]))"
    )

    def start(folder: Path) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", program, source, target, folder, layout])

    assert start(tmp_path / "whole").wait() == 0
    staging = tmp_path / "chips" / ".staging" / "image"
    process = start(tmp_path / "chips")
    while process.poll() is None and not any(file.stat().st_size > 20_000 for file in staging.glob("journal-*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert start(tmp_path / "chips").wait() == 0
    assert contents(tmp_path / "chips") == contents(tmp_path / "whole")


@pytest.mark.parametrize("layout", ["geotiff", "packed"])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    config = dataclasses.replace(SMALL, format=layout)
    tile(*pair, tmp_path / "whole", config)

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    writer = chips_module.layout_of(layout)._Writer
    with monkeypatch.context() as patch, pytest.raises(OutputError) as caught:
        patch.setattr(writer, "add", die_at(30, writer.add, full))
        tile(*pair, tmp_path / "chips", config)
    assert "No space left on device" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ChipSetError, match="not a chip set"):
        ChipSet.open(tmp_path / "chips")
    tile(*pair, tmp_path / "chips", config)
    assert contents(tmp_path / "chips") == contents(tmp_path / "whole")


def test_virtual_chips_of_a_changed_layer_are_refused_and_of_a_moved_project_found(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    source, target = (Path(shutil.copy(path, project)) for path in pair)
    shutil.copy(f"{pair[0]}.aux.xml", f"{source}.aux.xml")
    tile(source, target, project / "chips", dataclasses.replace(SMALL, format="virtual"))
    chip = ChipSet.open(project / "chips").entries("train")[0].id
    before = ChipSet.open(project / "chips").read("train", chip)
    project.rename(tmp_path / "elsewhere")
    moved = ChipSet.open(tmp_path / "elsewhere" / "chips")
    assert np.array_equal(moved.read("train", chip).target, before.target)
    with rasterio.open(tmp_path / "elsewhere" / "image.tif", "r+") as dataset:
        dataset.write(np.full((3, 8, 8), 77, np.uint8), window=((0, 8), (0, 8)))
    with pytest.raises(ChipSetError, match="has changed since it was tiled"):
        moved.read("train", chip)


def test_a_changed_file_of_classes_is_named_once(pair: tuple[Path, Path], tmp_path: Path) -> None:
    table = tmp_path / "classes.csv"
    table.write_text("value,name,color\n1,water,#0000ff\n2,meadow,#00ff00\n5,road,#ff0000\n")
    tile(*pair, tmp_path / "chips", TileConfig(size=32, format="virtual", classes=table))
    assert check(tmp_path / "chips") == []
    table.write_text(table.read_text() + "\n")
    (found,) = check(tmp_path / "chips")
    assert "a layer or file of scene" in found and "classes.csv) has changed since it was tiled" in found


def test_virtual_chips_know_the_aoi_and_the_vector_field(tmp_path: Path) -> None:
    import geopandas

    where = grid(200, 200)
    left, top = where.transform.c, where.transform.f
    shapes = [box(left, top - 400, left + 200, top), box(left + 200, top - 400, left + 400, top)]
    geopandas.GeoDataFrame({"use": ["field", "forest"]}, geometry=shapes, crs=UTM).to_file(tmp_path / "use.gpkg")
    geopandas.GeoDataFrame(geometry=[box(left + 30, top - 380, left + 390, top - 20)], crs=UTM).to_file(
        tmp_path / "aoi.gpkg"
    )
    image = np.random.default_rng(0).integers(0, 255, (3, 200, 200)).astype(np.uint8)
    target = write_raster(tmp_path / "image.tif", image, where)
    config = TileConfig(size=32, split="1:0:0", source_field="use", aoi=tmp_path / "aoi.gpkg", min_valid=0.5)
    sets = []
    for layout in ("packed", "virtual"):
        tile(tmp_path / "use.gpkg", target, tmp_path / layout, dataclasses.replace(config, format=layout))
        sets.append(ChipSet.open(tmp_path / layout))
    for entry in sets[0].entries("train"):
        one, two = (chipset.read("train", entry.id) for chipset in sets)
        assert np.array_equal(one.valid, two.valid) and np.array_equal(one.source, two.source)
    assert any(not sets[0].read("train", entry.id).valid.all() for entry in sets[0].entries("train"))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, Affine(2, 0, 500_000.3, 0, -2, 5_300_000.7)),
        (UTM, Affine(2, 0.5, 500_000, 0.5, -2, 5_300_000)),
        (CRS.from_epsg(4326), Affine(1e-4, 0, 7, 0, 1e-4, 50)),
        (None, Affine.identity()),
    ],
)
@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint8"), (1, "uint8"), (4, "uint8"), (6, "int16"), (2, "float32")])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_chips_written_in_bulk_are_what_gdal_would_have_written(
    tmp_path: Path, crs: CRS | None, transform: Affine, bands: int, dtype: str
) -> None:
    from rasterio.windows import Window

    from geop2p.raster.writing import write_chip

    whole = Grid(crs, transform, 500, 500)
    palette = {1: (10, 20, 30), 2: (200, 100, 0)} if (bands, dtype) == (1, "uint8") else {}
    told = tuple(Band(f"band {number}", "dB", 0.5, number) for number in range(bands)) if dtype == "int16" else ()
    look = ChipMetadata(palette, told)
    files = ChipFiles(whole.window(Window(0, 0, 40, 24)), bands, dtype, look)
    for number, valid in enumerate((np.ones((24, 40), bool), np.arange(40) > np.arange(24)[:, None])):
        here = whole.window(Window(77 + number, 130, 40, 24))
        values = np.random.default_rng(number).integers(0, 120, (bands, 24, 40)).astype(dtype)
        files.write(tmp_path / "a.tif", values, valid, here)
        write_chip(tmp_path / "b.tif", values, valid, here, look)
        with rasterio.open(tmp_path / "a.tif") as one, rasterio.open(tmp_path / "b.tif") as two:
            assert one.profile == two.profile and one.colorinterp == two.colorinterp
            assert np.array_equal(one.read(), values) and np.array_equal(two.read(), values)
            assert np.array_equal(one.dataset_mask() > 0, valid)
            if palette:
                assert one.colormap(1) == two.colormap(1)
            for dataset in (one, two):
                assert dataset.descriptions == (tuple(band.name for band in told) or (None,) * bands)
                assert dataset.units == (tuple(band.unit for band in told) or (None,) * bands)
                assert dataset.scales == (tuple(band.scale for band in told) or (1.0,) * bands)
                assert dataset.offsets == (tuple(band.offset for band in told) or (0.0,) * bands)


def test_results_of_threads_come_in_order_and_errors_where_they_belong() -> None:
    from contextlib import contextmanager

    opened = []

    @contextmanager
    def opener():  # type: ignore[no-untyped-def]
        opened.append(1)

        def work(job: int) -> int:
            time.sleep(0.001 * (job % 3))
            if job == 30:
                raise ValueError("thirty")
            return job * job

        yield work

    assert list(in_order(range(20), opener, 3)) == [job * job for job in range(20)]
    assert len(opened) == 3
    results = in_order(range(50), opener, 3)
    with pytest.raises(ValueError, match="thirty"):
        for expected, result in enumerate(results):
            assert result == expected**2
    assert expected == 29

    @contextmanager
    def broken():  # type: ignore[no-untyped-def]
        raise ChipSetError("cannot open")
        yield

    with pytest.raises(ChipSetError, match="cannot open"):
        list(in_order(range(5), broken, 2))


@pytest.mark.parametrize("blocks", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64}])
@pytest.mark.parametrize("stride", [16, 32, 50])
def test_regions_hold_every_window_once(tmp_path: Path, blocks: dict[str, Any], stride: int) -> None:
    from conftest import lattice

    from geop2p.raster.layers import open_layer

    where = grid(333, 451)
    layers = tuple(
        open_layer(write_raster(tmp_path / f"{name}.tif", class_map(333, 451), where, **blocks)) for name in "ab"
    )
    config = TileConfig(size=32, stride=stride)
    regions = cutting.plan_regions(where, layers, config)
    found = [(row, col) for region in regions for row in region.rows for col in region.cols]
    assert len(regions) > 3 and sorted(found) == sorted(lattice(where, config))


@pytest.mark.parametrize("size", [33, 46, 100, 224, 300])
@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (3, "uint8"), (1, "float64"), (2, "int16")])
def test_bulk_chips_of_any_size(tmp_path: Path, size: int, bands: int, dtype: str) -> None:
    where = grid(size, size)
    values = np.random.default_rng(0).integers(0, 120, (bands, size, size)).astype(dtype)
    ChipFiles(where, bands, dtype, ChipMetadata()).write(tmp_path / "a.tif", values, np.ones((size, size), bool), where)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert np.array_equal(dataset.read(), values) and dataset.transform == where.transform


@pytest.mark.parametrize("case", ["nodata", "nan", "sar", "classes", "mask"])
def test_a_warped_pixel_is_the_same_in_every_window(tmp_path: Path, case: str) -> None:
    """A function of the grid alone: else layouts differ, and the tiles of a mosaic do not meet."""
    from rasterio.windows import Window

    from geop2p.raster.aligned import aligned_reader
    from geop2p.raster.grid import covering

    draw = np.random.default_rng(0)
    where = grid(700, 640)
    rough = draw.normal(0, 30, (1, 700, 640)).cumsum(axis=2)
    holes = draw.random(rough.shape) < 0.02
    forms: dict[str, tuple[Any, str, dict[str, Any]]] = {
        "nodata": (np.clip(rough, 0, 255).astype(np.uint8), "image", {"nodata": 0}),
        "nan": (
            np.where(holes, np.nan, rough).astype(np.float32),
            "elevation",
            {"nodata": np.nan},
        ),
        "sar": (draw.normal(-12, 4, rough.shape).astype(np.float32), "sar", {}),
        "classes": (class_map(700, 640), "classes", {}),
        "mask": (np.clip(rough, 0, 255).astype(np.uint8), "image", {"mask": draw.random((700, 640)) > 0.05}),
    }
    values, kind, extra = forms[case]
    path = write_raster(tmp_path / "layer.tif", values, where, **extra)
    mercator = CRS.from_epsg(3857)
    target = covering(where.bounds_in(mercator), mercator, 3.7 if case in ("sar", "classes") else 2.3)
    whole = Window(0, 0, target.width, target.height)
    with aligned_reader(path, target, kind) as reader:
        found, there = reader.read(whole)
    assert there.any()
    for row, col, rows, cols in ((0, 0, 64, 64), (100, 37, 51, 300), (300, 200, 200, 77), (-10, -20, 90, 90)):
        with aligned_reader(path, target, kind) as reader:
            piece, valid = reader.read(Window(col, row, cols, rows))
        inside = np.s_[max(row, 0) : row + rows, max(col, 0) : col + cols]
        shape = there[inside].shape
        first, start = max(-row, 0), max(-col, 0)
        here = np.s_[first : first + shape[0], start : start + shape[1]]
        assert np.array_equal(valid[here], there[inside])
        assert np.array_equal(piece[:, *here][:, valid[here]], found[:, *inside][:, there[inside]])


def test_a_second_scene_that_fails_leaves_an_interrupted_one_alone(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(SMALL, source_kind="classes")
    tile(*pair, tmp_path / "chips", config)
    there = grid(200, 260, left=600_000.0)
    source = write_raster(tmp_path / "b.tif", class_map(200, 260, 4), there)
    image = np.random.default_rng(2).integers(0, 255, (3, 200, 260)).astype(np.uint8)
    target = write_raster(tmp_path / "b_image.tif", image, there)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(survey_module.Survey, "examine", die_at(4, survey_module.Survey.examine))
        tile(source, target, tmp_path / "chips", config)
    staged = tmp_path / "chips" / ".staging" / "b_image"
    before = sorted(staged.rglob("*"))
    with pytest.raises(RasterError, match="no such file"):
        tile(tmp_path / "typo.tif", target, tmp_path / "chips", config)
    assert sorted(staged.rglob("*")) == before
    with pytest.raises(ChipSetError, match="tiling was interrupted"):
        ChipSet.open(tmp_path / "chips").check_finished()
    assert check_chips(ChipSet.open(tmp_path / "chips")) == [
        "tiling was interrupted; repeat the tile command to finish it"
    ]
    assert tile(source, target, tmp_path / "chips", config).scenes == 2
    assert not staged.exists() and check_chips(ChipSet.open(tmp_path / "chips")) == []


def test_other_regions_than_those_of_the_interrupted_run_begin_again(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(SMALL, format="packed")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(survey_module.Survey, "examine", die_at(5, survey_module.Survey.examine))
        tile(*pair, tmp_path / "chips", config)
    monkeypatch.setattr(cutting, "REGION_BYTES", 90_000)
    tile(*pair, tmp_path / "chips", config)
    tile(*pair, tmp_path / "whole", config)
    assert contents(tmp_path / "chips") == contents(tmp_path / "whole")


def test_no_chip_left_is_one_line_and_no_chip_set(pair: tuple[Path, Path], tmp_path: Path) -> None:
    import geopandas

    left, top = 500_000.0, 5_300_000.0
    stripes = [box(left + 50 * number, top - 600, left + 50 * (number + 1), top) for number in range(17)]
    names = ["train", "val"] * 8 + ["train"]
    geopandas.GeoDataFrame({"split": names}, geometry=stripes, crs=UTM).to_file(tmp_path / "stripes.gpkg")
    config = TileConfig(size=64, split_by="polygon", aoi=tmp_path / "stripes.gpkg")
    with pytest.raises(ChipSetError, match="no chip is left"):
        tile(*pair, tmp_path / "chips", config)
    assert not (tmp_path / "chips").exists()


def test_virtual_chips_of_a_polygon_split_are_read(pair: tuple[Path, Path], tmp_path: Path) -> None:
    import geopandas

    left, top = 500_000.0, 5_300_000.0
    halves = [box(left, top - 600, left + 420, top), box(left + 420, top - 600, left + 840, top)]
    geopandas.GeoDataFrame({"part": ["train", "val"]}, geometry=halves, crs=UTM).to_file(tmp_path / "halves.gpkg")
    config = TileConfig(size=32, split_by="polygon", split_field="part", aoi=tmp_path / "halves.gpkg", format="virtual")
    assert tile(*pair, tmp_path / "chips", config).val and check_chips(ChipSet.open(tmp_path / "chips")) == []


def test_a_file_system_that_cannot_copy_is_read_and_written(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(SMALL, format="packed")
    tile(*pair, tmp_path / "whole", config)

    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    tile(*pair, tmp_path / "chips", config)
    assert contents(tmp_path / "chips") == contents(tmp_path / "whole")


@pytest.mark.parametrize("layout", ["packed", "geotiff", "virtual"])
@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM chips WHERE fid IN (SELECT fid FROM chips WHERE split = 'train' LIMIT 2)",
        "UPDATE chips SET split = 'train' WHERE split = 'val'",
        "UPDATE chips SET fid = 100000 - fid WHERE split = 'train'",
    ],
)
def test_an_index_with_other_rows_is_refused(pair: tuple[Path, Path], tmp_path: Path, layout: Any, edit: str) -> None:
    """Arrays are read by the number of a row: another order would give the pixels of other chips."""
    tile(*pair, tmp_path / "chips", TileConfig(size=32, format=layout))
    chipset = ChipSet.open(tmp_path / "chips")
    assert len(chipset.entries("train")) == chipset.counts["train"] and check(chipset.folder) == []
    with closing(sqlite3.connect(chipset.folder / "index.gpkg")) as index:
        for (name,) in index.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            index.execute(f'DROP TRIGGER "{name}"')  # of the R-tree, whose functions GDAL has
        index.execute(edit)
        index.commit()
    message = "its train chips are not those that were cut, or stand in another order"
    with pytest.raises(ChipSetError, match=message):
        train(chipset.folder, tmp_path / "run", TrainConfig(recipe="pix2pix", steps=1, width=2, set=("patch=16",)))
    assert any(message in line for line in check(chipset.folder))


def test_chips_tell_what_the_bands_of_their_layers_do(tmp_path: Path) -> None:
    """Opened in QGIS they show the values of the layers, also those that another layout was before."""
    values = np.random.default_rng(0).integers(1000, 4000, (2, 128, 128)).astype(np.uint16)
    target = write_raster(tmp_path / "scene.tif", values, grid(128, 128))
    with rasterio.open(target, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (1e-4, 2e-4), (-0.1, 0), ("reflectance", "K")
        dataset.descriptions = ("B02", "B10")
    source = write_raster(tmp_path / "map.tif", class_map(128, 128), grid(128, 128))
    for layout in ("geotiff", "packed"):
        tile(source, target, tmp_path / layout, TileConfig(size=32, split_by="random", format=layout))
    convert(tmp_path / "packed", tmp_path / "again", TileConfig(format="geotiff"))
    for folder in ("geotiff", "again"):
        chips = sorted((tmp_path / folder / "target").rglob("*.tif"))
        assert chips
        for chip in chips:
            with rasterio.open(chip) as dataset:
                assert (dataset.scales, dataset.offsets) == ((1e-4, 2e-4), (-0.1, 0))
                assert (dataset.units, dataset.descriptions) == (("reflectance", "K"), ("B02", "B10"))
    assert ChipSet.open(tmp_path / "geotiff").target == ChipSet.open(tmp_path / "again").target
