"""What tiles cost and what they spoil: norm statistics and overlaps of one model on one raster.

    python benchmarks/seams.py MODEL INPUT TRUTH [--window ROW COL HEIGHT WIDTH] [--overlap 0.5]

A row a way of predicting: error against the truth, against the same network on the whole window at once, tile
mismatch, seam index, corners over centre with its 95 % interval, network pixels a pixel, and seconds: the median of
some repetitions, which take the ways in turn and measure the statistics anew. On stderr the table for people, on stdout
one JSON object.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rasterio.windows import Window

from geop2p.config import PredictConfig
from geop2p.evaluation.offsets import error_by_position
from geop2p.evaluation.position import pixel_error
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.plan import Lattice
from geop2p.mosaic.seams import SeamIndex, mismatch
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.reading import describe_raster
from geop2p.translator import Translator

CONTEXT = 256  # pixels around the window that the network sees when it gets the window at once
BLOCK = 512  # of the bootstrap of corners over centre


def measure(
    model: Path, readers: tuple[Any, Any], grid: Any, window: Window, config: PredictConfig, positions: bool
) -> dict[str, Any]:
    """Figures of one way of predicting a window."""
    translator = Translator.load(model, config.device)
    target = translator.card.target
    source, truth = readers
    with tempfile.TemporaryDirectory() as folder:
        mosaic = Mosaic(translator, grid, config, Path(folder))
        made, valid = mosaic.window(source, window)
        network_pixels = mosaic.network_pixels
        half = mosaic.shifts(2)[1]
        shifted, _ = mosaic.window(source, window, (half, half))
        real, there = truth.read(window)
        known = valid & there
        rows = {
            "norm_stats": mosaic.norm_stats,
            "mode": mosaic.tiles.mode,
            "overlap": mosaic.lattice.overlap / mosaic.lattice.size,
            "tile": mosaic.lattice.network_size,
            "error": float(pixel_error(made, real, target)[known].mean()),
            "mismatch": float(mismatch(target.in_units(made), target.in_units(shifted), valid, False).mean()),
            "seam_index": _seam_index(made, valid, mosaic.lattice.moved(window)),
            "network_px_per_px": round(network_pixels / (window.width * window.height), 2),
        }
        if positions:
            blocks = [
                Window(window.col_off + col, window.row_off + row, BLOCK, BLOCK)
                for row in range(0, int(window.height) - BLOCK + 1, BLOCK)
                for col in range(0, int(window.width) - BLOCK + 1, BLOCK)
            ]
            ratio = error_by_position(mosaic, source, truth, blocks).corner_ratio()
            rows |= {"corner_ratio": ratio.value, "corner_interval": [ratio.low, ratio.high]}
    return rows | {"made": made, "valid": valid}


def _seconds(translator: Translator, source: Any, window: Window, config: PredictConfig) -> float:
    """How long it takes to predict a window."""
    with tempfile.TemporaryDirectory() as folder:
        mosaic = Mosaic(translator, source.grid, config, Path(folder))
        start = time.perf_counter()
        mosaic.window(source, window)
        return time.perf_counter() - start


def _at_once(translator: Translator, source: Any, window: Window) -> np.ndarray:
    """The window in one piece, with real ground around it where there is some."""
    top, left = max(0, int(window.row_off) - CONTEXT), max(0, int(window.col_off) - CONTEXT)
    bottom = min(source.grid.height, int(window.row_off + window.height) + CONTEXT)
    right = min(source.grid.width, int(window.col_off + window.width) + CONTEXT)
    made = translator(*source.read(Window(left, top, right - left, bottom - top)))
    row, col = int(window.row_off) - top, int(window.col_off) - left
    cut: np.ndarray = made[:, row : row + int(window.height), col : col + int(window.width)]
    return cut


def _seam_index(made: np.ndarray, valid: np.ndarray, lattice: Lattice) -> float | None:
    index = SeamIndex(lattice, *made.shape[1:], False)
    index.add(made, valid, (0, 0), (0, 0))
    return index.result()


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("input")
@click.argument("truth")
@click.option("--window", nargs=4, type=int, help="ROW COL HEIGHT WIDTH of the ground; none: all of it.")
@click.option("--positions/--no-positions", default=True, help="Corners over centre, which takes 16 predictions more.")
@click.option(
    "--overlap", "overlaps", multiple=True, type=float, default=(0, 0.125, 0.25, 0.5), help="May be repeated."
)
@click.option("--repeat", default=5, help="How often the time is taken.")
@click.option("--device", default="auto")
def main(
    model: Path,
    input: str,
    truth: str,
    window: tuple[int, ...] | None,
    positions: bool,
    overlaps: tuple[float, ...],
    repeat: int,
    device: Any,
) -> None:
    """Measure and print."""
    grid = describe_raster(input).grid
    row, col, height, width = window or (0, 0, grid.height, grid.width)
    where = Window(col, row, width, height)
    card = Translator.load(model, device).card
    ways = [PredictConfig(overlap=overlap, device=device) for overlap in overlaps]
    if card.statistics == "tile":
        ways += [
            PredictConfig(overlap=overlap, norm_stats=statistics, device=device)
            for statistics in ("global", "field")
            for overlap in overlaps
        ]
    if card.field is not None:
        ways += [PredictConfig(norm_stats=statistics, device=device) for statistics in ("global", "field")][
            : 2 if card.statistics == "tile" else 1
        ]
    table = []
    with aligned_reader(input, grid, card.source.kind) as source, aligned_reader(truth, grid, card.target.kind) as real:
        at_once = _at_once(Translator.load(model, device), source, where)
        valid = source.read(where)[1]
        for config in ways:
            found = measure(model, (source, real), grid, where, config, positions)
            made, known = found.pop("made"), found.pop("valid")
            found["from_whole"] = float(pixel_error(made, at_once, card.target)[known].mean())
            table.append(found)
        times = [
            [_seconds(Translator.load(model, device), source, where, config) for config in ways] for _ in range(repeat)
        ]
        for found, seconds in zip(table, np.median(times, axis=0), strict=True):
            found["seconds"] = round(float(seconds), 2)
            click.echo("  ".join(f"{key} {_short(value)}" for key, value in found.items()), err=True)
        truth_values, there = real.read(where)
        whole_error = float(pixel_error(at_once, truth_values, card.target)[valid & there].mean())
    click.echo(f"whole window at once: error {whole_error:.3f}", err=True)
    json.dump({"window": [row, col, height, width], "whole_error": whole_error, "ways": table}, sys.stdout)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_short(entry) for entry in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
