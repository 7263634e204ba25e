"""`geop2p export`."""

from pathlib import Path

import click

import geop2p
from geop2p_cli.options import shared_options
from geop2p_cli.output import print_result, print_summary


@click.command(short_help="Write the network of a model as ONNX.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@shared_options
def export(model: Path, output: Path, overwrite: bool, as_json: bool) -> None:
    """Write the network of MODEL as ONNX, checked against torch.

    Needs the extra geop2p[onnx].

    \b
    Example:
      geop2p export run model.onnx
    """
    result = geop2p.export(model, output, overwrite=overwrite)
    print_summary("exported", {"max_difference": result.max_difference, "stride": result.stride})
    print_result(result, as_json)
