"""`predict`: translate a raster of any size into a georeferenced mosaic."""

import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geop2p.config import PredictConfig
from geop2p.config.fields import config_or_default
from geop2p.mosaic.assembly import assemble
from geop2p.mosaic.catalogue import require_stac
from geop2p.mosaic.checks import check_beside, check_name, check_output, check_space, files_read
from geop2p.mosaic.cluster import Job, connected, make_parts_on
from geop2p.mosaic.kept import check_kept, kept_folder, take_back
from geop2p.mosaic.manifest import claim_folder, put_together_alone
from geop2p.mosaic.parts import discard_damaged, finished_parts, make_parts
from geop2p.mosaic.plan import part_windows
from geop2p.mosaic.seam_map import seam_encoding
from geop2p.raster.atomic import discard_removed, remove_folder

log = logging.getLogger(__name__)

NO_FIGURES: dict[str, Any] = {"seam_index": None, "tile_mismatch": None, "tile_mismatch_percent": None}


@dataclass(frozen=True)
class PredictResult:
    """A mosaic and how it was made.

    Attributes:
        path: The mosaic, a cloud-optimised GeoTIFF or a VRT over parts; of a shard the folder of the parts.
        width: Columns of the mosaic.
        height: Rows of the mosaic.
        parts: Parts that the mosaic, or the shard, has.
        seconds: Time it took.
        mpx_per_s: Million pixels a second of this call.
        seam_index: Steps across tile lines over steps elsewhere; 1 is no seam; None where no line is inside.
        tile_mismatch: Mean absolute difference to a prediction on a shifted lattice, in the target's units, or the
            share of pixels of another class.
        tile_mismatch_percent: The same in percent of the encoded range.
        mode: How tiles meet: `exact` if each pixel is what the network makes of the whole raster, else `blend`.
        norm_stats: Where the network's norm statistics come from: `tile`, `global`, `field`, or `none` if it uses none.
        engine: What ran the network.
        int8_psnr: PSNR in dB of engine `openvino-int8` against float32, on windows of the input that it was not
            calibrated on; None with other engines, or where nothing differs.
        tile_size: Side in pixels of what the network sees at once.
        network_px_per_px: Pixels that went through the network for each pixel of the raster, without those that norm
            statistics `global` and `field` are measured on.
        confidence: The raster of the probability of the class, if one was made.
        uncertainty: The raster of the spread of predictions, if one was made.
        peak_rss_mb: Most memory that the process held at any time, in MB; None where the system does not tell.
    """

    path: str
    width: int
    height: int
    parts: int
    seconds: float
    mpx_per_s: float
    seam_index: float | None
    tile_mismatch: float | None
    tile_mismatch_percent: float | None
    mode: str
    norm_stats: str
    engine: str
    int8_psnr: float | None
    tile_size: int
    network_px_per_px: float
    confidence: str | None
    uncertainty: str | None
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

    With a shard, a share of the parts is made and left beside the output's name; the call without one makes those
    that are still missing and puts them all together.

    Args:
        model: Run folder or `model.safetensors`.
        input: Any raster that GDAL opens, with the bands that the model was trained on, a folder of such rasters, which
            are read as one, or a vector layer for a model that reads maps.
        output: GeoTIFF to write, with `<stem>.qml` beside it; with `keep_parts` a VRT, with `<stem>_parts` and the STAC
            item `<stem>.json` beside it too.
        config: Settings.
        overwrite: Replace an existing output.
        progress: Show a progress bar.

    Raises:
        RasterError: The input is missing, unreadable or has other bands.
        OutputError: The output exists or cannot be written.
        CheckpointError: The model is missing or damaged.
        ConfigError: The settings do not fit the model, or parts were begun with others.
        GridMismatchError: The area of interest lies elsewhere.
        GeoP2PError: Tiles disagree more than the settings allow.
    """
    start = time.monotonic()
    config, output = config_or_default(config, PredictConfig), Path(output)
    model, input = os.fspath(model), os.fspath(input)  # an array or an open dataset is a TypeError here
    read = files_read(model, input, config)
    check_name(output, config.keep_parts)
    folder = output.with_name(f"{output.name}.parts")
    discard_removed(folder)
    check_output(read, output, overwrite, config.keep_parts)
    if config.keep_parts:
        check_kept(read, output, folder, overwrite)
        if config.shard is None:
            require_stac()
    folders = [folder, kept_folder(output)] if config.keep_parts else [folder]
    check_beside(read, output, (config.seam_map, config.confidence, config.uncertainty), folders, overwrite)
    with connected(config.dask) as client:
        job = Job(model, input, folder, config)
        elsewhere = client is not None and config.device != "cpu"  # a GPU of the workers need not be here
        mosaic, given, claim = job.begin("auto" if elsewhere else config.device)
        log.info("%s", mosaic.tiles.describe())
        target = mosaic.translator.card.target
        encodings = [target, *(extra.encoding for extra in mosaic.extras.rasters)]
        if config.seam_map is not None and not mosaic.is_exact:  # else it is 0 everywhere
            encodings.append(seam_encoding(target))
        check_space(folder, mosaic.shown, given.valid_share, encodings)
        windows = part_windows(mosaic.frame, mosaic.part_side)  # after the check: of a whole world they are too many
        claim_folder(folder, claim, overwrite, shared=config.shard is not None)
        if config.keep_parts and config.shard is None:  # a shard may come while another process leaves the parts
            with put_together_alone(folder, claim):
                take_back(output, folder)
        if client is not None:
            make_parts_on(client, job, mosaic, claim, windows, progress)
    mine = windows[config.share_of_parts]
    with given.reader() as reader:
        make_parts(mosaic, reader, folder, mine, claim, progress)
        if config.shard is None:
            with put_together_alone(folder, claim):
                if discard_damaged(folder, mine):
                    make_parts(mosaic, reader, folder, mine, claim, progress)
                made, network_pixels = finished_parts(mosaic, folder, mine)
                figures = assemble(mosaic, reader, folder, made, output, progress)
                int8_psnr = mosaic.int8_psnr
                remove_folder(folder)
        else:
            _, network_pixels = finished_parts(mosaic, folder, mine)
            figures, int8_psnr = NO_FIGURES, mosaic.int8_psnr
    beside = {} if config.shard else {extra.name: str(extra.path) for extra in mosaic.extras.rasters}
    pixels, seconds = sum(int(window.width * window.height) for window in mine), time.monotonic() - start
    return PredictResult(
        path=str(output if config.shard is None else folder),
        width=mosaic.shown.width,
        height=mosaic.shown.height,
        parts=len(mine),
        seconds=round(seconds, 3),
        mpx_per_s=round(pixels / 1e6 / seconds, 4),
        **figures,
        mode=mosaic.tiles.mode,
        norm_stats=mosaic.norm_stats,
        engine=mosaic.engine,
        int8_psnr=None if int8_psnr is None else round(int8_psnr, 2),
        tile_size=mosaic.lattice.network_size,
        network_px_per_px=round(network_pixels / max(1, pixels), 3),
        confidence=beside.get("confidence"),
        uncertainty=beside.get("uncertainty"),
        peak_rss_mb=_peak_rss_mb(),
    )


def _peak_rss_mb() -> int | None:
    """Peak resident memory of this process in MB; None on systems that do not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)
