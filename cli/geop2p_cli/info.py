"""`geop2p info`."""

import json
from typing import Any

import click

import geop2p


@click.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def info(path: str, as_json: bool) -> None:
    """Say what PATH is: a raster, vector layer, chip set, run or model.

    \b
    Example:
      geop2p info prediction.tif
    """
    result = geop2p.describe(path)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result, "")


def _print(data: dict[str, Any], indent: str) -> None:
    for name, value in data.items():
        if isinstance(value, dict) and value:
            click.echo(f"{indent}{name}")
            _print(value, indent + "  ")
        elif value not in (None, {}, []):
            shown = ", ".join(str(entry) for entry in value) if isinstance(value, list | tuple) else value
            click.echo(f"{indent}{name.replace('_', ' ')}: {shown}")
