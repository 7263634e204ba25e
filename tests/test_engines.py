"""Engines compute what torch computes, and say what they need."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import grid, image_encoding, stir_norms, write_raster

from geop2p import PredictConfig, export, predict
from geop2p.errors import CheckpointError, ConfigError, OutputError
from geop2p.models import GENERATORS, engines
from geop2p.mosaic.engine import choose_engine
from geop2p.translator import Card, Translator

BYTES = image_encoding()


def has(runtime: engines.Runtime) -> pytest.MarkDecorator:
    names = [name for name in engines.NEEDS[runtime] if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(names), reason=f"not installed: {', '.join(names)}")


def translator_of(generator: str = "unet", **arguments: Any) -> Translator:
    torch.manual_seed(0)
    arguments = {"in_channels": 3, "out_channels": 3, "head": "tanh", "width": 4} | arguments
    network = GENERATORS[generator](**arguments)
    stir_norms(network)
    statistics = "tile" if arguments["norm"] == "instance" else "none"
    card = Card(generator, arguments, BYTES, BYTES, (2.0, 2.0), 64, network.stride, None, statistics, "pix2pix", {})
    return Translator(network, card)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    translator_of(norm="batch", downs=3, up="resize", padding="reflect", dropout=0.5).save(path)
    return path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.random.default_rng(0).integers(0, 255, (3, 150, 130), dtype=np.uint8)
    return write_raster(tmp_path_factory.mktemp("scene") / "in.tif", values, grid(150, 130))


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read().astype(int)


@pytest.mark.parametrize("name", [pytest.param(name, marks=has(name)) for name in engines.RUNTIMES])
def test_engines_give_the_pixels_of_torch(tmp_path: Path, model: Path, scene: Path, name: engines.Runtime) -> None:
    made = {}
    for engine in ("torch", name):
        config = PredictConfig(engine=engine, tile_size=64, overlap=0.25, device="cpu")
        predict(model, scene, tmp_path / f"{engine}.tif", config)
        made[engine] = pixels(tmp_path / f"{engine}.tif")
    assert np.abs(made["torch"] - made[name]).max() <= 1
    assert made["torch"].std() > 1  # there is something to tell


@has("onnx")
def test_an_exported_model_is_that_of_torch_and_carries_its_card(tmp_path: Path, model: Path) -> None:
    import onnx
    import onnxruntime

    result = export(model, tmp_path / "out.onnx")
    assert result.max_difference < 1e-4 and result.stride == 8
    session = onnxruntime.InferenceSession(result.path, providers=["CPUExecutionProvider"])
    source = torch.rand(3, 3, 40, 72) * 2 - 1  # other batch, rows and columns than it was traced with
    (made,) = session.run(None, {"source": source.numpy()})
    assert np.abs(made - Translator.load(model).translate(source).numpy()).max() < 1e-4
    props = {entry.key: entry.value for entry in onnx.load(result.path).metadata_props}
    assert Card.from_json(props["geop2p"], "out.onnx") == Translator.load(model).card
    with pytest.raises(OutputError, match="exists; give another name or --overwrite"):
        export(model, tmp_path / "out.onnx")


@has("onnx")
def test_an_export_that_differs_from_torch_is_not_written(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import geop2p.interop.onnx as module

    other = translator_of(norm="batch", downs=3)
    made = engines.onnx_bytes(other.generator, 3)
    monkeypatch.setattr(module, "onnx_bytes", lambda *_: made)
    with pytest.raises(CheckpointError, match="as ONNX it differs from torch by"):
        export(model, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_what_an_engine_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = translator_of(norm="instance", downs=3)
    with pytest.raises(ConfigError, match="cannot give norms their statistics; use torch, or --norm-stats tile"):
        choose_engine(translator, "onnx", True)
    monkeypatch.setattr(engines, "missing", lambda _: ["openvino"])
    with pytest.raises(ConfigError, match=r"engine openvino: openvino not installed; pip install 'geop2p\[openvino\]'"):
        choose_engine(translator, "openvino", False)


def test_auto_is_torch() -> None:
    """It was not measured that another engine is faster by the clock."""
    assert choose_engine(translator_of(norm="batch", downs=3), "auto", False) == "torch"


@pytest.mark.parametrize("name", [pytest.param(name, marks=has(name)) for name in engines.RUNTIMES])
def test_engines_find_the_spread_of_torch(tmp_path: Path, model: Path, scene: Path, name: engines.Runtime) -> None:
    found = []
    for engine in ("torch", name):
        config = PredictConfig(engine=engine, tile_size=64, device="cpu", uncertainty=tmp_path / f"{engine}_apart.tif")
        predict(model, scene, tmp_path / f"{engine}.tif", config)
        with rasterio.open(tmp_path / f"{engine}_apart.tif") as dataset:
            found.append(dataset.read())
    assert found[0].mean() > 0.1 and np.abs(found[0] - found[1]).max() < 0.01
