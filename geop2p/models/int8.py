"""Quantisation after training: a generator whose convolutions compute in 8-bit integers (NNCF, for OpenVINO)."""

import contextlib
import importlib
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from geop2p.models.engines import OpenVinoNetwork, quiet

STEM = "network"
_CHATTY = "torch.utils.cpp_extension"  # looks for a GPU


def save_int8(model: bytes, samples: Sequence[Tensor], folder: Path) -> None:
    """Quantise a network by what it computes of samples, and write it as `network.xml` and `network.bin`.

    Args:
        model: ONNX.
        samples: Its inputs (batch, channels, rows, cols), which decide the intervals that 8 bits stand for.
        folder: Where to.
    """
    openvino = importlib.import_module("openvino")
    nncf = _nncf()
    data = nncf.Dataset([sample.numpy() for sample in samples])
    with (
        quiet("nncf", _CHATTY),
        contextlib.redirect_stdout(io.StringIO()),
    ):  # it draws a progress bar where results go
        quantised = nncf.quantize(
            openvino.Core().read_model(io.BytesIO(model)), data, preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
        )  # fmt: skip
    openvino.save_model(quantised, folder / f"{STEM}.xml", compress_to_fp16=False)


def load_int8(folder: Path) -> OpenVinoNetwork:
    """The network that `save_int8` wrote into a folder."""
    return OpenVinoNetwork(*((folder / f"{STEM}{suffix}").read_bytes() for suffix in (".xml", ".bin")))


def _nncf() -> Any:
    """The package, without its messages to its makers: nothing leaves this machine unasked."""
    said = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"  # where it finds this, it sends none
    try:
        with warnings.catch_warnings(), quiet(_CHATTY):
            warnings.simplefilter("ignore")  # its own, of what it imports
            return importlib.import_module("nncf")
    finally:
        del os.environ["NNCF_CI"]
        if said is not None:
            os.environ["NNCF_CI"] = said
