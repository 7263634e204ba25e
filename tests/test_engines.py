"""Engines compute what torch computes, and say what they need."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import CLASSES, grid, image_encoding, stir_norms, write_raster

from geop2p import PredictConfig, export, predict
from geop2p.errors import CheckpointError, ConfigError, OutputError, RasterError
from geop2p.models import GENERATORS, engines, hardware, int8
from geop2p.mosaic import quantised
from geop2p.mosaic.engine import choose_engine, with_engine
from geop2p.raster.encoding import Band, Encoding
from geop2p.translator import Card, Translator

BYTES = image_encoding()


def has(runtime: engines.Runtime) -> pytest.MarkDecorator:
    names = [name for name in engines.NEEDS[runtime] if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(names), reason=f"not installed: {', '.join(names)}")


def translator_of(generator: str = "unet", seed: int = 0, **arguments: Any) -> Translator:
    torch.manual_seed(seed)
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


@pytest.mark.parametrize("name", [pytest.param(name, marks=has(name)) for name in engines.FLOAT_RUNTIMES])
def test_engines_give_the_pixels_of_torch(tmp_path: Path, model: Path, scene: Path, name: engines.Runtime) -> None:
    made = {}
    for engine in ("torch", name):
        config = PredictConfig(engine=engine, tile_size=64, overlap=0.25, device="cpu")
        predict(model, scene, tmp_path / f"{engine}.tif", config)
        made[engine] = pixels(tmp_path / f"{engine}.tif")
    assert np.abs(made["torch"] - made[name]).max() <= 1
    assert made["torch"].std() > 1  # there is something to tell


@pytest.mark.parametrize("name", [pytest.param(name, marks=has(name)) for name in engines.FLOAT_RUNTIMES])
def test_engines_reflect_borders_of_any_length(name: engines.Runtime) -> None:
    """Also of the single pixel that is left of the smallest input, which is its own reflection."""
    network = translator_of(norm="instance", downs=3, padding="reflect").generator
    runtime = engines.FLOAT_RUNTIMES[name](engines.onnx_bytes(network, 3))
    for rows, cols in ((8, 8), (8, 24), (16, 8), (40, 32)):
        source = torch.rand(2, 3, rows, cols) * 2 - 1
        with torch.inference_mode():
            assert (runtime(source) - network(source)).abs().max() < 1e-5, (rows, cols)


@has("onnx")
def test_an_engine_that_fails_on_the_smallest_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "mark_short", lambda _: None)
    with pytest.raises(ConfigError, match=r"engine onnx cannot run the network on 8 pixels \(.*\); use torch") as told:
        with_engine(translator_of(norm="instance", downs=3, padding="reflect"), "onnx")
    assert "\n" not in str(told.value)


def test_16_bit_floats_change_values_a_little_and_are_told(
    tmp_path: Path, model: Path, scene: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "CPU_FLAGS", tmp_path / "none")
    made = {}
    for engine in ("torch", "torch-bf16"):
        config = PredictConfig(engine=engine, tile_size=64, overlap=0.25, device="cpu")
        assert predict(model, scene, tmp_path / f"{engine}.tif", config).engine == engine
        made[engine] = pixels(tmp_path / f"{engine}.tif")
    assert "no 16-bit floats in hardware: engine torch is faster" in caplog.text
    with rasterio.open(tmp_path / "torch-bf16.tif") as dataset:
        assert dataset.tags()["GEOP2P_ENGINE"] == "torch-bf16"
    apart = np.abs(made["torch"] - made["torch-bf16"])
    assert 0 < apart.mean() < 1 and apart.max() <= 8


def test_16_bit_floats_are_refused_where_values_are_fine(tmp_path: Path, model: Path) -> None:
    one = Translator.load(model)
    floats = dataclasses.replace(one.card.target, dtype="float32")
    heights = Translator(one.generator, dataclasses.replace(one.card, target=floats))
    with pytest.raises(ConfigError, match="the target holds float32; use torch"):
        choose_engine(heights, "torch-bf16", False)


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
    with pytest.raises(ConfigError, match=r"out\.pb: expected a name that ends in \.onnx"):
        export(model, tmp_path / "out.pb")


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
    monkeypatch.setattr(engines, "missing", lambda _: ["nncf"])
    with pytest.raises(
        ConfigError, match=r"engine openvino-int8: nncf not installed; pip install 'geop2p\[openvino\]'"
    ):
        choose_engine(translator, "openvino-int8", False)


def test_auto_is_torch() -> None:
    """It was not measured that another engine is faster by the clock."""
    assert choose_engine(translator_of(norm="batch", downs=3), "auto", False) == "torch"


@pytest.mark.parametrize("name", [pytest.param(name, marks=has(name)) for name in engines.FLOAT_RUNTIMES])
def test_engines_find_the_spread_of_torch(tmp_path: Path, model: Path, scene: Path, name: engines.Runtime) -> None:
    found = []
    for engine in ("torch", name):
        config = PredictConfig(engine=engine, tile_size=64, device="cpu", uncertainty=tmp_path / f"{engine}_apart.tif")
        predict(model, scene, tmp_path / f"{engine}.tif", config)
        with rasterio.open(tmp_path / f"{engine}_apart.tif") as dataset:
            found.append(dataset.read())
    assert found[0].mean() > 0.1 and np.abs(found[0] - found[1]).max() < 0.01


INT8 = PredictConfig(engine="openvino-int8", tile_size=64, overlap=0.25, device="cpu", memory="20MB")


@has("openvino-int8")
def test_int8_is_near_to_float32_and_says_how_near(
    tmp_path: Path, model: Path, scene: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    exact = predict(model, scene, tmp_path / "exact.tif", PredictConfig(tile_size=64, overlap=0.25, device="cpu"))
    with caplog.at_level("INFO", "geop2p"):
        made = predict(model, scene, tmp_path / "int8.tif", INT8)
    assert (exact.engine, exact.int8_psnr, made.engine) == ("torch", None, "openvino-int8")
    assert made.int8_psnr is not None and 25 < made.int8_psnr < 100
    assert f"on 7 windows of the input; against float32 on 2 others: PSNR {made.int8_psnr:.1f} dB" in caplog.text
    assert capfd.readouterr().out == ""
    with rasterio.open(tmp_path / "int8.tif") as dataset:
        assert dataset.tags()["GEOP2P_ENGINE"] == "openvino-int8"
        assert float(dataset.tags()["GEOP2P_INT8_PSNR"]) == made.int8_psnr
    difference = pixels(tmp_path / "exact.tif") - pixels(tmp_path / "int8.tif")
    psnr = 10 * np.log10(255**2 / np.square(difference).mean())
    assert difference.any() and abs(psnr - made.int8_psnr) < 6  # the mosaic is as near as the windows promised


@has("openvino-int8")
def test_shards_share_one_network_that_is_calibrated_on_the_input_alone(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 64, 600), dtype=np.uint8)
    scene = write_raster(tmp_path / "wide.tif", values, grid(64, 600))
    seen: list[list[torch.Tensor]] = []

    def watched(onnx: bytes, samples: list[torch.Tensor], folder: Path) -> None:
        seen.append(samples)
        int8.save_int8(onnx, samples, folder)

    monkeypatch.setattr(quantised, "save_int8", watched)
    predict(model, scene, tmp_path / "one.tif", INT8)
    output = tmp_path / "many.tif"
    parts = [predict(model, scene, output, dataclasses.replace(INT8, shard=f"{number}/2")) for number in (2, 1)]
    assert len(seen) == 2 and all(torch.equal(*pair) for pair in zip(*seen, strict=True))
    whole = predict(model, scene, output, INT8)
    assert len(seen) == 2 and {part.int8_psnr for part in parts} == {whole.int8_psnr}
    assert [part.parts for part in parts] == [1, 1]
    assert np.array_equal(pixels(output), pixels(tmp_path / "one.tif"))
    with pytest.raises(ConfigError, match=r"another engine \(openvino-int8, now torch\)"):
        predict(model, scene, tmp_path / "left.tif", dataclasses.replace(INT8, shard="1/2"))
        predict(model, scene, tmp_path / "left.tif", dataclasses.replace(INT8, engine="torch"))


@has("openvino-int8")
def test_the_network_that_is_there_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that make one at the same time, the later takes that of the earlier."""
    encoding = Encoding("classes", "uint8", (Band(),), classes=CLASSES[:2])

    def network(seed: int) -> quantised.QuantisedNetwork:
        made = translator_of(seed=seed, norm="batch", downs=3, out_channels=2, head="logits")
        made.card = dataclasses.replace(made.card, target=encoding)
        return quantised.QuantisedNetwork(made, grid(150, 130), tmp_path, 64)

    def look(window: Any) -> tuple[np.ndarray, np.ndarray]:
        values = np.random.default_rng(int(window.row_off * 150 + window.col_off)).random((3, 64, 64), np.float32)
        return values, np.ones((64, 64), bool)

    early, late, source = network(1), network(2), torch.rand(1, 3, 64, 64)
    made: list[torch.Tensor] = []

    def overtaken(onnx: bytes, samples: list[torch.Tensor], folder: Path) -> None:
        monkeypatch.setattr(quantised, "save_int8", int8.save_int8)
        made.append(early.translate(source, [], look))
        int8.save_int8(onnx, samples, folder)

    monkeypatch.setattr(quantised, "save_int8", overtaken)
    assert torch.equal(late.translate(source, [], look), made[0])
    assert early.psnr == late.psnr and [path.name for path in tmp_path.iterdir()] == ["int8"]
    found = json.loads((tmp_path / "int8" / "network.json").read_text())
    assert found["calibrated"] == 7 and found["checked"] == 2 and 0 <= found["changed"] < 0.5 and found["psnr"] > 15


