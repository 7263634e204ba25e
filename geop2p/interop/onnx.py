"""Export of a model to ONNX."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from geop2p.errors import CheckpointError, ConfigError
from geop2p.models.engines import OnnxNetwork, onnx_bytes, require
from geop2p.models.layers import Generator
from geop2p.raster.atomic import check_new, replacing
from geop2p.translator import Translator

LARGEST_DIFFERENCE = 1e-3  # of values in [-1, 1], or relative to scores; float32 in another order


@dataclass(frozen=True)
class ExportResult:
    """An ONNX file.

    Attributes:
        path: Where it is.
        max_difference: Largest difference to torch, on random input of three sizes, the smallest among them.
        stride: Rows and columns of its input must be multiples of this.
    """

    path: str
    max_difference: float
    stride: int


def export(model: str | Path, output: str | Path, *, overwrite: bool = False) -> ExportResult:
    """Write the network of a model as ONNX, its card in the metadata (key `geop2p`), and check it against torch.

    Input `source` and output `target` are float32 (batch, channels, rows, cols) of any size on the stride: encoded
    values as the card says, and values in [-1, 1] or scores of classes.

    Args:
        model: Run folder or `model.safetensors`.
        output: File to write.
        overwrite: Replace an existing one.

    Raises:
        CheckpointError: The model is missing or damaged, or ONNX Runtime computes something else than torch.
        ConfigError: The extra `onnx` is not installed, or the output has another suffix than .onnx.
        OutputError: The output exists or cannot be written.
    """
    output = Path(output)
    if output.suffix.lower() != ".onnx":
        raise ConfigError(f"{output}: expected a name that ends in .onnx, by which other programs know what it is")
    check_new(output, overwrite)
    require("onnx")
    import onnx

    translator = Translator.load(model)
    card = translator.card
    proto = onnx.load_from_string(onnx_bytes(translator.generator, card.in_channels))  # type: ignore[arg-type]
    onnx.helper.set_model_props(proto, {"geop2p": card.to_json(), "geop2p_sha256": translator.digest})
    made = proto.SerializeToString()
    worst = _difference(translator, made)
    if worst > LARGEST_DIFFERENCE:
        raise CheckpointError(f"{model}: as ONNX it differs from torch by {worst:.2g}, expected below 0.001")
    with replacing(output) as temporary:
        temporary.write_bytes(made)
    return ExportResult(str(output), worst, card.stride)


def _difference(translator: Translator, model: bytes) -> float:
    """Largest difference between torch and ONNX Runtime, relative to values above 1."""
    generator, stride, worst = torch.Generator().manual_seed(0), translator.card.stride, 0.0
    other = OnnxNetwork(model)
    side, smallest = stride * max(2, -(-64 // stride)), cast(Generator, translator.generator).smallest
    for shape in ((1, side, side), (2, side + stride, side), (1, smallest, smallest)):
        source = torch.rand(shape[0], translator.card.in_channels, *shape[1:], generator=generator) * 2 - 1
        with torch.inference_mode():
            wanted = translator.generator(source)
        worst = max(worst, float(((other(source) - wanted).abs() / wanted.abs().clamp(min=1)).max()))
    return worst
