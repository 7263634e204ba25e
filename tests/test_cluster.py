"""Rule 3 on a cluster: the workers of Dask make the pixels of one process, also when one of them is killed."""

import importlib.metadata
import importlib.util
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import Identity, grid, image_encoding, write_raster

import geop2p.mosaic.cluster as cluster_module
from geop2p import PredictConfig, predict
from geop2p.errors import ConfigError, GeoP2PError, RasterError
from geop2p.models import GENERATORS
from geop2p.models.field import one_sided_field
from geop2p.translator import Card, Translator

distributed = pytest.importorskip("distributed", reason="the extra geop2p[dask] is not installed")
BLENDED = {"tile_size": 64, "overlap": 0.25, "memory": "1MB"}

OBEDIENT = """
import os, pathlib, signal
from geop2p.mosaic import cluster, part_notes
from geop2p.translator import Translator

load, write, made = Translator.load, part_notes.write_json, []

def load_and_tell(*arguments):
    with open(loads, "a") as file:
        file.write(f"{os.getpid()}\\n")
    return load(*arguments)

def write_or_die(path, data):  # when the pixels of a part are there, and nothing yet that says so
    made.append(path)
    if len(made) == 2:
        try:
            os.unlink(order)
        except FileNotFoundError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    write(path, data)

Translator.load, part_notes.write_json = load_and_tell, write_or_die
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of a cluster of two processes."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", worker_dashboard_address=None,
            local_directory=str(tmp_path_factory.mktemp("dask")),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        yield client


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network that any process knows."""
    arguments = {"in_channels": 1, "out_channels": 1, "head": "tanh", "norm": "instance", "downs": 3, "width": 4}
    torch.manual_seed(0)
    network = GENERATORS["unet"](**arguments, dropout=0.0).eval()
    encoding, path = image_encoding("float32", 1, -1, 1), tmp_path / "model.safetensors"
    field = one_sided_field(network, 1, network.stride, rows=network.stride)
    stored = arguments | {"dropout": 0.0}
    card = Card("unet", stored, encoding, encoding, (2.0, 2.0), 64, network.stride, field, "tile", "pix2pix", {})
    Translator(network, card).save(path)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(0, 0.3, (1, 620, 1200)).astype(np.float32)
    valid = np.ones((620, 1200), bool)
    valid[:, 1120:] = False  # parts without ground
    return write_raster(tmp_path / "in.tif", values, grid(620, 1200), mask=valid)


def address(client: Any) -> str:
    return str(client.scheduler.address)


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.ma.filled(dataset.read(masked=True), np.nan)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads for torch as a worker of the cluster has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_workers_make_the_pixels_of_one_process_also_if_one_is_killed(
    client: Any,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    model: Path,
    scene: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
) -> None:
    told = tmp_path_factory.mktemp("told")  # stays, as the workers do
    order, loads = told / "order", told / "loads"
    order.touch()
    client.run(exec, OBEDIENT, {"order": str(order), "loads": str(loads)})
    settings = PredictConfig(memory="1MB", tile_size=128, norm_stats="field", batch_size=2)
    whole = predict(model, scene, tmp_path / "whole.tif", settings)
    assert whole.mode == "exact" and whole.parts > 4  # so that one of two workers makes three
    monkeypatch.chdir(tmp_path)  # the workers work elsewhere
    config = PredictConfig(memory="1MB", tile_size=128, norm_stats="field", batch_size=2, dask=address(client))
    many = predict("model.safetensors", "in.tif", "many.tif", config)
    assert not order.exists(), "no worker was killed"
    assert np.array_equal(pixels(tmp_path / "whole.tif"), pixels(tmp_path / "many.tif"), equal_nan=True)
    assert (many.tile_mismatch, many.network_px_per_px) == (whole.tile_mismatch, whole.network_px_per_px)
    assert set(Counter(loads.read_text().split()).values()) == {1}, "a model is loaded once by each process"
    assert not list(tmp_path.glob("*.parts"))


