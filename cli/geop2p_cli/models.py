"""`geop2p models`."""

import json
from typing import Any

import click

import geop2p


@click.command(short_help="List recipes and networks with their sizes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def models(as_json: bool) -> None:
    """List the systems that can be trained, their generators and discriminators, with sizes for 3 bands to 3.

    Field is the receptive field: how far in pixels an output pixel looks to each side. Stride is what sizes and offsets
    of tiles are multiples of.

    \b
    Example:
      geop2p models --json
    """
    listed = geop2p.list_systems()
    if as_json:
        click.echo(json.dumps(listed))
        return
    for title, entries in listed.items():
        click.echo(title)
        for line in _table(entries):
            click.echo(f"  {line}".rstrip())


def _table(entries: list[dict[str, Any]]) -> list[str]:
    names = list(entries[0])
    rows = [[name.replace("_", " ") for name in names]]
    rows += [[_shown(entry[name]) for name in names] for entry in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _shown(value: Any) -> str:
    if value is None:
        return "unbounded"
    return f"{value:,}" if isinstance(value, int) else str(value)
