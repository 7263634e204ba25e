"""What runs the network of a prediction."""

import logging
from typing import cast

import torch
from torch import nn

from geop2p.config import Engine
from geop2p.errors import ConfigError, one_line
from geop2p.models.engines import FLOAT_RUNTIMES, onnx_bytes, require
from geop2p.models.hardware import InBf16, has_fast_bf16
from geop2p.models.layers import Generator
from geop2p.raster.encoding import Encoding
from geop2p.translator import Translator

log = logging.getLogger(__name__)

APART = 1e-2  # of values in [-1, 1], or of scores: more than float32 in another order


def choose_engine(translator: Translator, asked: Engine, gives_statistics: bool) -> Engine:
    """The engine that a setting means here: `torch`, `torch-bf16`, `onnx`, `openvino` or `openvino-int8`.

    auto is torch: the others were not measured to be faster by the clock, or change values (docs/benchmarks.md).

    Args:
        translator: On its device.
        asked: The setting.
        gives_statistics: Whether norms take their statistics from outside the network, which only torch can do.

    Raises:
        ConfigError: What is asked for is not installed, or cannot run this prediction.
    """
    if asked == "auto":
        return "torch"
    if asked != "torch":
        if gives_statistics:
            raise ConfigError(f"engine {asked} cannot give norms their statistics; use torch, or --norm-stats tile")
        if asked == "torch-bf16":
            if not tells_few_apart(translator.card.target):
                dtype = translator.card.target.dtype
                raise ConfigError(
                    f"engine torch-bf16 tells a few hundred values apart, the target holds {dtype}; use torch"
                )
            if not has_fast_bf16(translator.device):
                log.warning("%s multiplies no 16-bit floats in hardware: engine torch is faster", translator.device)
            return asked
        if translator.device.type != "cpu":
            raise ConfigError(f"engine {asked} runs on the processor; give --device cpu, or leave the engine out")
        require(asked)
    return asked


def tells_few_apart(target: Encoding) -> bool:
    """Whether numbers that are rounded in the network lose nothing that the target could hold."""
    return target.is_classes or target.dtype == "uint8"


def with_engine(translator: Translator, engine: Engine) -> Translator:
    """The translator, run by an engine; as it is for `openvino-int8`, which has to see the input first.

    Raises:
        ConfigError: The engine does not run the network as torch does.
    """
    if engine == "torch-bf16":
        return Translator(InBf16(translator.generator), translator.card, translator.digest)
    if engine not in FLOAT_RUNTIMES:
        return translator
    generator = cast(Generator, translator.generator)
    network = FLOAT_RUNTIMES[engine](onnx_bytes(generator, generator.in_channels))
    _check_smallest(generator, network, engine)
    log.info("the network runs in %s", {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[engine])
    return Translator(network, translator.card, translator.digest)


def _check_smallest(generator: Generator, network: nn.Module, engine: Engine) -> None:
    """Compare an engine with torch where borders are most of the input."""
    side = generator.smallest
    source = torch.linspace(-1, 1, generator.in_channels * side**2).reshape(1, -1, side, side)
    try:
        with torch.inference_mode():
            apart = float((network(source) - generator(source)).abs().max())
    except Exception as error:  # whatever the library raises
        raise ConfigError(
            f"engine {engine} cannot run the network on {side} pixels ({one_line(error)}); use torch"
        ) from error
    if not apart < APART:
        raise ConfigError(f"engine {engine} computes another output than torch (by {apart:.2g}); use torch")
