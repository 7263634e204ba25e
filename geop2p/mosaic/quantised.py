"""The network of a prediction in 8-bit integers: made once from windows of the input, the same for all processes."""

import contextlib
import json
import logging
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rasterio.windows import Window

from geop2p.errors import RasterError
from geop2p.models.engines import onnx_bytes
from geop2p.models.int8 import load_int8, save_int8
from geop2p.mosaic.statistics import ENOUGH, ReadWindow, drawn_cells
from geop2p.raster.atomic import UMASK, make_folder, reporting_write_errors
from geop2p.raster.grid import Grid
from geop2p.translator import Translator

log = logging.getLogger(__name__)

FOLDER = "int8"
WINDOWS = 64  # of the input that are used, at most
LEAST_WINDOWS = 4  # that the input should have room for
PIXELS = 2**22  # of all windows together, unless these are fewer than the least
LARGEST = 1024  # pixels of the side of a window
CHECKED = 5  # every so many-th of the first ones is not calibrated on, but compared with float32
CALIBRATED = 40  # of the first ones; those after them are all compared


class QuantisedNetwork:
    """A network in 8-bit integers, calibrated on windows of the input.

    They are as large as the tiles where the input has room for some: what the inner layers of a U-Net hold in a chip is
    a value or two, and another range of them in a tile.

    The first process that needs it makes it and leaves it beside the parts; the others find it there.

    Args:
        translator: In float32.
        grid: Grid of the input.
        folder: Where the parts lie.
        tile_size: Side of the tiles that the network is to see.
    """

    def __init__(self, translator: Translator, grid: Grid, folder: Path, tile_size: int) -> None:
        self._translator, self._folder = translator, folder / FOLDER
        self._grid, self._stride = grid, translator.card.stride
        self._least = math.ceil(translator.card.chip_size / self._stride) * self._stride
        self._largest = max(self._least, min(tile_size, LARGEST) // self._stride * self._stride)
        self._network: Translator | None = None

    @property
    def psnr(self) -> float | None:
        """PSNR in dB of its outputs against those of float32, on windows that it was not calibrated on.

        None where they are the same, or where nothing was predicted yet.
        """
        file = self._folder / "network.json"
        return json.loads(file.read_text(encoding="utf-8"))["psnr"] if file.exists() else None

    def translate(self, sources: torch.Tensor, places: list[Window], look: ReadWindow) -> torch.Tensor:
        """Translate inputs.

        Args:
            sources: (batch, channels, rows, cols).
            places: Where on the grid each of them lies; does not matter.
            look: Network input (channels, rows, cols) of any window and its valid pixels (rows, cols).
        """
        if self._network is None:
            if not self._folder.exists():
                self._make(look)
            self._network = self._loaded(self._folder)
        return self._network.translate(sources)

    def _loaded(self, folder: Path) -> Translator:
        return Translator(load_int8(folder), self._translator.card, self._translator.digest)

    def _make(self, look: ReadWindow) -> None:
        """Quantise the network, unless another process is done with it first."""
        windows = self._windows(look)
        check = windows[:CALIBRATED:CHECKED] + windows[CALIBRATED:]
        calibration = [look(window)[0] for window in windows if window not in check]
        with reporting_write_errors(self._folder):
            make_folder(self._folder.parent)
            temporary = Path(tempfile.mkdtemp(prefix=f".{FOLDER}.", dir=self._folder.parent))
            try:
                model = onnx_bytes(self._translator.generator, self._translator.card.in_channels)  # type: ignore[arg-type]
                save_int8(model, [torch.from_numpy(encoded)[None] for encoded in calibration], temporary)
                found = self._compared(self._loaded(temporary), check, look) | {"calibrated": len(calibration)}
                (temporary / "network.json").write_text(json.dumps(found), encoding="utf-8")
                temporary.chmod(0o777 & ~UMASK)
                _publish(temporary, self._folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        _tell(found)

    def _windows(self, look: ReadWindow) -> list[Window]:
        """Windows drawn at random from those with ground, smaller than tiles where there are too few of those.

        Raises:
            RasterError: Fewer than two windows have valid ground.
        """
        side = self._largest
        while len(found := self._with_ground(look, side)) < LEAST_WINDOWS and side > self._least:
            side = max(self._least, math.ceil(side / 2 / self._stride) * self._stride)
        if len(found) < 2:
            raise RasterError(
                f"engine openvino-int8: the input has {len(found)} windows of {side} pixels with "
                f"{100 * ENOUGH:.0f} % valid ground, expected two, to calibrate on and to check; use --engine openvino"
            )
        return found

    def _with_ground(self, look: ReadWindow, side: int) -> list[Window]:
        """As many windows of a side as are used, or as there are."""
        shape, most = (math.ceil(length / side) for length in (self._grid.height, self._grid.width)), PIXELS // side**2
        found: list[Window] = []
        for row, col in drawn_cells((next(shape), next(shape))):
            window = Window(col * side, row * side, side, side)
            if look(window)[1].mean() >= ENOUGH:
                found.append(window)
            if len(found) == max(LEAST_WINDOWS, min(WINDOWS, most)):
                break
        return found

    def _compared(self, quantised: Translator, windows: list[Window], look: ReadWindow) -> dict[str, Any]:
        """PSNR over valid pixels, and for classes the share of pixels that changed."""
        squares, changed, pixels, is_classes = 0.0, 0, 0, self._translator.card.target.is_classes
        for window in windows:
            encoded, valid = look(window)
            source = torch.from_numpy(encoded)[None]
            exact, made = (one.translate(source)[0].numpy()[:, valid] for one in (self._translator, quantised))
            squares += float(np.square(made - exact, dtype=np.float64).mean(axis=0).sum())
            changed += int((made.argmax(axis=0) != exact.argmax(axis=0)).sum())
            pixels += int(valid.sum())
        span = 1 if is_classes else 2  # of probabilities, and of values in [-1, 1]
        psnr = 10 * math.log10(span**2 * pixels / squares) if squares else None
        return {"psnr": psnr, "changed": changed / pixels if is_classes else None, "checked": len(windows)}


def _publish(temporary: Path, folder: Path) -> None:
    """Give a folder its name, unless another has it: then that one stays."""
    for file in temporary.iterdir():
        with file.open("rb+") as written:
            os.fsync(written.fileno())
    with contextlib.suppress(OSError):
        temporary.rename(folder)
    if not folder.exists():
        raise OSError(f"{temporary.name} could not be renamed")


def _tell(found: dict[str, Any]) -> None:
    psnr = "no difference" if found["psnr"] is None else f"PSNR {found['psnr']:.1f} dB"
    changed = "" if found["changed"] is None else f", {100 * found['changed']:.3g} % of the pixels of another class"
    log.info(
        "int8: calibrated on %d windows of the input; against float32 on %d others: %s%s",
        found["calibrated"], found["checked"], psnr, changed,
    )  # fmt: skip
