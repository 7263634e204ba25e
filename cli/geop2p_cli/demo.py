"""`geop2p demo`: tile, train, predict and evaluate on the sample data, ending in a page with pictures."""

import os
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import click

import geop2p
from geop2p import EvaluateConfig, GeoP2PError, PredictConfig, TileConfig, TrainConfig
from geop2p_cli.options import shared_options
from geop2p_cli.output import print_result

TILE = TileConfig(size=128, stride=64)
TRAIN = TrainConfig(epochs=42, batch_size=4, width=16, lr=4e-4, set=("noise=1",))
PREDICT = PredictConfig()


@click.command(short_help="Run all of it on the sample data, in about ten minutes.")
@click.argument("folder", type=click.Path(path_type=Path), default="demo")
@shared_options
def demo(folder: Path, overwrite: bool, as_json: bool) -> None:
    """Do all of it on the sample data (a synthetic landscape) in FOLDER, in about ten minutes on two CPU cores.

    Repeated, it continues; report.html and overview.png are written anew.

    \b
    Example:
      geop2p demo demo
    """
    from geop2p.evaluation.pictures import write_overview
    from geop2p.raster.atomic import check_new
    from geop2p.raster.reading import describe_raster

    data, show = sample_data(), not as_json
    landcover, image = str(data / "landcover.tif"), str(data / "image.tif")
    chips, run, mosaic, report = folder / "chips", folder / "run", folder / "prediction.tif", folder / "report.html"
    overview = folder / "overview.png"
    if not overwrite and not run.exists():  # what a demo made lies beside its run
        for file in (mosaic, report, overview):
            check_new(file, overwrite=False)
    geop2p.tile(landcover, image, chips, TILE, overwrite=overwrite, progress=show)
    geop2p.train(chips, run, TRAIN, overwrite=overwrite, progress=show)
    if overwrite or not mosaic.exists():
        geop2p.predict(run, landcover, mosaic, PREDICT, overwrite=overwrite, progress=show)
    config = EvaluateConfig(mosaic=mosaic)
    commands = _commands(landcover, image, folder)
    scores = geop2p.evaluate(run, chips, report, config, commands=commands, overwrite=True, progress=show)
    write_overview(overview, [landcover, mosaic, image], describe_raster(mosaic).grid)
    click.echo(f"\nOpen {report} in a browser, {mosaic} in QGIS.", err=True)
    print_result(scores, as_json)


def sample_data() -> Path:
    """The folder of the sample data: inside the installed package, or in the working tree."""
    installed = Path(str(resources.files("geop2p_cli"))) / "sample_data"
    working = Path(os.path.relpath(Path(__file__).parents[2] / "sample_data"))
    for folder in (installed, working):
        if (folder / "landcover.tif").is_file():
            return folder
    raise GeoP2PError(f"{installed}: the sample data is missing; install geop2p again")


def _commands(landcover: str, image: str, folder: Path) -> list[str]:
    """The demo as commands to copy."""

    def flags(config: Any, *names: str) -> str:
        return " ".join(f"--{name.replace('_', '-')} {getattr(config, name)}" for name in names)

    chips, run, mosaic, report = (
        shlex.quote(str(folder / name)) for name in ("chips", "run", "prediction.tif", "report.html")
    )
    source, target = shlex.quote(landcover), shlex.quote(image)
    changes = " ".join(f"--set {change}" for change in TRAIN.set)
    return [
        f"geop2p tile {source} {target} {chips} {flags(TILE, 'size', 'stride')}",
        f"geop2p train {chips} {run} {flags(TRAIN, 'epochs', 'batch_size', 'width', 'lr')} {changes}",
        f"geop2p predict {run} {source} {mosaic}",
        f"geop2p evaluate {run} {chips} {report} --mosaic {mosaic}",
    ]
