"""`predict`: translate a raster of any size into a georeferenced mosaic."""

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from geop2p.config import PredictConfig
from geop2p.mosaic.assembly import assemble, make_parts
from geop2p.mosaic.inputs import check_input, check_output, check_values, color_table, input_reader, output_grid
from geop2p.mosaic.mosaic import Mosaic
from geop2p.raster.reading import describe_raster, fingerprint
from geop2p.translator import Translator


@dataclass(frozen=True)
class PredictResult:
    """A mosaic and how it was made.

    Attributes:
        path: The mosaic, a cloud-optimised GeoTIFF.
        width: Columns.
        height: Rows.
        seconds: Time it took.
        mpx_per_s: Million pixels a second of this call.
        seam_index: Steps across tile lines over steps elsewhere; 1 is no seam; None where no line is inside.
        tile_mismatch: Mean absolute difference to a prediction on a shifted lattice, in the target's units, or the
            share of pixels of another class.
        tile_mismatch_percent: The same in percent of the encoded range.
        mode: How tiles meet: `blend`.
        norm_stats: Where the network's norm statistics come from: `tile`, or `none` if it uses none of its input.
        tile_size: Side of a tile in pixels.
        network_px_per_px: Pixels that went through the network for each pixel of the raster.
        peak_rss_mb: Most memory that the process held at any time, in MB; None where the system does not tell.
    """

    path: str
    width: int
    height: int
    seconds: float
    mpx_per_s: float
    seam_index: float | None
    tile_mismatch: float | None
    tile_mismatch_percent: float | None
    mode: str
    norm_stats: str
    tile_size: int
    network_px_per_px: float
    peak_rss_mb: int | None


def predict(
    model: str | Path,
    input: str | Path,
    output: str | Path,
    config: PredictConfig | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> PredictResult:
    """Translate a raster into a mosaic; repeated, it continues an interrupted run.

    Args:
        model: Run folder or `model.safetensors`.
        input: Any raster that GDAL opens, with the bands that the model was trained on.
        output: GeoTIFF to write, with `<stem>.qml` beside it.
        config: Settings.
        overwrite: Replace an existing output.
        progress: Show a progress bar.

    Raises:
        RasterError: The input is missing, unreadable or has other bands, or the output exists or cannot be written.
        CheckpointError: The model is missing or damaged.
        ConfigError: The settings do not fit the model.
    """
    start = time.monotonic()
    config, output = config or PredictConfig(), Path(output)
    check_output(input, output, overwrite)
    translator = Translator.load(model, config.device)
    info = describe_raster(input)
    check_input(info, translator.card, config.no_resample)
    colors = color_table(info, translator.card)
    check_values(input, translator.card.source, colors)
    grid = output_grid(info.grid, translator.card, config.no_resample)
    mosaic = Mosaic(translator, grid, config)
    with input_reader(input, grid, translator.card.source, colors) as reader:
        folder = output.with_name(f"{output.name}.parts")
        claim = mosaic.claim(translator.digest, fingerprint(input))
        made, network_pixels = make_parts(mosaic, reader, folder, claim, progress)
        figures = assemble(mosaic, reader, folder, made, output, {"GEOP2P_INPUT": Path(str(input)).name})
    shutil.rmtree(folder)
    seconds = time.monotonic() - start
    return PredictResult(
        path=str(output),
        width=grid.width,
        height=grid.height,
        seconds=round(seconds, 3),
        mpx_per_s=round(grid.width * grid.height / 1e6 / seconds, 4),
        **figures,
        mode="blend",
        norm_stats=translator.card.statistics,
        tile_size=mosaic.lattice.size,
        network_px_per_px=round(network_pixels / (grid.width * grid.height), 3),
        peak_rss_mb=_peak_rss_mb(),
    )


def _peak_rss_mb() -> int | None:
    """Peak resident memory of this process in MB; None on systems that do not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))
