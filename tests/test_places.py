"""Where layers may lie: in any file that GDAL opens, an archive, on a web server; changes there are noticed."""

import contextlib
import http.server
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from conftest import UTM, Identity, class_map, grid, image_encoding, write_raster
from geop2p_cli.main import main
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window
from shapely.geometry import box

from geop2p import TileConfig, tile
from geop2p.errors import ChipSetError, RasterError
from geop2p.raster import fingerprints
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.fingerprints import fingerprint
from geop2p.raster.reading import opened
from geop2p.tiling.chips import ChipSet

SMALL = TileConfig(size=32, split="1:0:0")


@contextlib.contextmanager
def serving(*arguments: object) -> Iterator[str]:
    """The address of a server of the files of a folder."""
    command = [sys.executable, str(Path(__file__).with_name("range_server.py")), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.kill()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address under which the files of tmp_path are served."""
    with serving(tmp_path) as address:
        yield address


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    where, values = grid(96, 128), np.random.default_rng(0).integers(1, 255, (3, 96, 128), dtype=np.uint8)
    return (
        write_raster(tmp_path / "map.tif", class_map(96, 128), where, palette={1: (1, 2, 3)}),
        write_raster(tmp_path / "image.tif", values, where),
    )


def packed(file: Path) -> str:
    with zipfile.ZipFile(file.with_suffix(".zip"), "w") as archive:
        archive.write(file, file.name)
    return f"/vsizip/{file.with_suffix('.zip')}/{file.name}"


def copied(file: Path, driver: str) -> str:
    path = file.with_name(f"{file.stem}_{driver}.tif")
    copy_raster(file, path, driver=driver)
    return str(path)


PLACES: dict[str, Callable[[Path, str], str]] = {
    "cog": lambda file, _: copied(file, "COG"),
    "vrt": lambda file, _: copied(file, "VRT"),
    "archive": lambda file, _: packed(file),
    "server": lambda file, served: f"{served}/{file.name}",
    "server, by GDAL's name": lambda file, served: f"/vsicurl/{served}/{file.name}",
}


@pytest.mark.parametrize("place", PLACES)
def test_layers_of_any_place_give_the_same_chips(
    tmp_path: Path, layers: tuple[Path, Path], served: str, place: str
) -> None:
    tile(*layers, tmp_path / "plain", SMALL)
    tile(*(PLACES[place](file, served) for file in layers), tmp_path / "chips", SMALL)
    plain, chipset = ChipSet.open(tmp_path / "plain"), ChipSet.open(tmp_path / "chips")
    assert chipset.counts["train"] == plain.counts["train"] == 12
    with plain.reader("train") as here, chipset.reader("train") as there:
        for row in range(12):
            one, other = here.read(row), there.read(row)
            assert np.array_equal(one.source, other.source) and np.array_equal(one.target, other.target)


@pytest.mark.parametrize("place", ["archive", "server", "server, by GDAL's name"])
def test_a_change_at_a_far_place_is_noticed(tmp_path: Path, layers: tuple[Path, Path], served: str, place: str) -> None:
    names = [PLACES[place](file, served) for file in layers]
    tile(*names, tmp_path / "chips", SMALL)
    assert tile(*names, tmp_path / "chips", SMALL).chips == 12
    with rasterio.open(layers[1], "r+") as dataset:
        dataset.write(np.full((3, 96, 128), 7, np.uint8))
    os.utime(layers[1], (1e9, 1e9))
    if place == "archive":
        packed(layers[1])
    with pytest.raises(ChipSetError, match=r"was cut from other files \(target has changed\)"):
        tile(*names, tmp_path / "chips", SMALL)


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/map.tif", "https://[x/map.tif", "http://127.0.0.1:x/map.tif"])
def test_a_server_that_tells_nothing_leaves_the_name(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fingerprints, "PAUSES", (0.0, 0.0))
    assert fingerprint(name) == {"name": name} and "so a change will not be noticed" in caplog.text


@pytest.mark.parametrize(("answers", "asked", "is_known"), [([503, 200], 2, True), ([403, 200], 1, False)])
def test_a_server_that_fails_is_asked_again_one_that_refuses_is_not(
    monkeypatch: pytest.MonkeyPatch, answers: list[int], asked: int, is_known: bool
) -> None:
    left = answers.copy()

    class Moody(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(left.pop(0))
            self.send_header("ETag", "a")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    monkeypatch.setattr(fingerprints, "PAUSES", (0.0, 0.0))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Moody) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        name = f"http://127.0.0.1:{server.server_port}/map.tif"
        assert fingerprint(name) == {"name": name} | ({"ETag": "a"} if is_known else {})
        server.shutdown()
    assert len(answers) - len(left) == asked


def test_a_server_that_gives_whole_files_alone_is_no_damaged_file(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 255, (3, 400, 400), dtype=np.uint8)
    write_raster(tmp_path / "image.tif", values, grid(400, 400))
    with (
        serving(tmp_path, "whole") as address,
        pytest.raises(RasterError, match=r"in parts \(range requests\)") as told,
        aligned_reader(f"{address}/image.tif", grid(400, 400), "image") as reader,
    ):
        reader.read(Window(0, 0, 400, 400))
    assert "damaged" not in str(told.value)
    with pytest.raises(RasterError, match="see that its server gives it"), opened(f"{address}/image.tif"):
        pass


def test_the_command_takes_areas_and_grids_from_a_server(
    tmp_path: Path, served: str, make_model: Callable[..., Path]
) -> None:
    write_raster(tmp_path / "image.tif", np.full((3, 96, 128), 9, np.uint8), grid(96, 128))
    area = geopandas.GeoDataFrame(geometry=[box(*grid(96, 128).window(Window(0, 0, 64, 96)).bounds)], crs=UTM)
    area.to_file(tmp_path / "area.gpkg")
    model = make_model(Identity, image_encoding("uint8", 3))
    command = ["predict", model, tmp_path / "image.tif", tmp_path / "out.tif", "--like", f"{served}/image.tif"]
    done = CliRunner().invoke(main, [*map(str, command), "--aoi", f"{served}/area.gpkg", "--json"])
    assert done.exit_code == 0, done.output
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.transform == grid(96, 128).transform and (dataset.dataset_mask() > 0).sum() == 64 * 96


def test_names_on_servers_need_not_be_plain(tmp_path: Path, served: str) -> None:
    (tmp_path / "straße 1.tif").write_bytes(b"12345")
    assert fingerprint(f"{served}/straße 1.tif")["Content-Length"] == "5"
