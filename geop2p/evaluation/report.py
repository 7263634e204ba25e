"""The page: one HTML file with everything inside it, no network needed."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image
from rasterio.enums import Resampling
from rasterio.windows import Window

from geop2p.errors import ConfigError
from geop2p.raster.atomic import make_folder, replacing, write_text
from geop2p.raster.encoding import Encoding
from geop2p.raster.grid import Grid
from geop2p.raster.layers import complete_encoding, open_layer
from geop2p.raster.reading import gdal_env, opened
from geop2p.raster.render import render

MOSAIC_SIDE = 1400  # pixels of the longest side of a mosaic on the page

PLACES = 6  # chips or windows that a page shows

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Strip:
    """Pictures of one place side by side: caption, and name of each picture to uint8 (rows, cols, 3)."""

    caption: str
    pictures: dict[str, Picture]


@dataclass(frozen=True)
class Curve:
    """A figure over the steps of a training."""

    name: str
    steps: list[float]
    values: list[float]

    def points(self, width: float, height: float) -> str:
        """SVG points of the line, fitted to a box of this size."""
        low, high = min(self.values), max(self.values)
        across, span = max(self.steps) - min(self.steps) or 1, (high - low) or 1
        pairs = zip(self.steps, self.values, strict=True)
        return " ".join(
            f"{(x - min(self.steps)) / across * width:.1f},{height - (y - low) / span * height:.1f}" for x, y in pairs
        )


@dataclass
class Page:
    """What a report shows; empty parts are left out."""

    title: str
    result: dict[str, Any]
    strips: list[Strip] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    position: Picture | None = None
    mosaic: Picture | None = None
    mosaic_figures: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def check_report(report: Path, overwrite: bool) -> None:
    """Refuse a report that would destroy something, before anything is scored.

    Raises:
        ConfigError: It exists, or is not called a page.
    """
    if report.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{report}: the report is a page; give a name that ends in .html")
    if report.exists() and not overwrite:
        raise ConfigError(f"{report}: exists; give another name or --overwrite")
    make_folder(report.parent)


def write_page(path: Path, page: Page) -> None:
    """Write the page as one self-contained HTML file."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"photo": photo_uri, "exact": exact_uri, "figure": figure}
    text = resources.files("geop2p.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    write_text(path, environment.from_string(text).render(page=page))


def photo_uri(picture: Picture) -> str:
    """A picture as JPEG inside a link."""
    return _uri(picture, "JPEG", quality=90, subsampling=0)


def exact_uri(picture: Picture) -> str:
    """A picture as PNG inside a link."""
    return _uri(picture, "PNG", optimize=True)


def _uri(picture: Picture, form: str, **options: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def figure(value: Any) -> str:
    """A number to four digits, or a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def curve_data(metrics: list[dict[str, Any]]) -> list[Curve]:
    """Curves of a training from the lines of its `metrics.jsonl`: losses, and validation scores."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for entry in metrics:
        named = {f"training {name}": value for name, value in entry["losses"].items()}
        scores = entry["val"] or {}
        named |= {f"validation {name}": scores.get(name) for name in ("l1", "psnr", "ssim", "accuracy", "miou")}
        for name, value in named.items():
            if value is not None:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(entry["step"])
                values.append(value)
    return [Curve(name, *lists) for name, lists in curves.items() if len(lists[0]) > 1]


def heat_picture(values: npt.NDArray[np.float64], side: int = 256) -> Picture:
    """A map of errors (rows, cols) smoothed over blocks, from dark (least) to light (most); grey for NaN."""
    block = max(1, values.shape[0] // 32)
    trimmed = values[: values.shape[0] // block * block, : values.shape[1] // block * block]
    cells = trimmed.reshape(trimmed.shape[0] // block, block, trimmed.shape[1] // block, block)
    known = np.isfinite(cells)
    sums = np.where(known, cells, 0).sum(axis=(1, 3))
    counts = known.sum(axis=(1, 3))
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    low, high = np.nanmin(means), np.nanmax(means)
    unit = np.nan_to_num((means - low) / (high - low or 1))
    stops = np.array([(13, 8, 80), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)])
    at = np.linspace(0, 1, len(stops))
    colors = np.stack([np.interp(unit, at, stops[:, channel]) for channel in range(3)], axis=-1)
    colors[counts == 0] = 128
    picture = Image.fromarray(np.rint(colors).astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(picture)


def write_overview(path: Path, rasters: Sequence[str | Path], grid: Grid, side: int = 420) -> None:
    """Save the same ground of several rasters side by side as a PNG.

    Args:
        path: File to write or replace.
        rasters: In order from left to right.
        grid: Where to show them; its middle is shown.
        side: Pixels of each picture.
    """
    rows, cols = min(side, grid.height), min(side, grid.width)
    window = Window((grid.width - cols) // 2, (grid.height - rows) // 2, cols, rows)
    pictures: list[Picture] = []
    for raster in rasters:
        layer = open_layer(raster)
        with layer.reader(grid) as reader:
            values, valid = reader.read(window)
        picture = render(values, valid, complete_encoding(layer, values, valid))
        pictures += [picture, np.full((rows, 8, 3), 255, np.uint8)]
    with replacing(path) as temporary:
        Image.fromarray(np.concatenate(pictures[:-1], axis=1)).save(temporary, optimize=True)


def mosaic_picture(path: str | Path, encoding: Encoding, side: int = MOSAIC_SIDE) -> Picture:
    """A raster thinned to at most `side` pixels, drawn as its encoding says."""
    with gdal_env(), opened(path) as dataset:
        factor = max(1.0, max(dataset.shape) / side)
        shape = tuple(math.ceil(length / factor) for length in dataset.shape)
        method = Resampling.nearest if encoding.is_classes else Resampling.average
        bands = list(range(1, len(encoding.bands) + 1))
        values = dataset.read(bands, out_shape=(len(bands), *shape), resampling=method)
        valid = dataset.dataset_mask(out_shape=shape, resampling=Resampling.nearest) > 0
    return render(np.nan_to_num(values), valid, encoding)
