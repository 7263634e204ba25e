"""What a command leaves on stdout."""

import dataclasses
import json
from typing import Any

import click


def print_result(result: Any, as_json: bool) -> None:
    """Print a result: its path alone, or all of it as one JSON object."""
    data = result if isinstance(result, dict) else dataclasses.asdict(result)
    click.echo(json.dumps(data) if as_json else data["path"])


def print_table(rows: list[list[str]]) -> None:
    """Print rows of cells on stderr, the first column to the left, figures to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *figures in rows:
        cells = [cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True)]
        click.echo("  " + "  ".join([first.ljust(widths[0]), *cells]), err=True)


def print_summary(title: str, figures: dict[str, Any]) -> None:
    """Print figures for a person on stderr, one a line."""
    click.echo(title, err=True)
    width = max([16, *map(len, figures)])
    for name, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        click.echo(f"  {name.replace('_', ' '):<{width}} {'-' if shown is None else shown}", err=True)