def test_a_worker_takes_the_parts_as_they_were_cut(
    tmp_path: Path, model: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with a GPU, or with more memory to spare, would cut other parts."""
    job = cluster_module.Job(str(model), str(scene), tmp_path / "out.tif.parts", PredictConfig(memory="1MB"))
    mosaic, _, claim = job.begin("cpu")
    monkeypatch.setattr("geop2p.mosaic.mosaic.choose_part_side", lambda *_: mosaic.part_side + 512)
    there = cluster_module._elsewhere(job, mosaic)
    assert there.begin("cpu")[2] == claim != job.begin("cpu")[2]


def test_what_a_worker_finds_is_told_in_one_line(client: Any, tmp_path: Path, model: Path) -> None:
    values = np.random.default_rng(0).normal(0, 0.3, (1, 1100, 600)).astype(np.float32)
    path = write_raster(tmp_path / "cut.tif", values, grid(1100, 600), blockysize=1)
    path.write_bytes(path.read_bytes()[: 600 * 900 * 4])
    with pytest.raises(RasterError, match=r"cut\.tif: pixels cannot be read in rows .*\(on ") as found:
        predict(model, path, tmp_path / "out.tif", PredictConfig(**BLENDED, dask=address(client)))
    assert "\n" not in str(found.value) and not (tmp_path / "out.tif").exists()
    with pytest.raises(ConfigError, match="left by a run with another"):
        predict(model, path, tmp_path / "out.tif", PredictConfig(dask=address(client)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("importlib.metadata.version = lambda name: '9.9'", r"has geop2p 9\.9; scheduler and workers need geop2p"),
        ("cluster.fingerprint = lambda *_: {'size': 1}", "a worker has another input; all need the same files"),
        ("cluster.MANIFEST = 'elsewhere'", r"out\.tif\.parts: a worker does not see it"),
    ],
)
def test_a_worker_that_would_make_other_pixels_is_refused(
    client: Any, tmp_path: Path, model: Path, scene: Path, change: str, match: str
) -> None:
    own = "importlib.metadata.version, cluster.fingerprint, cluster.MANIFEST"
    put_back = f"if hasattr(cluster, 'kept'):\n    {own} = cluster.kept"
    modules = "import importlib.metadata\nfrom geop2p.mosaic import cluster\n"
    client.wait_for_workers(2)  # one may take the place of one that another test killed, also later
    client.run(exec, f"{modules}cluster.kept = {own}\n{change}", {})
    try:
        with pytest.raises(GeoP2PError, match=match):
            predict(model, scene, tmp_path / "out.tif", PredictConfig(**BLENDED, dask=address(client)))
    finally:
        client.run(exec, f"{modules}{put_back}", {})
    assert not list((tmp_path / "out.tif.parts").glob("part_*"))


def test_where_there_is_no_cluster(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(Identity, image_encoding("float32", 1, -1, 1))
    monkeypatch.setattr(cluster_module, "PATIENCE", 0.3)
    with pytest.raises(ConfigError, match=r"--dask tcp://127\.0\.0\.1:9: no scheduler answers .*; start one"):
        predict(model, scene, tmp_path / "out.tif", PredictConfig(dask="tcp://127.0.0.1:9"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"not installed; pip install 'geop2p\[dask\]'"):
        predict(model, scene, tmp_path / "out.tif", PredictConfig(dask="tcp://127.0.0.1:9"))
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(ConfigError, match="give one of them"):
        PredictConfig(dask="tcp://127.0.0.1:8786", shard="1/2")
    with pytest.raises(ConfigError, match="expected the address of a scheduler"):
        PredictConfig(dask="localhost")


def test_dask_tells_no_traceback_of_a_connection_that_broke(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    with cluster_module.connected(address(client)):
        logger = logging.getLogger("distributed.utils")
        try:
            raise OSError("connection refused")
        except OSError as error:
            logger.exception(error)
        try:
            raise ValueError("something else")
        except ValueError as error:
            logger.exception(error)
    logger.exception("broken again", exc_info=OSError("after the work"))
    told = [record.message for record in caplog.records if record.name == logger.name]
    assert told == ["something else", "broken again"]


@pytest.mark.parametrize("breaks", [1, 2])
def test_a_broken_connection_is_not_taken_for_a_missing_package(breaks: int, caplog: pytest.LogCaptureFixture) -> None:
    ours, lost = importlib.metadata.version("geop2p"), distributed.comm.CommClosedError("reset by peer")
    answers = [{"tcp://a:1": ours, "tcp://b:1": lost}, {"tcp://b:1": lost if breaks == 2 else ours}]
    asked = []

    def run(*_: Any, workers: list[str] | None = None, on_error: str) -> dict[str, Any]:
        asked.append(workers)
        return answers[len(asked) - 1]

    with caplog.at_level("WARNING"):
        cluster_module._check_versions(SimpleNamespace(run=run, run_on_scheduler=lambda *_: ours), "tcp://s:1")
    assert asked == [None, ["tcp://b:1"]]
    assert ("tcp://b:1: does not answer (reset by peer)" in caplog.text) == (breaks == 2)


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (distributed.KilledWorker("part", None, 3), "4 workers died while they made the part at row 512, column 0; "),
        (distributed.CancelledError(), "the Dask scheduler is gone; repeat the command"),
    ],
)
def test_a_cluster_that_gives_up_says_so(error: Exception, match: str) -> None:
    def result() -> None:
        raise error

    with pytest.raises(GeoP2PError, match=match):
        cluster_module._check(SimpleNamespace(result=result), rasterio.windows.Window(0, 512, 9, 9))
