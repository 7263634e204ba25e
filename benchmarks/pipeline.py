"""How fast rasters become chips, chips become steps, and tiles become a mosaic, on the machine at hand.

    python benchmarks/pipeline.py --size 2048 --rounds 5

Prints one JSON line: medians over the rounds. The mosaic is made with a generator that returns one channel of its
input, so that reading, blending and writing are measured and not a network.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import geop2p
from geop2p import PredictConfig, TileConfig, TrainConfig
from geop2p.models import GENERATORS
from geop2p.tiling.chips import ChipSet
from geop2p.translator import Card, Translator

SAMPLE = Path(__file__).parents[1] / "sample_data" / "make_sample.py"


class FirstChannels(nn.Module):
    """Returns the first three channels of its input: a network that costs nothing."""

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        """Translate a batch (batch, channels, rows, cols)."""
        return source[:, :3]


def median_seconds(rounds: int, job: Callable[[int], Any]) -> tuple[float, Any]:
    """Median time of a job after one round that does not count, and its last result."""
    job(0)
    times, result = [], None
    for number in range(1, rounds + 1):
        start = time.perf_counter()
        result = job(number)
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def main() -> None:
    """Make a landscape, run the three jobs, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="Pixels per side of the landscape.")
    parser.add_argument("--rounds", type=int, default=5, help="Rounds that count.")
    parser.add_argument("--steps", type=int, default=10, help="Training steps a round, batch 4, width 32.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, SAMPLE, "--size", str(options.size), "--out", folder], check=True)
        source, target = folder / "landcover.tif", folder / "image.tif"

        def tile(number: int) -> Any:
            return geop2p.tile(source, target, folder / f"chips{number}", TileConfig(size=256))

        def train(number: int) -> Any:
            config = TrainConfig(recipe="pix2pix", steps=options.steps, batch_size=4, width=32)
            return geop2p.train(folder / "chips0", folder / f"run{number}", config)

        def predict(number: int) -> Any:
            return geop2p.predict(model, source, folder / f"out{number}.tif", PredictConfig())

        tile_seconds, tiled = median_seconds(options.rounds, tile)
        chipset = ChipSet.open(folder / "chips0")
        card = Card(
            "first", {}, chipset.source, chipset.target, chipset.pixel_size, 256, 1, 0, "none", "pix2pix", {}
        )  # fmt: skip
        GENERATORS["first"] = FirstChannels  # type: ignore[assignment]
        model = folder / "first.safetensors"
        Translator(FirstChannels(), card).save(model)
        predict_seconds, predicted = median_seconds(options.rounds, predict)
        train_seconds, _ = median_seconds(options.rounds, train)
    figures = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "size": options.size,
        "rounds": options.rounds,
        "tile_chips_per_s": round((tiled.chips + tiled.dropped) / tile_seconds, 1),
        "train_images_per_s": round(options.steps * 4 / train_seconds, 2),
        "mosaic_mpx_per_s": round(predicted.width * predicted.height / 1e6 / predict_seconds, 2),
        "mosaic_network_px_per_px": predicted.network_px_per_px,
        "peak_rss_mb": predicted.peak_rss_mb,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
