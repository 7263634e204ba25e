"""`geop2p compare`."""

from pathlib import Path
from typing import Any

import click

import geop2p
from geop2p import CompareConfig
from geop2p_cli.options import as_typed, build, config_options, shared_options
from geop2p_cli.output import print_result, print_table


@click.command(short_help="Score several runs on the same chips, in one table.")
@click.argument("runs", nargs=-1, required=True)
@click.argument("report", type=click.Path(path_type=Path))
@config_options(CompareConfig)
@shared_options
@click.pass_context
def compare(
    context: click.Context, /, runs: tuple[str, ...], report: Path, overwrite: bool, as_json: bool, **values: Any
) -> None:
    """Score RUNS on the same chips; write the page REPORT, and its table as Markdown, CSV and JSON next to it.

    A run is its folder, or a file of weights in it such as best.safetensors.

    \b
    Examples:
      geop2p compare run1 run2 comparison.html --judge unet
      geop2p compare --ablation losses chips losses.html --steps 5000
    """
    config = build(CompareConfig, values)
    commands = [as_typed(context)]
    result = geop2p.compare(runs, report, config, commands=commands, overwrite=overwrite, progress=not as_json)
    shown = result["columns"][:8]
    print_table([["run", *shown], *([row["name"], *(_cell(row, name) for name in shown)] for row in result["rows"])])
    for note in result["notes"]:
        click.echo(note, err=True)
    print_result(result, as_json)


def _cell(row: dict[str, Any], name: str) -> str:
    return f"{row[name]['value']:.4g}" if name in row else "-"
