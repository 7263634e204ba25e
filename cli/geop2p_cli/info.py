"""`geop2p info`."""

import json
from typing import Any

import click

import geop2p

UNTOLD = {"scales": 1.0, "offsets": 0.0}  # what goes without saying


@click.command(short_help="Describe a raster, vector layer, chip set, run or model.")
@click.argument("path")
@click.option(
    "--check",
    is_flag=True,
    help="Prove a chip set sound: whole chips, and splits that share no ground; exits with 1 if there are problems.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def info(path: str, check: bool, as_json: bool) -> None:
    """Describe PATH: a raster, vector layer, chip set, run or model.

    \b
    Examples:
      geop2p info prediction.tif
      geop2p info chips --check
    """
    result = geop2p.describe(path)
    problems = geop2p.check(path, progress=not as_json) if check else []
    if check:
        result["problems"] = problems
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result, "")
    if problems:
        raise geop2p.GeoP2PError(f"{path}: {len(problems)} problems, the first: {problems[0]}")


def _print(data: dict[str, Any], indent: str) -> None:
    """Print what there is to say, under the names that `--json` has."""
    for name, value in data.items():
        if name in UNTOLD and isinstance(value, list) and all(entry == UNTOLD[name] for entry in value):
            continue
        if isinstance(value, dict) and value:
            click.echo(f"{indent}{name}")
            _print(value, indent + "  ")
        elif name == "problems":
            click.echo("problems: none" if not value else "problems\n  " + "\n  ".join(value))
        elif isinstance(value, list | tuple):
            if any(entry != "" for entry in value):
                click.echo(f"{indent}{name}: {', '.join(map(str, value))}")
        elif name == "crs" and value is None:
            click.echo(f"{indent}{name}: none, so its place on the ground is unknown")
        elif name == "control_points" and isinstance(value, bool):
            if value:
                click.echo(f"{indent}{name}: place it, so these are the figures of the grid that it is warped to")
        elif value not in (None, {}):
            click.echo(f"{indent}{name}: {value}")
