"""Rule 4: what a raster takes in memory depends on its parts, not on its rows and columns."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import grid, image_encoding
from rasterio.windows import Window

from geop2p.models import GENERATORS
from geop2p.models.field import one_sided_field
from geop2p.raster.reading import gdal_env
from geop2p.translator import Card, Translator

SHORT, LONG, WIDE = (1000, 1000), (4000, 1000), (500, 8000)  # rows, columns
SIZES = {"short.tif": SHORT, "long.tif": LONG, "wide.tif": WIDE}
BAND = 4 * (LONG[0] - SHORT[0]) * SHORT[1]  # bytes of one band of what the large rasters have more; they have three
STATUS = Path("/proc/self/status")

# All that is bounded by a constant is made so small that the short raster reaches the bound.
START = """
import sys
from pathlib import Path
from geop2p import PredictConfig, TileConfig, predict, tile
from geop2p.mosaic import assembly, plan, seams
from geop2p.raster import reading, writing
from geop2p.tiling import cutting
reading.BLOCK_CACHE = writing.COPY_CACHE = 4 * 2**20
reading.OPEN_FILES = 2
cutting.REGION_BYTES = 2**20
assembly.MISMATCH_WINDOWS = 1
seams.PIECE = plan.LARGEST_PART = plan.PART_MULTIPLE

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))

folder = Path(sys.argv[1])
for number, name in enumerate(("short.tif", *sys.argv[2:])):  # the first one loads what stays
"""
PREDICT = """
    config = PredictConfig(tile_size=280, memory="200MB")
    predict(folder / "model.safetensors", folder / name, folder / f"out_{number}.tif", config, overwrite=True)
    peak()
"""
TILE = """
    config = TileConfig(size=128, source_kind="image", target_kind="image")
    tile(folder / name, folder / name, folder / f"chips_{number}", config)
    peak()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rasters of float32 of which one is long and one is wide, and a model."""
    made = tmp_path_factory.mktemp("memory")
    for name, (rows, cols) in SIZES.items():
        where = grid(rows, cols)
        profile = {"crs": where.crs, "transform": where.transform, "count": 3, "height": rows, "width": cols}
        stripe = np.broadcast_to(np.linspace(-1, 1, cols, dtype=np.float32), (3, 500, cols))
        with gdal_env(), rasterio.open(made / name, "w", driver="GTiff", dtype="float32", **profile) as dataset:
            for row in range(0, rows, 500):
                dataset.write(stripe, window=Window(0, row, cols, 500))
    arguments = {"in_channels": 3, "out_channels": 3, "head": "tanh", "norm": "none", "downs": 2, "width": 2}
    torch.manual_seed(0)
    network, encoding = GENERATORS["unet"](**arguments).eval(), image_encoding("float32", 3, -1, 1)
    card = Card(
        "unet", arguments, encoding, encoding, (2.0, 2.0), 64, 4, one_sided_field(network, 3, 4), "none", "pix2pix", {}
    )
    Translator(network, card).save(made / "model.safetensors")
    return made


def growth(folder: Path, work: str, *names: str) -> int:
    """Bytes by which the peak memory of a process of its own rises from a small raster to a large one."""
    if "VmHWM" not in (STATUS.read_text() if STATUS.exists() else ""):
        pytest.skip("this system does not tell the peak memory of a process")
    returned = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
    environment = os.environ | returned | {"OMP_NUM_THREADS": "1"}  # what is freed goes back at once
    command = [sys.executable, "-c", START + work, folder, *names]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    _, small, large = (1024 * int(line) for line in ran.stdout.split())
    return large - small


@pytest.mark.parametrize("large", ["long.tif", "wide.tif"])
def test_the_peak_memory_of_a_prediction_does_not_grow_with_the_raster(folder: Path, large: str) -> None:
    assert growth(folder, PREDICT, "short.tif", large) < BAND


def test_the_peak_memory_of_tiling_does_not_grow_with_the_raster(folder: Path) -> None:
    assert growth(folder, TILE, "short.tif", "long.tif") < BAND
