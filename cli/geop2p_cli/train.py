"""`geop2p train`."""

import json
import os
from pathlib import Path
from typing import Any

import click

import geop2p
from geop2p import TrainConfig
from geop2p_cli.options import build, config_options, shared_options
from geop2p_cli.output import print_result, print_summary


@click.command(short_help="Train a translator on a chip set.")
@click.argument("chips", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@config_options(TrainConfig)
@click.option("--dry-run", is_flag=True, help="Print settings, steps and an estimate of the memory, and write nothing.")
@click.option("--find-lr", is_flag=True, help="Draw RUN_lr.png, the loss over the learning rate, and train nothing.")
@shared_options
def train(chips: Path, run: Path, dry_run: bool, find_lr: bool, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Train a translator on the chip set CHIPS into the folder RUN.

    RUN gets the model (model.safetensors), a page of its progress (report.html), its settings, scores and samples.
    Repeated, it continues where it was interrupted.

    \b
    Examples:
      geop2p train chips run --epochs 100 --batch-size 4
      geop2p train chips run --recipe pix2pix-geo --set downs=4 --best-by ssim
      geop2p train chips run --width 32 --dry-run
      torchrun --nproc-per-node 8 -m geop2p train chips run --batch-size 32
    """
    config = build(TrainConfig, values)
    if dry_run and find_lr:
        raise click.UsageError("--dry-run and --find-lr exclude each other")
    if dry_run:
        _print_plan(geop2p.plan_training(chips, config), as_json)
        return
    if find_lr:
        run = run if run.name.strip(".") else run.resolve()
        picture = Path(f"{run}_lr.png")
        found = geop2p.find_lr(chips, picture, config, overwrite=overwrite, progress=not as_json)
        print_summary("learning rate", {"suggestion": found.suggestion, "steps": len(found.rates)})
        print_result(found, as_json)
        return
    result = geop2p.train(chips, run, config, overwrite=overwrite, progress=not as_json)
    if os.environ.get("RANK", "0") != "0":  # of the processes that torchrun starts, the first one reports
        return
    from geop2p.metrics import IN_UNITS

    best = dict(result.best or {})
    if best.get("metric") in IN_UNITS:
        best["unit"] = result.unit
    print_summary("trained", {"steps": result.steps, "seconds": result.seconds, **best})
    print_result(result, as_json)


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(plan))
        return
    for name, value in plan.items():
        if not isinstance(value, dict):
            click.echo(f"{name.replace('_', ' ')}: {_shown(value)}")
            continue
        click.echo(name.replace("_", " "))
        for key, entry in value.items():
            click.echo(f"  {key.replace('_', ' '):<20} {_shown(entry)}")


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
