"""The page: one HTML file with everything inside it, no network needed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from geop2p.errors import ConfigError
from geop2p.evaluation.pictures import Slider
from geop2p.page import Picture, exact_uri, figure, photo_uri
from geop2p.raster.atomic import check_new, make_folder, write_text
from geop2p.raster.source_files import replaced

PLACES = 5  # chips or windows that a page shows


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
    choice: str = ""
    curves: list[Curve] = field(default_factory=list)
    position: Picture | None = None
    mosaic: Picture | None = None
    slider: Slider | None = None
    mosaic_figures: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def check_report(report: Path, overwrite: bool, inputs: Sequence[str | Path | None] = ()) -> None:
    """Refuse a report that would destroy something, before anything is scored.

    Args:
        report: File to write.
        overwrite: Whether to replace it.
        inputs: What is read, which is replaced in no case.

    Raises:
        ConfigError: It is read, or is not called a page.
        OutputError: It exists, or is none of this machine's files.
    """
    check_page(report)
    check_not_read(report, inputs)
    check_new(report, overwrite)
    make_folder(report.parent)


def check_page(report: Path) -> None:
    """Refuse a name that is not a page's.

    Raises:
        ConfigError: The name does not end as a page's does.
    """
    if report.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{report}: the report is a page; give a name that ends in .html")


def check_not_read(output: Path, inputs: Sequence[str | Path | None]) -> None:
    """Refuse an output that is what is read, by whatever name.

    Args:
        output: File to write.
        inputs: Files and folders; None and addresses that are no files are no danger.

    Raises:
        ConfigError: The output is one of the inputs.
    """
    if replaced(output, (path for path in inputs if path is not None)):
        raise ConfigError(f"{output}: is an input; give another name")


def write_page(path: Path, page: Any, template: str = "report.html.j2") -> None:
    """Write a page as one self-contained HTML file.

    Args:
        path: File to write or replace.
        page: What its template shows.
        template: Name of the template.
    """
    folder = resources.files("geop2p.evaluation")
    loader = jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=loader)
    environment.filters |= {
        "photo": photo_uri,
        "exact": exact_uri,
        "figure": figure,
        "points": _points,
        "shown": _shown,
    }
    write_text(path, environment.get_template(template).render(page=page))


def _shown(tag: str) -> str:
    """What a tag says, a number that is not whole to four digits."""
    try:
        return tag if tag.isdecimal() else figure(float(tag))
    except ValueError:
        return tag


def _points(values: list[float], highest: float, width: float, height: float) -> str:
    """SVG points of a line of evenly spaced values, 0 at the bottom and `highest` or their own most at the top."""
    top = max(highest, *values) or 1
    places = (index / (len(values) - 1) * width for index in range(len(values)))
    return " ".join(f"{x:.1f},{height * (1 - y / top):.1f}" for x, y in zip(places, values, strict=True))


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


def even_ranks(count: int) -> list[tuple[int, str]]:
    """Ranks from the first to the last of so many, counted from 0, each with what to call it."""
    names = {(count - 1) // 2: ", median", count - 1: ", worst", 0: ", best"}
    ranks = sorted({place * (count - 1) // (PLACES - 1) for place in range(PLACES)}) if count else []
    return [(rank, f"rank {rank + 1} of {count}{names.get(rank, '')}") for rank in ranks]
