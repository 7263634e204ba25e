"""`geop2p tile`."""

from pathlib import Path
from typing import Any

import click

import geop2p
from geop2p import TileConfig
from geop2p_cli.options import build, config_options, shared_options
from geop2p_cli.output import print_result, print_summary, print_table


@click.command()
@click.argument("source")
@click.argument("target")
@click.argument("chips", type=click.Path(path_type=Path))
@config_options(TileConfig)
@shared_options
def tile(source: str, target: str, chips: Path, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Cut SOURCE and TARGET, two layers covering the same ground, into the chip set CHIPS.

    Repeated with another pair it adds a scene; repeated with the same pair it continues where it was interrupted.
    CHIPS/index.gpkg opens in QGIS.

    \b
    Examples:
      geop2p tile landcover.tif image.tif chips --size 256
      geop2p tile roads.gpkg image.tif chips --source-field kind --line-width 8
      geop2p tile landcover.tif image.tif chips --split-by polygon --aoi areas.gpkg
    """
    result = geop2p.tile(source, target, chips, build(TileConfig, values), overwrite=overwrite, progress=not as_json)
    click.echo(f"{result.chips} chips, {result.scenes} scenes, {result.seconds:.1f} seconds", err=True)
    _print_chips(result.path)
    print_result(result, as_json)


def _print_chips(folder: str) -> None:
    """Show on stderr what each split holds and what was dropped."""
    from geop2p.tiling.summary import summarise

    summary = summarise(folder)
    shares = list(summary.splits[0].classes)
    rows = [["split", "chips", "share", "valid", *shares]]
    for split in summary.splits:
        figures = [split.share, split.valid, *split.classes.values()]
        rows.append([split.name, str(split.chips), *("-" if value is None else f"{value:.1%}" for value in figures)])
    print_table(rows)
    if summary.dropped:
        print_summary("dropped", summary.dropped)
