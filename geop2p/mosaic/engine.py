"""What runs the network of a prediction."""

import logging

from geop2p.config import Engine
from geop2p.errors import ConfigError
from geop2p.models.engines import RUNTIMES, missing, onnx_bytes, require
from geop2p.translator import Translator

log = logging.getLogger(__name__)

# What `auto` exports, which takes some 10 seconds and 300 MB: OpenVINO needs 0.7 of torch's time for the U-Net of full
# width and more than torch for narrow ones; ONNX Runtime is no faster than torch (docs/predict.md).
HEAVY = 10_000_000  # weights of a network
WORTH_IT = 20_000_000  # pixels that go through it


def choose_engine(translator: Translator, asked: Engine, gives_statistics: bool, network_pixels: float) -> Engine:
    """The engine that a setting means here: `torch`, `onnx` or `openvino`.

    Args:
        translator: On its device.
        asked: The setting.
        gives_statistics: Whether norms take their statistics from outside the network, which only torch can do.
        network_pixels: About how many will go through the network.

    Raises:
        ConfigError: What is asked for is not installed, or cannot run this prediction.
    """
    on_processor = translator.device.type == "cpu"
    if asked == "auto":
        weights = sum(parameter.numel() for parameter in translator.generator.parameters())
        pays = on_processor and not gives_statistics and weights >= HEAVY and network_pixels >= WORTH_IT
        return "openvino" if pays and not missing("openvino") else "torch"
    if asked != "torch":
        if gives_statistics:
            raise ConfigError(f"engine {asked} cannot give norms their statistics; use torch, or --norm-stats tile")
        if not on_processor:
            raise ConfigError(f"engine {asked} runs on the processor; give --device cpu, or leave the engine out")
        require(asked)
    return asked


def with_engine(translator: Translator, engine: Engine) -> Translator:
    """The translator, run by an engine."""
    if engine == "auto" or engine == "torch":
        return translator
    model = onnx_bytes(translator.generator, translator.card.source.channels)  # type: ignore[arg-type]
    log.info("the network runs in %s", {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[engine])
    return Translator(RUNTIMES[engine](model), translator.card, translator.digest)
