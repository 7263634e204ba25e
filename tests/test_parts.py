"""Rule 3: one process, many shards and a killed and repeated run give the same pixels."""

import contextlib
import dataclasses
import json
import random
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from conftest import Constant, Identity, TileMean, grid, image_encoding, no_file_above, stir_norms, write_raster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.windows import Window
from shapely.geometry import Polygon, box
from torch import nn
from torch.nn import functional

import geop2p.mosaic.mosaic as mosaic_module
import geop2p.mosaic.parts as parts_module
import geop2p.mosaic.predictor as predictor_module
import geop2p.mosaic.strips as strips_module
from geop2p import PredictConfig, predict
from geop2p.errors import ConfigError, GeoP2PError, GridMismatchError, OutputError, RasterError
from geop2p.models import GENERATORS
from geop2p.mosaic.assembly import assemble
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.tags import mosaic_lattice
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.atomic import remove_folder
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.writing import part_writer
from geop2p.translator import Card, Translator

BLENDED = {"tile_size": 64, "overlap": 0.5}


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.ma.filled(dataset.read(masked=True).astype(float), np.nan)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: 512)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 255, (3, 1100, 1300), dtype=np.uint8)
    valid = np.ones((1100, 1300), bool)
    valid[:520, 1020:] = False  # a part without ground
    return write_raster(tmp_path / "in.tif", values, grid(1100, 1300), mask=valid)


def test_shards_in_any_order_give_the_pixels_of_one_process(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, small_parts: None
) -> None:
    model = make_model(TileMean, image_encoding(), statistics="tile")
    whole = predict(model, scene, tmp_path / "whole.tif", PredictConfig(**BLENDED))
    counts = []
    for number in (3, 1, 4, 2):
        share = predict(model, scene, tmp_path / "out.tif", PredictConfig(**BLENDED, shard=f"{number}/4"))
        counts.append(share.parts)
        assert share.path == str(tmp_path / "out.tif.parts") and share.seam_index is None
        assert not (tmp_path / "out.tif").exists()
    assert sum(counts) == whole.parts == 9
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out.tif.parts").glob("part_*.tif")}
    assert len(made) == 8
    predict(model, scene, tmp_path / "out.tif", PredictConfig(**BLENDED, shard="2/4"))  # repeated: nothing to do
    assert {path: path.stat().st_mtime_ns for path in made} == made
    together = predict(model, scene, tmp_path / "out.tif", PredictConfig(**BLENDED))
    assert np.array_equal(pixels(tmp_path / "whole.tif"), pixels(tmp_path / "out.tif"), equal_nan=True)
    assert together.seam_index == whole.seam_index and together.tile_mismatch == whole.tile_mismatch
    assert together.network_px_per_px == whole.network_px_per_px


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("generator", ["unet", "resnet"])
@pytest.mark.parametrize(("dtype", "share"), [("uint8", 1e-4), ("uint16", 1e-2)])
def test_threads_and_batches_change_single_pixels_by_one_dn(
    tmp_path: Path, threads: None, generator: str, dtype: str, share: float
) -> None:
    """Convolutions may add in another order: those of the residual network do, with other batches."""
    arguments: dict[str, Any] = {"in_channels": 2, "out_channels": 2, "head": "tanh", "norm": "batch", "dropout": 0.0}
    arguments |= {"downs": 3, "width": 8} if generator == "unet" else {"blocks": 6, "width": 8}
    torch.manual_seed(0)
    network, encoding = GENERATORS[generator](**arguments), image_encoding(dtype, 2, 0, np.iinfo(dtype).max)
    stir_norms(network)
    card = Card(generator, arguments, encoding, encoding, (2.0, 2.0), 64, network.stride, None, "none", "pix2pix", {})
    Translator(network.eval(), card).save(tmp_path / "model.safetensors")
    coarse = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (2, 10, 12), endpoint=True)
    values = np.asarray(coarse.repeat(16, 1).repeat(16, 2), dtype)
    path = write_raster(tmp_path / "in.tif", values, grid(160, 192))
    made = []
    for number, batch_size in ((1, 4), (2, 4), (1, 1), (2, 1)):
        torch.set_num_threads(number)
        config = PredictConfig(tile_size=64, overlap=0.25, batch_size=batch_size, device="cpu")
        predict(tmp_path / "model.safetensors", path, tmp_path / "out.tif", config, overwrite=True)
        made.append(pixels(tmp_path / "out.tif"))
    assert made[0].std() > 0.02 * np.iinfo(dtype).max
    for other in made[1:]:
        assert np.abs(other - made[0]).max() <= 1 and (other != made[0]).mean() <= share


