"""What TensorBoard shows of a training; the package is an extra."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geop2p.errors import ConfigError
from geop2p.raster.atomic import reporting_write_errors

FOLDER = "tensorboard"


class Board:
    """Writes the lines of `metrics.jsonl` and the samples as events.

    Args:
        run: Folder of the run; events go into a folder of it.
        step: Of the first line to come; what an interrupted call wrote from there on is hidden.
    """

    def __init__(self, run: Path, step: int) -> None:
        module = importlib.import_module("torch.utils.tensorboard")
        with reporting_write_errors(run / FOLDER):
            self._writer = module.SummaryWriter(str(run / FOLDER), purge_step=step)

    def add(self, entry: dict[str, Any], sample: Path) -> None:
        """Show a line of the metrics, and the sample picture of its epoch if there is one."""
        for part in ("losses", "val", "checks"):
            for name, value in (entry[part] or {}).items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(f"{part}/{name}", value, entry["step"])
        self._writer.add_scalar("lr", entry["lr"], entry["step"])
        if sample.exists():
            with Image.open(sample) as image:
                self._writer.add_image("samples", np.asarray(image), entry["step"], dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._writer.close()


def check_board() -> None:
    """Refuse to begin without the package.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise ConfigError("tensorboard is not installed; pip install 'geop2p[tensorboard]', or leave it out") from error
