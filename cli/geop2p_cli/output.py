"""What a command leaves on stdout."""

import dataclasses
import json
from typing import Any

import click


def print_result(result: Any, as_json: bool) -> None:
    """Print a result: its path alone, or all of it as one JSON object."""
    data = result if isinstance(result, dict) else dataclasses.asdict(result)
    click.echo(json.dumps(data) if as_json else data["path"])


def print_summary(title: str, figures: dict[str, Any]) -> None:
    """Print figures for a person on stderr, one a line."""
    click.echo(title, err=True)
    for name, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        click.echo(f"  {name.replace('_', ' '):<16} {'-' if shown is None else shown}", err=True)
