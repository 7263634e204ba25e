"""`report.html`: a training on one page, with everything inside it."""

import dataclasses
import os
import platform
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from PIL import Image

from geop2p.config import TrainConfig
from geop2p.metrics import IN_UNITS, error_unit
from geop2p.page import Picture, exact_uri, figure
from geop2p.raster.atomic import write_text
from geop2p.training.detectors import all_warnings
from geop2p.training.history import History
from geop2p.training.recipes import Recipe
from geop2p.training.validation import FRAME
from geop2p.translator import Card

REPORT = "report.html"
MOMENTS = 5  # of the training that samples show
PLACES = 3  # chips that they show
WIDTH, HEIGHT = 260.0, 110.0  # of a curve, in units of its drawing
SCORES = ("l1", "psnr", "ssim", "accuracy", "miou")
CHECKS = {
    "variation": "variation over chips, share of the truth's",
    "right_real": "discriminator right about real",
    "right_fake": "discriminator right about fake",
}


@dataclass(frozen=True)
class Curve:
    """A figure over the epochs: points (epoch, value), and the epoch to mark, if any."""

    name: str
    points: list[tuple[float, float]]
    mark: int | None = None

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(value for _, value in self.points)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(value for _, value in self.points)

    def line(self) -> str:
        """SVG points, in the box of `WIDTH` and `HEIGHT`."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._place, self.points))

    def dot(self) -> tuple[float, float] | None:
        """Where the marked epoch lies in the box."""
        marked = [point for point in self.points if point[0] == self.mark]
        return self._place(marked[0]) if marked else None

    def _place(self, point: tuple[float, float]) -> tuple[float, float]:
        first, last = self.points[0][0], self.points[-1][0]
        span = self.high - self.low
        across = (point[0] - first) / ((last - first) or 1)
        return across * WIDTH, HEIGHT * (1 - (point[1] - self.low) / span if span else 0.5)


def write_report(
    run: Path,
    history: History,
    config: TrainConfig,
    recipe: Recipe,
    card: Card,
    device: torch.device,
    total: int,
    best: dict[str, Any] | None,
) -> None:
    """Write the page of a run as it stands.

    Args:
        run: Its folder; samples are read from it.
        history: Lines of its metrics, at least one.
        config: Its settings.
        recipe: What they mean.
        card: Of the model.
        device: Where it is trained.
        total: Steps of the whole training.
        best: Metric, value and epoch of the best epoch, if any.
    """
    unit, unused = error_unit(card.target), "epochs" if config.steps else "steps"

    def with_unit(score: str) -> str:
        return f"{score}, {unit}" if unit and score in IN_UNITS else score

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"picture": exact_uri, "figure": figure, "shown": _shown, "with_unit": with_unit}
    text = resources.files("geop2p.training").joinpath("report.html.j2").read_text(encoding="utf-8")
    marks = {} if best is None else {best["metric"]: best["epoch"]}
    groups = {
        "Losses": [_curve(history, "losses", name) for name in history[0]["losses"]],
        "Validation": [_curve(history, "val", name, with_unit(name), marks.get(name)) for name in SCORES],
        "Detectors": [_curve(history, "checks", name, title) for name, title in CHECKS.items()],
    }
    told = {key: value for key, value in card.provenance.items() if key != "recipe_values"}  # they have a list
    page = environment.from_string(text).render(
        name=run.resolve().name,
        last=history[-1],
        unit=unit,
        total=total,
        best=best,
        warnings=all_warnings(history),
        groups={title: [one for one in found if one is not None] for title, found in groups.items()},
        size=(WIDTH, HEIGHT),
        samples=_samples(run / "samples"),
        settings={key: value for key, value in dataclasses.asdict(config).items() if key != unused},
        defaults=dataclasses.asdict(TrainConfig()),
        recipe=dataclasses.asdict(recipe),
        model={"source": _side(card, "source"), "target": _side(card, "target")} | told,
        environment=_environment(device),
    )
    write_text(run / REPORT, page)


def _curve(history: History, part: str, name: str, title: str = "", mark: int | None = None) -> Curve | None:
    """A figure of the lines that have it; None if that is less than two of them."""
    pairs = [(entry["epoch"], (entry[part] or {}).get(name)) for entry in history]
    points = [(float(epoch), float(value)) for epoch, value in pairs if value is not None]
    return Curve(title or name, points, mark) if len(points) > 1 else None


def _samples(folder: Path) -> list[list[tuple[str, Picture]]]:
    """For each place the source, what was made of it at some epochs, and the truth: caption and picture."""
    files = sorted(folder.glob("epoch_*.png"))
    chosen = [files[index] for index in np.unique(np.linspace(0, len(files) - 1, MOMENTS).astype(int))] if files else []
    rows: list[list[tuple[str, Picture]]] = []
    for file in chosen:
        with Image.open(file) as image:
            sheet = np.asarray(image)
        side = sheet.shape[1] // 3
        caption = f"epoch {int(file.stem.removeprefix('epoch_'))}"
        for place in range(min(PLACES, sheet.shape[0] // side)):
            row = sheet[place * side : (place + 1) * side]
            parts = [row[FRAME:-FRAME, column * side + FRAME : (column + 1) * side - FRAME] for column in range(3)]
            if len(rows) <= place:
                rows.append([("source", parts[0]), ("truth", parts[2])])
            rows[place].insert(-1, (caption, parts[1]))
    return rows


def _shown(value: Any) -> str:
    """A setting as text: entries of a list after one another, a dash for none."""
    return ", ".join(map(str, value)) or "–" if isinstance(value, list | tuple) else figure(value)


def _side(card: Card, side: str) -> str:
    encoding = card.source if side == "source" else card.target
    if encoding.is_classes:
        return f"classes: {', '.join(entry.name for entry in encoding.classes)}"
    return f"{encoding.kind}, {len(encoding.bands)} bands of {encoding.dtype}: {', '.join(encoding.band_names)}"


def _environment(device: torch.device) -> dict[str, str]:
    found = {"device": str(device)}
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
    return found | {
        "processors": f"{os.cpu_count()}, of which torch uses {torch.get_num_threads()}",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "written": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
