"""Rule 3 with real processes: shards at the same time, one of them twice, one killed and repeated."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import grid, image_encoding, write_raster

from geop2p import PredictConfig, predict
from geop2p.models import GENERATORS
from geop2p.translator import Card, Translator

SETTINGS = {"norm_stats": "field", "tile_size": 64, "overlap": 0.25, "memory": "1MB", "batch_size": 1}


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.ma.filled(dataset.read(masked=True), np.nan)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    arguments = {"in_channels": 1, "out_channels": 1, "head": "tanh", "norm": "instance", "downs": 3, "width": 4}
    arguments |= {"dropout": 0.0}
    torch.manual_seed(0)
    network, encoding = GENERATORS["unet"](**arguments).eval(), image_encoding("float32", 1, -1, 1)
    card = Card("unet", arguments, encoding, encoding, (2.0, 2.0), 64, 8, None, "tile", "pix2pix", {})
    Translator(network, card).save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_processes_at_the_same_time_make_the_pixels_of_one(tmp_path: Path, model: Path) -> None:
    values = np.random.default_rng(0).normal(0, 0.3, (1, 600, 1600)).astype(np.float32)
    valid = np.ones((600, 1600), bool)
    valid[300:420, 400:900] = False
    source = write_raster(tmp_path / "in.tif", values, grid(600, 1600), mask=valid)
    options = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    output = tmp_path / "out.tif"

    def start(shard: str) -> "subprocess.Popen[bytes]":
        command = ["-m", "geop2p", "predict", model, source, output, *options, "--shard", shard, "--json"]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        return subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, env=os.environ | threads)

    folder = tmp_path / "out.tif.parts"
    victim, others = start("1/2"), [start("2/2"), start("2/2")]
    first = folder / "part_r0000000_c0000000.json"
    while not first.exists():
        assert victim.poll() is None
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert not (folder / "part_r0000512_c0001024.json").exists(), "it was killed too late"
    assert start("1/2").wait(60) == 0
    assert [process.wait(60) for process in others] == [0, 0]
    assert len(list(folder.glob("part_*.json"))) == 8
    predict(model, source, output, PredictConfig(**SETTINGS))
    predict(model, source, tmp_path / "whole.tif", PredictConfig(**SETTINGS))
    assert np.array_equal(pixels(tmp_path / "whole.tif"), pixels(output), equal_nan=True)
    assert not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob(".*"))
