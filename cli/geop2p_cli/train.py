"""`geop2p train`."""

import os
from pathlib import Path
from typing import Any

import click

import geop2p
from geop2p import TrainConfig
from geop2p_cli.options import build, config_options, shared_options
from geop2p_cli.output import print_result, print_summary


@click.command()
@click.argument("chips", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@config_options(TrainConfig)
@shared_options
def train(chips: Path, run: Path, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Train a translator on the chip set CHIPS; RUN holds the model and all that is known of its making.

    Repeated, it continues where it was interrupted.

    \b
    Examples:
      geop2p train chips run --epochs 100 --batch-size 4
      geop2p train chips run --recipe pix2pix-geo --set downs=4
      torchrun --nproc-per-node 8 -m geop2p train chips run --batch-size 32
    """
    result = geop2p.train(chips, run, build(TrainConfig, values), overwrite=overwrite, progress=not as_json)
    if os.environ.get("RANK", "0") != "0":  # of the processes that torchrun starts, the first one reports
        return
    print_summary("trained", {"steps": result.steps, "seconds": result.seconds, **(result.best or {})})
    print_result(result, as_json)
