"""`geop2p tile`."""

from typing import Any

import click

import geop2p
from geop2p import TileConfig
from geop2p_cli.options import build, config_options, shared_options
from geop2p_cli.output import print_result, print_summary, print_table


@click.command(short_help="Cut two layers of the same ground into paired chips.")
@click.argument("paths", nargs=-1, metavar="[SOURCE TARGET] CHIPS")
@click.option(
    "--from",
    "origin",
    help="Convert these chips instead of cutting layers: a chip set, a folder of A|B images, or an ArcGIS Export Tiles "
    "folder with images and images2.",
)
@config_options(TileConfig)
@shared_options
def tile(paths: tuple[str, ...], origin: str | None, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Cut SOURCE and TARGET, two layers covering the same ground, into the chip set CHIPS.

    Repeated with another pair it adds a scene; repeated with the same pair it continues where it was interrupted.
    CHIPS/index.gpkg opens in QGIS.

    \b
    Examples:
      geop2p tile landcover.tif image.tif chips --size 256
      geop2p tile roads.gpkg image.tif chips --source-field kind --line-width 8
      geop2p tile landcover.tif image.tif chips --split-by polygon --aoi areas.gpkg
      geop2p tile --from chips packed --format packed
    """
    config, progress = build(TileConfig, values), not as_json
    if len(paths) != (3 if origin is None else 1):
        wanted = "SOURCE TARGET CHIPS" if origin is None else "CHIPS after --from FOLDER"
        raise click.UsageError(f"expected {wanted}, got {len(paths)} names")
    if origin is None:
        source, target, chips = paths
        result = geop2p.tile(source, target, chips, config, overwrite=overwrite, progress=progress)
    else:
        result = geop2p.convert(origin, paths[0], config, overwrite=overwrite, progress=progress)
    click.echo(f"{result.chips} chips, {result.scenes} scenes, {result.seconds:.1f} seconds", err=True)
    if config.format != "side-by-side":
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
