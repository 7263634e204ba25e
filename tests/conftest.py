"""Small synthetic rasters: not square, not a multiple of any chip size, with holes."""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: as the command line does

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import settings
from rasterio.crs import CRS
from torch import nn

from geop2p.config import Kind, TileConfig
from geop2p.models import GENERATORS
from geop2p.raster.encoding import Band, Encoding, MapClass
from geop2p.raster.grid import Grid
from geop2p.raster.reading import gdal_env
from geop2p.tiling.scenes import lattice_axis
from geop2p.translator import Card, Translator

# the keys of an evaluation that docs/programs.md explains
_PROGRAMS = (Path(__file__).parents[1] / "docs" / "programs.md").read_text()
_FOUND = _PROGRAMS.split("## What `geop2p evaluate` finds")[1].split("\n## ")[0]
TOLD = {key for line in _FOUND.splitlines() if line[:3] == "| `" for key in re.findall(r"`(\w+)`", line.split("|")[1])}

settings.register_profile("any speed", deadline=None)  # a busy machine is no fault
settings.load_profile("any speed")

UTM = CRS.from_epsg(32632)
CLASSES = (
    MapClass(1, "water", (40, 90, 160)),
    MapClass(2, "meadow", (150, 190, 110)),
    MapClass(5, "road", (90, 90, 90)),
)


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    """Two in all, or one for each of several processes of tests."""
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from few draws of blocks, distances from few halves: quick, and good enough where others are tested."""
    monkeypatch.setattr("geop2p.metrics.blocks.BOOTSTRAPS", 100)
    monkeypatch.setattr("geop2p.evaluation.features.HALVINGS", 3)


def grid(height: int, width: int, pixel: float = 2.0, left: float = 500_000.0, top: float = 5_300_000.0) -> Grid:
    """A north-up grid in UTM."""
    return Grid(UTM, Affine(pixel, 0, left, 0, -pixel, top), height, width)


def lattice(where: Grid, config: TileConfig) -> list[tuple[int, int]]:
    """(row_off, col_off) of the windows that cover a grid."""
    return [(row, col) for row in lattice_axis(where.height, config) for col in lattice_axis(where.width, config)]


def write_raster(
    path: Path,
    values: np.ndarray,
    where: Grid,
    *,
    mask: np.ndarray | None = None,
    palette: dict | None = None,
    **profile: Any,
) -> Path:
    """Write values (bands, rows, cols) as a GeoTIFF."""
    count, height, width = values.shape
    profile |= {"crs": where.crs, "transform": where.transform, "count": count, "height": height, "width": width}
    with gdal_env(), rasterio.open(path, "w", driver="GTiff", dtype=values.dtype, **profile) as dataset:
        dataset.write(values)
        if palette:
            dataset.write_colormap(1, palette)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def write_names(raster: Path, names: Iterable[str]) -> None:
    """Name the classes 0, 1, 2... of a map, in the file beside it where GDAL looks for them."""
    listed = "".join(f"<Category>{name}</Category>" for name in names)
    Path(f"{raster}.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{listed}</CategoryNames></PAMRasterBand></PAMDataset>'
    )


def class_map(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Classes 1, 2 and 5 in patches, uint8 (1, rows, cols)."""
    coarse = np.random.default_rng(seed).choice([1, 2, 5], (height // 8 + 1, width // 8 + 1))
    return coarse.repeat(8, 0).repeat(8, 1)[np.newaxis, :height, :width].astype(np.uint8)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """See `write_pair`."""
    return write_pair(tmp_path)


def write_pair(folder: Path) -> tuple[Path, Path]:
    """A class map with names, nodata 0 in a corner, and an RGB image on the same grid with a masked hole."""
    height, width = 300, 420
    codes = class_map(height, width)
    colors = np.zeros((3, height, width), np.uint8)
    for entry in CLASSES:
        colors[:, codes[0] == entry.value] = np.array(entry.color)[:, None]
    codes[0, :20, :30] = 0
    valid = np.ones((height, width), bool)
    valid[140:155, 200:230] = False
    noise = np.random.default_rng(1).integers(-20, 20, colors.shape)
    image = np.clip(colors.astype(int) + noise, 0, 255).astype(np.uint8)
    where = grid(height, width)
    palette = {entry.value: (*entry.color, 255) for entry in CLASSES}
    source = write_raster(folder / "map.tif", codes, where, nodata=0, palette=palette)
    write_names(source, ("", "water", "meadow", "", "", "road"))
    target = write_raster(folder / "image.tif", image, where, mask=valid, photometric="RGB")
    return source, target


@contextlib.contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Like a disk that gets full: what would make a file larger than so many bytes is not written."""
    import resource  # not on Windows

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Identity(nn.Module):
    """A generator that returns its input."""

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return source


class Constant(Identity):
    """A generator that returns one value everywhere."""

    value = 0.25

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return torch.full_like(source, self.value)


class TileMean(Identity):
    """A generator whose output depends on the whole tile: the worst case for seams."""

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return source.mean(dim=(2, 3), keepdim=True).expand_as(source)


def stir_norms(network: nn.Module) -> None:
    """Give batch norms statistics of a distribution other than the one they begin with."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.2, 0.6)


@pytest.fixture
def make_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Save a model made of any module, so that `predict` loads it like a trained one."""

    def make(module: type[nn.Module], encoding: Encoding, target: Encoding | None = None, **card: Any) -> Path:
        name = module.__name__.lower()
        monkeypatch.setitem(GENERATORS, name, module)
        fields: dict[str, Any] = {
            "generator": name,
            "arguments": {},
            "source": encoding,
            "target": target or encoding,
            "pixel_size": (2.0, 2.0),
            "chip_size": 64,
            "stride": 1,
            "field": 0,
            "statistics": "none",
            "recipe": "pix2pix",
            "provenance": {},
        }
        path = tmp_path / f"{name}.safetensors"
        Translator(module(), Card(**fields | card)).save(path)
        return path

    return make


def image_encoding(
    dtype: str = "uint8", bands: int = 3, low: float = 0, high: float = 255, kind: Kind = "image"
) -> Encoding:
    """An encoding of continuous values over one interval."""
    return Encoding(kind, dtype, tuple(Band(low=low, high=high) for _ in range(bands)))
