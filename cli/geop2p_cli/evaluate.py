"""`geop2p evaluate`."""

from pathlib import Path
from typing import Any

import click

import geop2p
from geop2p import EvaluateConfig
from geop2p_cli.options import as_typed, build, config_options, shared_options
from geop2p_cli.output import print_result, print_summary

SHOWN = (
    "l1", "rmse", "psnr", "ssim", "lpips", "fid", "kid", "accuracy", "miou", "corner_ratio", "mosaic_corner_ratio",
    "seam_index", "tile_mismatch", "seconds",
)  # fmt: skip


@click.command(short_help="Score a model on chips, or a mosaic against a raster.")
@click.argument("result")
@click.argument("truth")
@click.argument("report", type=click.Path(path_type=Path))
@config_options(EvaluateConfig)
@shared_options
@click.pass_context
def evaluate(
    context: click.Context, /, result: str, truth: str, report: Path, overwrite: bool, as_json: bool, **values: Any
) -> None:
    """Score a model on chips, or a mosaic against a reference raster, and write the page REPORT.

    RESULT TRUTH is either MODEL CHIPS or PREDICTION REFERENCE. A folder is a MODEL if it is a run, else rasters
    that are read as one.

    \b
    Examples:
      geop2p evaluate run chips report.html --judge unet
      geop2p evaluate prediction.tif image.tif report.html
    """
    from geop2p.evaluation.description import is_model

    config = build(EvaluateConfig, values)
    score = geop2p.evaluate if is_model(result, truth) else geop2p.evaluate_mosaic
    commands = [as_typed(context)]
    scores = score(result, truth, report, config, commands=commands, overwrite=overwrite, progress=not as_json)
    shown, notes = {name: scores[name] for name in SHOWN if scores.get(name) is not None}, scores["notes"]
    if (judge := scores.get("judge")) is not None:
        shown["judge_miou_real"] = judge["real"]["miou"]
        shown["judge_miou"] = None if judge["generated"] is None else judge["generated"]["miou"]
        notes = notes + [judge["reason"]] * (judge["reason"] is not None)
    if config.judge is not None and (why := scores["reasons"].get("frechet")) is not None:
        notes = [*notes, why]
    if (apart := scores.get("frechet")) is not None:
        shown |= {"frechet_real": apart["real"], "frechet": apart["generated"]}
    print_summary("scores", shown)
    for note in notes:
        click.echo(note, err=True)
    print_result(scores, as_json)
