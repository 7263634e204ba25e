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


def write_source(path: Path, height: int, width: int) -> Path:
    values = np.random.default_rng(0).normal(0, 0.3, (1, height, width)).astype(np.float32)
    valid = np.ones((height, width), bool)
    valid[300:420, 400:900] = False
    return write_raster(path, values, grid(height, width), mask=valid)


def start(*words: str | Path) -> "subprocess.Popen[str]":
    options = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "geop2p", "predict", *words, *options, "--json"]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, env=os.environ | threads)


def test_processes_at_the_same_time_make_the_pixels_of_one(tmp_path: Path, model: Path) -> None:
    source = write_source(tmp_path / "in.tif", 600, 1600)
    output, folder = tmp_path / "out.tif", tmp_path / "out.tif.parts"

    def shard(which: str) -> "subprocess.Popen[str]":
        return start(model, source, output, "--shard", which)

    victim, others = shard("1/2"), [shard("2/2"), shard("2/2")]
    first = folder / "part_r0000000_c0000000.json"
    while not first.exists():
        assert victim.poll() is None
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    assert victim.communicate() and victim.returncode == -signal.SIGKILL
    assert not (folder / "part_r0000512_c0001024.json").exists(), "it was killed too late"
    assert [process.communicate(timeout=60) and process.returncode for process in (shard("1/2"), *others)] == [0, 0, 0]
    assert len(list(folder.glob("part_*.json"))) == 8
    predict(model, source, output, PredictConfig(**SETTINGS))
    predict(model, source, tmp_path / "whole.tif", PredictConfig(**SETTINGS))
    assert np.array_equal(pixels(tmp_path / "whole.tif"), pixels(output), equal_nan=True)
    assert not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob(".*"))


def test_of_two_that_put_the_same_parts_together_one_does(tmp_path: Path, model: Path) -> None:
    source, output = write_source(tmp_path / "in.tif", 450, 600), tmp_path / "out.tif"
    processes = [start(model, source, output) for _ in range(2)]
    said = [process.communicate(timeout=60)[1].splitlines()[-1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) in ([0, 0], [0, 1])
    told = ("another process is putting the parts together", "was removed meanwhile, by the run that put")
    assert all(any(words in line for words in told) for code, line in zip(codes, said, strict=True) if code), said
    predict(model, source, tmp_path / "whole.tif", PredictConfig(**SETTINGS))
    assert np.array_equal(pixels(tmp_path / "whole.tif"), pixels(output), equal_nan=True)
    assert not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob(".*"))