def test_parts_that_are_missing_are_made_when_the_mosaic_is_put_together(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, small_parts: None, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model(TileMean, image_encoding(), statistics="tile")
    predict(model, scene, tmp_path / "whole.tif", PredictConfig(**BLENDED))
    predict(model, scene, tmp_path / "out.tif", PredictConfig(**BLENDED, shard="1/3"))
    caplog.set_level("INFO")
    predict(model, scene, tmp_path / "out.tif", PredictConfig(**BLENDED))
    assert "3 of 9 parts are there" in caplog.text
    assert np.array_equal(pixels(tmp_path / "whole.tif"), pixels(tmp_path / "out.tif"), equal_nan=True)


def test_parts_of_another_making_are_not_mixed(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, small_parts: None
) -> None:
    model, output = make_model(TileMean, image_encoding(), statistics="tile"), tmp_path / "out.tif"
    predict(model, scene, output, PredictConfig(**BLENDED, shard="1/2"))
    kept = sorted((tmp_path / "out.tif.parts").iterdir())
    with pytest.raises(ConfigError, match=r"another batch_size \(4, now 2\), overlap \(32, now 16\); repeat that run"):
        predict(model, scene, output, PredictConfig(tile_size=64, overlap=0.25, batch_size=2, shard="2/2"))
    other = make_model(Constant, image_encoding())
    with pytest.raises(ConfigError, match="another model"):
        predict(other, scene, output, PredictConfig(**BLENDED, shard="2/2"), overwrite=True)  # others are at work
    with pytest.raises(ConfigError, match="another model"):
        predict(other, scene, output, PredictConfig(**BLENDED))
    assert sorted((tmp_path / "out.tif.parts").iterdir()) == kept
    predict(other, scene, output, PredictConfig(**BLENDED), overwrite=True)
    assert np.nanmax(pixels(output)) == np.nanmin(pixels(output)) == round((0.25 + 1) / 2 * 255)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, make_model: Callable[..., Path], scene: Path) -> None:
    (tmp_path / "out.tif.parts").mkdir()
    (tmp_path / "out.tif.parts" / "letter.txt").write_text("mine")
    with pytest.raises(RasterError, match="holds something else; move it"):
        predict(make_model(Constant, image_encoding()), scene, tmp_path / "out.tif", overwrite=True)
    assert (tmp_path / "out.tif.parts" / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_shard_is_one_of_so_many(shard: str) -> None:
    with pytest.raises(ConfigError, match="expected I/N with I from 1 to N"):
        PredictConfig(shard=shard)


def area(tmp_path: Path, shape: Polygon, crs: str = "EPSG:32632") -> Path:
    path = tmp_path / "area.gpkg"
    geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:32632").to_crs(crs).to_file(path)
    return path


class Echo(Identity):
    """A mean of what lies 8 pixels away on either side, black beyond what it sees."""

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        around = functional.pad(source, (8, 8, 8, 8), value=-1)
        return (around[..., :-16, :-16] + around[..., 16:, 16:]) / 2


@pytest.mark.parametrize("settings", [BLENDED, {"tile_size": 64}])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
def test_an_area_of_interest_is_a_cut_of_the_whole(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, small_parts: None, settings: dict, crs: str
) -> None:
    """It sees the ground beyond its border, on the same tiles."""
    blended = "overlap" in settings
    model = make_model(
        TileMean if blended else Echo, image_encoding(), statistics="tile" if blended else "none", field=8
    )
    whole = predict(model, scene, tmp_path / "whole.tif", PredictConfig(**settings))
    left, top = 500_000 + 2 * 300, 5_300_000 - 2 * 410
    triangle = Polygon([(left + 0.3, top - 0.3), (left + 1200, top - 40), (left + 100, top - 700)])
    aoi = area(tmp_path, triangle, crs)
    part = predict(model, scene, tmp_path / "part.tif", PredictConfig(**settings, aoi=aoi))
    with rasterio.open(tmp_path / "part.tif") as dataset:
        found, valid = dataset.read(), dataset.dataset_mask() > 0
        origin = ~grid(1100, 1300).transform @ (dataset.transform.c, dataset.transform.f)
    col, row = (round(number) for number in origin)
    assert 299 <= col <= 301 and 409 <= row <= 411
    everything = pixels(tmp_path / "whole.tif")[:, row : row + part.height, col : col + part.width]
    assert np.array_equal(found[:, valid], everything[:, valid])
    share = triangle.area / 4 / (part.width * part.height)
    assert valid.mean() == pytest.approx(share - np.isnan(everything[0]).mean(), abs=0.02)
    assert (part.width, part.height) == pytest.approx((600, 350), abs=3)
    lines, lattice = mosaic_lattice(tmp_path / "whole.tif"), mosaic_lattice(tmp_path / "part.tif")
    assert lines is not None and lattice is not None
    assert {line + row for line in lattice.handovers(0, part.height)} <= set(lines.handovers(0, 1100))
    assert part.network_px_per_px * part.width * part.height < whole.network_px_per_px * 1100 * 1300 / 3


def test_an_area_elsewhere_is_refused(tmp_path: Path, make_model: Callable[..., Path], scene: Path) -> None:
    aoi = area(tmp_path, box(0, 0, 10, 10))
    with pytest.raises(GridMismatchError, match="none of its polygons lies on"):
        predict(make_model(Identity, image_encoding()), scene, tmp_path / "out.tif", PredictConfig(aoi=aoi))
    assert not list(tmp_path.glob("out*"))


def test_a_mosaic_whose_tiles_disagree_is_not_made(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path
) -> None:
    model = make_model(TileMean, image_encoding(), statistics="tile")
    with pytest.raises(GeoP2PError, match=r"not made: .* differ by .* % of the range, --max-mismatch allows 0.01 %"):
        predict(model, scene, tmp_path / "out.tif", PredictConfig(**BLENDED, max_mismatch=0.01))
    assert not (tmp_path / "out.tif").exists()
    result = predict(model, scene, tmp_path / "out.tif", PredictConfig(**BLENDED, max_mismatch=20))
    assert result.tile_mismatch_percent is not None and 0.01 < result.tile_mismatch_percent < 20
    with pytest.raises(ConfigError, match="expected 0 to 100"):
        PredictConfig(max_mismatch=101)


class Normed(TileMean):
    """Normalises by the tile, too."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(3)


class Grouped(Normed):
    """In a way that nothing can be given to."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 3)


RECIPE = "train with a recipe whose tiles are exact (pix2pix-geo), "
FIELD = "give --norm-stats field, "


@pytest.mark.parametrize(("network", "card", "overlap", "remedies"), [
    (Normed, {"statistics": "tile"}, 0.25, f"{FIELD}{RECIPE}give a larger --overlap, or allow more"),
    (Normed, {"statistics": "tile"}, 0.5, f"{FIELD}{RECIPE}or allow more"),
    (Normed, {"statistics": "tile"}, None, f"{FIELD}{RECIPE}or allow more"),  # half is what tiles overlap by
    (Grouped, {"statistics": "tile"}, 0.5, f"{RECIPE}or allow more"),
    (TileMean, {"field": None}, 0.25, f"{RECIPE}give a larger --overlap, or allow more"),
    (TileMean, {"field": 8}, 0.25, "leave --overlap out, give a larger --overlap, or allow more"),
    (TileMean, {"field": 8}, 0.5, "leave --overlap out, or allow more"),
    (TileMean, {"field": 8}, None, "allow more"),  # exact, if it were true
    (TileMean, {"field": 64}, None, "give larger tiles (--tile-size), or allow more"),
])  # fmt: skip
def test_what_helps_against_a_mismatch_is_told(
    tmp_path: Path, make_model: Callable[..., Path], network: type[nn.Module], card: dict[str, Any],
    overlap: float | None, remedies: str,
) -> None:  # fmt: skip
    values = np.random.default_rng(0).integers(0, 255, (3, 90, 100), dtype=np.uint8)
    path = write_raster(tmp_path / "in.tif", values, grid(90, 100))
    config = PredictConfig(tile_size=64, overlap=overlap, max_mismatch=0.0)
    with pytest.raises(GeoP2PError) as told:
        predict(make_model(network, image_encoding(), **card), path, tmp_path / "out.tif", config)
    assert str(told.value).endswith(f"--max-mismatch allows 0 %; {remedies}")


def test_the_map_of_seams_shows_where_tiles_disagree(
    tmp_path: Path, make_model: Callable[..., Path], small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "geop2p.mosaic.assembly.MISMATCH_SIDE", 64
    )  # many windows: half of the ground is unlike the other
    values = np.full((1, 600, 700), 100, np.float32)
    values[:, :, 350:] += np.random.default_rng(0).normal(0, 40, (1, 600, 350))  # tiles differ in the east only
    valid = np.ones((600, 700), bool)
    valid[500:, :200] = False
    path = write_raster(tmp_path / "in.tif", np.clip(values, 0, 255).astype(np.float32), grid(600, 700), mask=valid)
    model = make_model(TileMean, image_encoding("float32", 1), statistics="tile")
    config = PredictConfig(tile_size=64, overlap=0.25, seam_map=tmp_path / "seams.tif")
    result = predict(model, path, tmp_path / "out.tif", config)
    seams = pixels(tmp_path / "seams.tif")[0]
    assert np.array_equal(np.isnan(seams), ~valid)
    assert np.nanmax(seams[:, :250]) < 1e-3 < 0.2 < np.nanmean(seams[:, 420:])
    with rasterio.open(tmp_path / "seams.tif") as dataset:
        assert dataset.descriptions == ("tile mismatch",) and dataset.overviews(1)
        assert float(dataset.tags(1)["STATISTICS_MEAN"]) == pytest.approx(np.nanmean(seams), rel=1e-3)
    assert result.tile_mismatch == pytest.approx(np.nanmean(seams), rel=0.3)
    assert (tmp_path / "seams.qml").exists()
    with pytest.raises(OutputError, match="exists; give another name or --overwrite"):
        predict(model, path, tmp_path / "other.tif", config)


def test_a_map_of_seams_that_was_cut_short_is_made_again(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(TileMean, image_encoding(), statistics="tile")
    config = PredictConfig(**BLENDED, seam_map=tmp_path / "seams.tif")
    predict(model, scene, tmp_path / "whole.tif", dataclasses.replace(config, seam_map=tmp_path / "first.tif"))

    def power_off(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("geop2p.mosaic.seam_map.put_together", power_off)
        predict(model, scene, tmp_path / "out.tif", config)
    part = sorted((tmp_path / "out.tif.parts").glob("seams_*.tif"))[1]
    part.write_bytes(part.read_bytes()[:100])
    predict(model, scene, tmp_path / "out.tif", config)
    assert np.array_equal(pixels(tmp_path / "seams.tif"), pixels(tmp_path / "first.tif"), equal_nan=True)


def test_ground_in_a_corner_is_measured_too(tmp_path: Path, make_model: Callable[..., Path], small_parts: None) -> None:
    values = np.random.default_rng(0).uniform(0, 255, (1, 1300, 1400)).astype(np.float32)
    valid = np.zeros((1300, 1400), bool)
    valid[:90, 1320:] = True
    path = write_raster(tmp_path / "in.tif", values, grid(1300, 1400), mask=valid)
    model = make_model(TileMean, image_encoding("float32", 1), statistics="tile")
    with pytest.raises(GeoP2PError, match="not made"):
        predict(model, path, tmp_path / "out.tif", PredictConfig(**BLENDED, max_mismatch=0.01))


def test_what_a_kill_leaves_is_no_hindrance(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, small_parts: None
) -> None:
    model, output = make_model(TileMean, image_encoding(), statistics="tile"), tmp_path / "out.tif"
    folder = tmp_path / "out.tif.parts"
    folder.mkdir()
    (folder / ".parts.json.tmp").write_text("{")  # another process is about to begin, or was killed then
    predict(model, scene, output, PredictConfig(**BLENDED, shard="1/1"))
    (folder / "part_r0000000_c0000000.json").write_text("")  # the power went
    predict(model, scene, output, PredictConfig(**BLENDED))
    whole = pixels(output)
    folder.mkdir()
    (folder / "part_r0000000_c0000000.tif").write_bytes(b"")  # the manifest was removed first
    predict(model, scene, output, PredictConfig(**BLENDED), overwrite=True)
    assert np.array_equal(pixels(output), whole, equal_nan=True)
    folder.mkdir()
    (folder / "parts.json").write_text("")
    with pytest.raises(ConfigError, match="how the parts were made is unknown; delete the folder to begin again"):
        predict(model, scene, output.with_name("out.tif"), PredictConfig(**BLENDED, shard="1/2"), overwrite=True)
    predict(model, scene, output, PredictConfig(**BLENDED), overwrite=True)
    assert np.array_equal(pixels(output), whole, equal_nan=True)
    assert {entry.name for entry in tmp_path.glob(".*")} == set()


def test_an_area_that_is_no_vector_layer_is_refused_in_plain_words(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path
) -> None:
    with pytest.raises(RasterError, match=r"in\.tif: is no vector layer; give a GeoPackage, GeoJSON or Shapefile$"):
        predict(make_model(Identity, image_encoding()), scene, tmp_path / "out.tif", PredictConfig(aoi=scene))


def test_parts_that_lost_pixels_are_made_again(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, small_parts: None, caplog: pytest.LogCaptureFixture
) -> None:
    model, output = make_model(TileMean, image_encoding(), statistics="tile"), tmp_path / "out.tif"
    predict(model, scene, tmp_path / "whole.tif", PredictConfig(**BLENDED))
    predict(model, scene, output, PredictConfig(**BLENDED, shard="1/1"))
    cut, gone = (tmp_path / "out.tif.parts" / f"part_r0000512_c000{col}.tif" for col in ("0000", "0512"))
    cut.write_bytes(cut.read_bytes()[:5000])  # the power went after it had its name
    gone.unlink()
    caplog.set_level("INFO")
    predict(model, scene, output, PredictConfig(**BLENDED))
    assert "7 of 9 parts are there" in caplog.text
    assert np.array_equal(pixels(tmp_path / "whole.tif"), pixels(output), equal_nan=True)


@pytest.mark.parametrize("damage", ["bytes", "note"])
def test_parts_that_hold_something_else_are_made_again(
    tmp_path: Path,
    make_model: Callable[..., Path],
    scene: Path,
    small_parts: None,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    """Of the same size, they are noticed when the parts are put together."""
    model, output = make_model(TileMean, image_encoding(), statistics="tile"), tmp_path / "out.tif"
    predict(model, scene, tmp_path / "whole.tif", PredictConfig(**BLENDED))
    predict(model, scene, output, PredictConfig(**BLENDED, shard="1/1"))
    names = [f"part_r0000512_c000{col}" for col in ("0000", "0512")]
    for name, left in zip(names, (b"[]", b'{"files": {}}'), strict=True):
        part = tmp_path / "out.tif.parts" / f"{name}.tif"
        if damage == "bytes":
            whole = bytearray(part.read_bytes())
            whole[len(whole) // 2] ^= 1
            part.write_bytes(whole)
        else:
            part.with_suffix(".json").write_bytes(left)
    predict(model, scene, output, PredictConfig(**BLENDED))
    told = [f"{name} does not hold what was written; it is made again" for name in names]
    assert [line in caplog.text for line in told] == [damage == "bytes"] * 2
    assert np.array_equal(pixels(tmp_path / "whole.tif"), pixels(output), equal_nan=True)


@pytest.mark.parametrize("left", [b"\xff\xfe", b"[]", b'{"settings": []}'])
def test_a_damaged_manifest_is_told(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, small_parts: None, left: bytes
) -> None:
    model, output = make_model(Constant, image_encoding()), tmp_path / "out.tif"
    predict(model, scene, output, PredictConfig(shard="1/9"))
    (tmp_path / "out.tif.parts" / "parts.json").write_bytes(left)
    with pytest.raises(ConfigError, match=r"parts\.json is missing or damaged.* or give --overwrite to begin again"):
        predict(model, scene, output)
    predict(model, scene, output, overwrite=True)


def test_a_file_where_the_parts_go_is_told(tmp_path: Path, make_model: Callable[..., Path], scene: Path) -> None:
    (tmp_path / "out.tif.parts").write_text("mine")
    with pytest.raises(RasterError, match=r"out\.tif\.parts: is where the parts go, but is a file; move it"):
        predict(make_model(Constant, image_encoding()), scene, tmp_path / "out.tif", overwrite=True)
    assert (tmp_path / "out.tif.parts").read_text() == "mine"


def test_while_parts_are_put_together_nobody_else_does(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output, calls = make_model(Constant, image_encoding()), tmp_path / "out.tif", []

    def watched(*given: Any) -> Any:
        with pytest.raises(ConfigError, match="another process is putting the parts together"):
            predict(model, scene, output, overwrite=True)
        with pytest.raises(ConfigError, match="another process is putting the parts together"):
            predict(model, scene, output, PredictConfig(tile_size=64), overwrite=True)
        calls.append(given)
        return assemble(*given)

    monkeypatch.setattr(predictor_module, "assemble", watched)
    predict(model, scene, output)
    assert len(calls) == 1 and output.exists() and not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize("way", ["made", "locked"])
def test_parts_that_another_process_has_put_together_are_told(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """After this process has made its own; or, on a disk without locks, while it puts them together too."""
    model, output = make_model(Constant, image_encoding()), tmp_path / "out.tif"
    name = {"made": "make_parts", "locked": "assemble"}[way]
    here = getattr(predictor_module, name)

    def overtaken(*given: Any) -> Any:
        monkeypatch.setattr(predictor_module, name, here)
        if way == "made":
            here(*given)
            predict(model, scene, output)
            return None
        remove_folder(tmp_path / "out.tif.parts")
        return here(*given)

    monkeypatch.setattr(predictor_module, name, overtaken)
    with pytest.raises(ConfigError, match=r"was removed meanwhile, by the run that put the parts together") as told:
        predict(model, scene, output)
    assert "\n" not in str(told.value) and output.exists() == (way == "made")
    assert not list(tmp_path.glob("*.parts")) or way == "locked"


@pytest.mark.parametrize("left", [{}, {"settings": {}}])
def test_a_process_that_comes_too_late_adds_nothing(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch, left: dict
) -> None:
    """The parts were put together, or begun anew, while it made one of them."""
    folder, write = tmp_path / "out.tif.parts", parts_module.part_writer

    @contextlib.contextmanager
    def overtaken(path: Path, *rest: object) -> Iterator[Any]:
        with write(path, *rest) as function:
            remove_folder(folder)
            if left:
                folder.mkdir()
                (folder / "parts.json").write_text(json.dumps(left))
            yield function

    monkeypatch.setattr(parts_module, "part_writer", overtaken)
    with pytest.raises(GeoP2PError, match=r"out\.tif\.parts: was removed meanwhile"):
        predict(make_model(Identity, image_encoding()), scene, tmp_path / "out.tif", PredictConfig(shard="1/1"))
    assert not list(folder.glob("part_*")) and not list(tmp_path.glob(".*"))


def test_parts_of_an_unknown_making_are_not_mixed(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, small_parts: None
) -> None:
    model, output = make_model(Constant, image_encoding()), tmp_path / "out.tif"
    predict(model, scene, output, PredictConfig(shard="1/1"))
    (tmp_path / "out.tif.parts" / "parts.json").unlink()
    other = make_model(Identity, image_encoding())
    with pytest.raises(ConfigError, match=r"parts\.json is missing or damaged.*; delete the folder"):
        predict(other, scene, output)
    predict(other, scene, output, overwrite=True)
    assert len(np.unique(pixels(output))) > 100
    (tmp_path / "out.tif.parts" / "norm_cells").mkdir(parents=True)  # of a network that was measured too late
    with pytest.raises(ConfigError, match=r"parts\.json is missing or damaged.*; delete the folder"):
        predict(other, scene, output, PredictConfig(shard="1/2"), overwrite=True)


def test_what_was_being_removed_when_a_process_was_killed_goes(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = make_model(Identity, image_encoding()), tmp_path / "out.tif"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        predict(model, scene, output)
    (away,) = tmp_path.glob(".out.tif.parts*")
    assert list(away.glob("part_*"))
    with pytest.raises(OutputError, match="exists"):
        predict(model, scene, output)
    predict(model, scene, output, overwrite=True)
    assert not list(tmp_path.glob(".*"))


def test_files_that_a_full_disk_cut_are_noticed(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, small_parts: None
) -> None:
    """GDAL says nothing of it where it happens while a file is closed."""
    model, output = make_model(Identity, image_encoding()), tmp_path / "out.tif"
    predict(model, scene, tmp_path / "whole.tif")
    predict(model, scene, output, PredictConfig(shard="1/1"))
    folder, cog = tmp_path / "out.tif.parts", (tmp_path / "whole.tif").stat().st_size
    part = folder / "part_r0000512_c0000512.tif"
    size = part.stat().st_size
    (folder / "part_r0000512_c0000512.json").unlink()
    for missing in (1, 40_000, size // 2):
        with no_file_above(size - missing), pytest.raises(GeoP2PError, match="is the disk full"):
            predict(model, scene, output, PredictConfig(shard="1/1"))
        assert not part.exists() and not (folder / "part_r0000512_c0000512.json").exists()
    predict(model, scene, output, PredictConfig(shard="1/1"))
    for missing in (1, 20_000, cog // 2):
        with no_file_above(cog - missing), pytest.raises(GeoP2PError, match="is the disk full"):
            predict(model, scene, output)
        assert not output.exists()
    predict(model, scene, output)
    assert np.array_equal(pixels(tmp_path / "whole.tif"), pixels(output), equal_nan=True)


def test_odd_areas_are_laid_over_the_grid(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model(Identity, image_encoding())
    left, top = 500_000, 5_300_000
    bow_tie = Polygon([(left, top), (left + 400, top - 400), (left + 400, top), (left, top - 400)])
    found = predict(model, scene, tmp_path / "tie.tif", PredictConfig(aoi=area(tmp_path, bow_tie)))
    assert (found.width, found.height) == (200, 200) and "left out" not in caplog.text
    half = area(tmp_path, box(left - 400, top - 400, left + 400, top))
    found = predict(model, scene, tmp_path / "half.tif", PredictConfig(aoi=half))
    assert (found.width, found.height) == (200, 200) and ": 50 % of that is left out" in caplog.text
    world = tmp_path / "world.gpkg"
    geopandas.GeoDataFrame(geometry=[box(-180, -90, 180, 90)], crs="EPSG:4326").to_file(world)
    found = predict(model, scene, tmp_path / "world.tif", PredictConfig(aoi=world))
    assert (found.width, found.height) == (1300, 1100)
    for beside in (box(left - 50, top - 300, left, top), box(left + 2600, top - 300, left + 3000, top)):
        with pytest.raises(GridMismatchError, match=r"none of its polygons|no pixel of"):
            predict(model, scene, tmp_path / "no.tif", PredictConfig(aoi=area(tmp_path, beside)))
    assert not list(tmp_path.glob("no*"))


def test_a_style_of_somebody_else_is_kept(tmp_path: Path, make_model: Callable[..., Path], scene: Path) -> None:
    (tmp_path / "out.qml").write_text("mine")
    with pytest.raises(OutputError, match=r"out\.qml: exists and would be replaced"):
        predict(make_model(Identity, image_encoding()), scene, tmp_path / "out.tif")
    assert (tmp_path / "out.qml").read_text() == "mine"


def test_a_style_that_a_deleted_mosaic_left_is_replaced(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path
) -> None:
    """Unless another raster wears it, or somebody saved their own in its place."""
    model, output, style = make_model(Constant, image_encoding()), tmp_path / "out.tif", tmp_path / "out.qml"
    predict(model, scene, output)
    written = style.read_bytes()
    output.rename(tmp_path / "out.vrt")
    with pytest.raises(OutputError, match=r"out\.qml: exists and would be replaced"):
        predict(model, scene, output)
    (tmp_path / "out.vrt").unlink()
    style.write_bytes(written.replace(b"<!--written by geop2p-->", b""))
    with pytest.raises(OutputError, match=r"out\.qml: exists and would be replaced"):
        predict(model, scene, output)
    style.write_bytes(written)
    predict(model, scene, output)
    assert style.read_bytes() == written


class Awaited:
    """Something that happens in one thread while another waits for it, in vain where there is but one."""

    def __init__(self) -> None:
        self._events = defaultdict[Any, threading.Event](threading.Event)
        self.threads = set[threading.Thread]()

    def happens(self, what: Any) -> None:
        self.threads.add(threading.current_thread())
        self._events[what].set()

    def came(self, what: Any) -> bool:
        return self._events[what].wait(5)


class WatchedReader:
    """A reader that tells the first row of what it was asked for."""

    def __init__(self, reader: Reader) -> None:
        self.grid, self._reader, self.asked = reader.grid, reader, Awaited()

    def read(self, window: Window) -> tuple[Array, Mask]:
        self.asked.happens(window.row_off)
        return self._reader.read(window)


def test_the_next_strip_is_read_while_the_network_is_at_work(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips_module, "READ_ROWS", 64)  # a strip of tiles
    where = grid(320, 192)
    values = np.arange(320, dtype=np.uint8)[None, :, None].repeat(192, 2) // 64
    path = write_raster(tmp_path / "in.tif", values, where)
    translator = Translator.load(make_model(Identity, image_encoding(bands=1)))
    mosaic = Mosaic(translator, where, PredictConfig(tile_size=64, overlap=0, batch_size=1), tmp_path)
    overlapped = dict[int, bool]()

    def watch(_: Any, inputs: tuple[torch.Tensor]) -> None:
        strip = round(float((inputs[0][0, 0, 0, 0] + 1) / 2 * 255))
        if strip < 4 and strip not in overlapped:  # the first of its three tiles
            overlapped[strip] = reader.asked.came(64 * (strip + 1))

    translator.generator.register_forward_pre_hook(watch)
    with aligned_reader(path, where, "image") as opened:
        reader = WatchedReader(opened)
        made, _ = mosaic.window(reader, Window(0, 0, 192, 320))
    assert np.array_equal(made, values)
    assert overlapped == dict.fromkeys(range(4), True)
    assert len(reader.asked.threads) == 1 and threading.main_thread() not in reader.asked.threads


def test_rows_and_parts_are_written_while_the_network_is_at_work(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight tiles of 64 pixels, each of a value of its own, in two parts that lie side by side."""
    monkeypatch.setattr(parts_module, "BLOCK", 64)
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: 128)
    values = np.arange(8, dtype=np.uint8).reshape(1, 2, 4).repeat(64, 1).repeat(64, 2)
    path = write_raster(tmp_path / "in.tif", values, grid(128, 256))
    translated, overlapped = Awaited(), dict[str, bool]()

    class Watched(Identity):
        def forward(self, source: torch.Tensor) -> torch.Tensor:
            translated.happens(round(float((source[0, 0, 0, 0] + 1) / 2 * 255)))
            return source

    writer, keep = parts_module.part_writer, parts_module.keep_part

    def waiting_for(tile: int, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """A call of another thread that waits for a tile when it first runs."""

        def waiting(*arguments: Any) -> Any:
            assert threading.current_thread() is not threading.main_thread()
            if name not in overlapped:
                overlapped[name] = translated.came(tile)
            return call(*arguments)

        return waiting

    @contextlib.contextmanager
    def slow_writer(*arguments: Any) -> Iterator[Any]:
        with writer(*arguments) as write:
            yield waiting_for(5, "rows", write)  # the last tile of the first part

    monkeypatch.setattr(parts_module, "part_writer", slow_writer)
    monkeypatch.setattr(parts_module, "keep_part", waiting_for(7, "part", keep))  # the last of the second
    config = PredictConfig(tile_size=64, overlap=0, batch_size=1, keep_parts=True)
    predict(make_model(Watched, image_encoding(bands=1)), path, tmp_path / "out.vrt", config)
    assert overlapped == {"rows": True, "part": True}
    assert np.array_equal(pixels(tmp_path / "out.vrt"), values)


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint16"), (3, "uint8"), (3, "uint16"), (4, "uint8"), (6, "int16")])
def test_gdal_has_nothing_to_complain_of(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], bands: int, dtype: str
) -> None:
    """Of parts with a mask, whatever their bands: its threads write blocks of both at once, most of the time."""
    draw, where = np.random.default_rng(0), grid(1024, 2560)
    values, valid = draw.integers(0, 99, (bands, 1024, 2560)).astype(dtype), draw.random((1024, 2560)) > 0.1
    for _ in range(4):
        with part_writer(tmp_path / "part.tif", where, image_encoding(dtype, bands, 0, 99)) as write:
            for row in (0, 512):
                write(row, values[:, row : row + 512], valid[row : row + 512])
    assert capfd.readouterr().err == ""
    with rasterio.open(tmp_path / "part.tif") as dataset:
        assert (dataset.read()[:, valid] == values[:, valid]).all() and ((dataset.dataset_mask() > 0) == valid).all()


def test_seam_figures_do_not_depend_on_the_size_of_parts(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, found = make_model(TileMean, image_encoding(), statistics="tile"), []
    for side in (512, 1024, 2048):
        monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_, side=side: side)
        found.append(predict(model, scene, tmp_path / f"{side}.tif", PredictConfig(**BLENDED)))
    assert [one.parts for one in found] == [9, 4, 1]
    assert len({(one.tile_mismatch, one.seam_index) for one in found}) == 1 and found[0].tile_mismatch


@given(
    size=st.tuples(st.integers(1, 330), st.integers(1, 330)),
    tile=st.integers(8, 24),
    overlap=st.sampled_from([None, 0.0, 0.25, 0.5]),
    part=st.sampled_from([64, 128, 192]),
    draw=st.randoms(use_true_random=False),
    shards=st.integers(1, 5),
)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shards_in_any_order_with_any_parts_lost_give_the_pixels_of_one_process(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    make_model: Callable[..., Path],
    size: tuple[int, int],
    tile: int,
    overlap: float | None,
    part: int,
    draw: random.Random,
    shards: int,
) -> None:
    """Exact (without an overlap) or blended, of any size, with holes; some shards never run. The one has one part."""
    folder, numbers = tmp_path_factory.mktemp("shards"), np.random.default_rng(draw.randrange(10**6))
    values = numbers.integers(0, 255, (3, *size), dtype=np.uint8)
    holes = np.kron(numbers.random((6, 6)) < 0.2, np.ones((55, 55), bool))[: size[0], : size[1]]
    source = write_raster(folder / "in.tif", values, grid(*size), mask=~holes)
    statistics = {"statistics": "none", "field": 0} if overlap is None else {"statistics": "tile"}
    model = make_model(Identity if overlap is None else TileMean, image_encoding(), **statistics)
    config = PredictConfig(tile_size=4 * tile, overlap=overlap)
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: 512)
    whole, output = predict(model, source, folder / "whole.tif", config), folder / "out.tif"
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: part)
    assert whole.parts == 1 and whole.mode == ("exact" if overlap is None else "blend")
    for number in draw.sample(range(1, shards + 1), draw.randint(1, shards)):
        predict(model, source, output, dataclasses.replace(config, shard=f"{number}/{shards}"))
        for path in sorted(folder.glob("out.tif.parts/part_*.tif")):
            if draw.random() < 0.3:
                path.unlink()
    together = predict(model, source, output, config)
    assert np.array_equal(pixels(folder / "whole.tif"), pixels(output), equal_nan=True)
    assert together.tile_mismatch == whole.tile_mismatch and together.seam_index == whole.seam_index


def test_another_nodata_value_is_another_input(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    """Programs may note it beside the raster, in a file that they also write when they only look at it."""
    values = np.random.default_rng(0).integers(0, 255, (3, 90, 110), dtype=np.uint8)
    scene, output = write_raster(tmp_path / "in.tif", values, grid(90, 110)), tmp_path / "out.tif"
    model, config = make_model(Identity, image_encoding()), PredictConfig(tile_size=64, shard="1/1")
    predict(model, scene, output, config)
    bands = "".join(f'<PAMRasterBand band="{n}"><NoDataValue>7</NoDataValue></PAMRasterBand>' for n in (1, 2, 3))
    Path(f"{scene}.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    with pytest.raises(ConfigError, match=r"another nodata value of the input \(None, now 7.0\)"):
        predict(model, scene, output, dataclasses.replace(config, shard=None))
