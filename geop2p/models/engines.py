"""A generator as ONNX, and run by ONNX Runtime or OpenVINO, which compute the same on processors in less time."""

import contextlib
import copy
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from geop2p.errors import ConfigError
from geop2p.models.layers import Generator, mark_short

Runtime = Literal["onnx", "openvino", "openvino-int8"]

NEEDS: dict[Runtime, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "openvino-int8": ("onnx", "onnxscript", "openvino", "nncf"),
}
SIDE = 128  # pixels of the example that a network is traced with, at least


def missing(runtime: Runtime) -> list[str]:
    """Packages that a runtime needs and that are not installed."""
    return [name for name in NEEDS[runtime] if importlib.util.find_spec(name) is None]


def require(runtime: Runtime) -> None:
    """Refuse a runtime that is not installed.

    Raises:
        ConfigError: Packages are missing.
    """
    if names := missing(runtime):
        extra = runtime.partition("-")[0]
        raise ConfigError(f"engine {runtime}: {', '.join(names)} not installed; pip install 'geop2p[{extra}]'")


def onnx_bytes(network: Generator, channels: int) -> bytes:
    """A generator in evaluation mode as an ONNX model of any batch, and of rows and columns from its smallest input on.

    Input `source` and output `target` are float32 (batch, channels, rows, cols), as of the network. The runtimes fold
    batch norms into the convolutions before them.

    Args:
        network: Not changed.
        channels: Of its input.
    """
    stride = network.stride
    side = stride * max(2, -(-SIDE // stride))
    example = torch.zeros(2, channels, side, side)
    traced = copy.deepcopy(network).cpu().eval()
    mark_short(traced)
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with warnings.catch_warnings(), quiet("torch.onnx", "torch.export", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # the exporter's own, of what it uses
        program = torch.onnx.export(
            traced, (example,), dynamo=True, verbose=False, external_data=False,
            input_names=["source"], output_names=["target"], dynamic_shapes=(free,),
        )  # fmt: skip
    assert program is not None
    result: bytes = program.model_proto.SerializeToString()
    return result


class OnnxNetwork(nn.Module):
    """A network that ONNX Runtime runs on the processor.

    Args:
        model: ONNX.
    """

    def __init__(self, model: bytes) -> None:
        super().__init__()
        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def forward(self, source: Tensor) -> Tensor:
        """Run (batch, channels, rows, cols)."""
        return torch.from_numpy(self._session.run(None, {"source": source.numpy()})[0])


class OpenVinoNetwork(nn.Module):
    """A network that OpenVINO runs on the processor, compiled for each shape that it meets.

    What is not quantised is computed in float32.

    Args:
        model: ONNX, or OpenVINO's own form.
        weights: Of OpenVINO's own form.
    """

    def __init__(self, model: bytes, weights: bytes | None = None) -> None:
        super().__init__()
        self._core = importlib.import_module("openvino").Core()
        self._model = self._core.read_model(io.BytesIO(model), None if weights is None else io.BytesIO(weights))
        self._compiled: dict[torch.Size, Any] = {}

    def forward(self, source: Tensor) -> Tensor:
        """Run (batch, channels, rows, cols)."""
        if source.shape not in self._compiled:
            self._model.reshape(list(source.shape))
            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
            self._compiled[source.shape] = self._core.compile_model(self._model, "CPU", settings)
        return torch.from_numpy(self._compiled[source.shape](source.numpy())[0].copy())  # its buffer is used again


FLOAT_RUNTIMES: dict[Literal["onnx", "openvino"], type[nn.Module]] = {"onnx": OnnxNetwork, "openvino": OpenVinoNetwork}


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Loggers that say nothing but errors."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
