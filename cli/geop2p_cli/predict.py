"""`geop2p predict`."""

from pathlib import Path
from typing import Any

import click

import geop2p
from geop2p import PredictConfig
from geop2p_cli.options import build, config_options, shared_options
from geop2p_cli.output import print_result, print_summary


@click.command(short_help="Translate a raster of any size into a mosaic.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("input")
@click.argument("output", type=click.Path(path_type=Path))
@config_options(PredictConfig)
@shared_options
def predict(model: Path, input: str, output: Path, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Translate INPUT, a raster of any size, with MODEL into the georeferenced mosaic OUTPUT.

    MODEL is a run folder or its model.safetensors. Repeated, the command continues where it
    was interrupted.

    \b
    Example:
      geop2p predict run landcover.tif prediction.tif
    """
    config = build(PredictConfig, values)
    result = geop2p.predict(model, input, output, config, overwrite=overwrite, progress=not as_json)
    names = ("width", "height", "mode", "seam_index", "tile_mismatch", "seconds", "mpx_per_s", "peak_rss_mb")
    print_summary("predicted", {name: getattr(result, name) for name in names})
    print_result(result, as_json)