def test_int8_needs_two_windows_with_ground(tmp_path: Path) -> None:
    network = quantised.QuantisedNetwork(translator_of(norm="batch", downs=3), grid(150, 130), tmp_path, 64)

    def look(window: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((3, 64, 64), np.float32), np.full((64, 64), window.row_off == window.col_off == 0)

    with pytest.raises(RasterError, match="has 1 windows of 64 pixels with 25 % valid ground, expected two") as told:
        network.translate(torch.zeros(1, 3, 64, 64), [], look)
    assert "\n" not in str(told.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shape", "tile", "side", "count"),
    [((150, 130), 512, 128, 4), ((2000, 3000), 512, 512, 16), ((2000, 3000), 2240, 1024, 4), ((640, 640), 64, 64, 64)],
)
def test_int8_is_calibrated_on_windows_like_the_tiles(
    tmp_path: Path, shape: tuple[int, int], tile: int, side: int, count: int
) -> None:
    """Smaller ones only where the input has no room for four."""
    network = quantised.QuantisedNetwork(translator_of(norm="batch", downs=3), grid(*shape), tmp_path, tile)

    def look(window: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((3, 1, 1), np.float32), np.ones((1, 1), bool)

    windows = network._windows(look)
    assert {(window.width, window.height) for window in windows} == {(side, side)} and len(windows) == count


def test_int8_takes_smaller_windows_where_ground_is_in_islands(tmp_path: Path) -> None:
    network = quantised.QuantisedNetwork(translator_of(norm="batch", downs=3), grid(2048, 2048), tmp_path, 1024)
    land = np.zeros((4096, 4096), bool)
    land[:256, :256] = land[1024:1280, 512:768] = True

    def look(window: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((3, 1, 1), np.float32), land[window.toslices()]

    windows = network._windows(look)
    assert {window.width for window in windows} == {128} and len(windows) == 8
