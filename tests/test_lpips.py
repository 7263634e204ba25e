"""LPIPS, FID and KID against their references, with random weights and the linear layers that LPIPS' brings."""

import dataclasses
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from conftest import image_encoding
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import vgg16

import geop2p.evaluation.pretrained_scores as pretrained_scores
from geop2p import EvaluateConfig, TileConfig, TrainConfig, evaluate, tile, train
from geop2p.errors import CheckpointError, ConfigError
from geop2p.evaluation.pretrained_scores import PACKAGES, PretrainedScores, bands_of
from geop2p.models.lpips import load_lpips
from geop2p.raster.encoding import Band, Encoding
from geop2p.tiling.chips import ChipSet
from geop2p.training.history import read_metrics
from geop2p.training.networks import build_networks
from geop2p.training.objectives import lpips_loss

HEADS = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "vgg.pth"


RGB = Encoding("image", "uint8", tuple(Band(name) for name in ("nir", "red", "green", "blue")))


def has_packages() -> pytest.MarkDecorator:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    with torch.device("meta"):
        shapes = {f"features.{name}": one.shape for name, one in vgg16().features.state_dict().items()}
    weights = {name: torch.randn(shape) * (2 / max(shape[1:].numel(), 8)) ** 0.5 for name, shape in shapes.items()}
    torch.save(weights | {"classifier.0.bias": torch.zeros(2)}, file)
    return file


def test_it_is_the_reference_where_all_is_valid(network: Path) -> None:
    mine = load_lpips(network, HEADS)
    with torch.device("meta"):
        reference = _LPIPS(pretrained=False, net="vgg", pnet_rand=True)
    reference.to_empty(device="cpu")
    learnt = mine.features.state_dict()
    for number, head in enumerate(mine.heads):
        part = getattr(reference.net, f"slice{number + 1}")
        part.load_state_dict({name: learnt[name] for name in part.state_dict()})
        getattr(reference, f"lin{number}").model[1].weight.data.copy_(head)
    reference.scaling_layer.__init__()  # its constants are no weights
    reference.eval()
    with torch.no_grad():
        one, other = torch.rand(2, 2, 3, 48, 64) * 2 - 1
        maps, expected = mine(one, other), reference(one, other).flatten()
        assert (expected > 1e-4).all()
        assert torch.allclose(sum(part.mean(dim=(1, 2, 3)) for part in maps), expected, rtol=1e-4)
        assert float(lpips_loss(maps, torch.ones(2, 1, 48, 64))) == pytest.approx(float(expected.mean()), rel=1e-4)


def test_only_valid_ground_counts_and_flat_images_have_gradients(network: Path) -> None:
    mine = load_lpips(network, HEADS)
    real, valid = torch.zeros(1, 3, 32, 64), torch.zeros(1, 1, 32, 64)
    valid[..., :32] = 1
    fake = torch.zeros(1, 3, 32, 64, requires_grad=True)
    loss = lpips_loss(mine(fake, real), valid)
    loss.backward()
    assert float(loss.detach()) == 0 and torch.isfinite(fake.grad).all()  # type: ignore[arg-type]
    squares = [torch.ones(1, 1, side, side) for side in (32, 16, 8)]
    maps = [torch.cat([one, 9 * one], dim=3) for one in squares]
    assert float(lpips_loss(maps, valid)) == pytest.approx(3)  # 1 of each layer; the nines lie where nothing is valid


def test_it_trains_and_refuses_what_it_cannot_compare(pair: tuple[Path, Path], tmp_path: Path, network: Path) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))

    def config(**entries: Any) -> TrainConfig:
        values = {"lpips_weight": 1, "lpips_file": network, "lpips_heads": HEADS} | entries
        settings = tuple(f"{name}={value}" for name, value in values.items() if value is not None)
        return TrainConfig(recipe="pix2pix", steps=1, width=2, downs=3, device="cpu", set=settings)

    train(tmp_path / "chips", tmp_path / "run", config())
    assert set(read_metrics(tmp_path / "run")[0]["losses"]) == {"gan", "d", "l1", "lpips"}
    chipset = ChipSet.open(tmp_path / "chips")
    with pytest.raises(CheckpointError, match="give the linear layers of LPIPS"):
        build_networks(chipset, config(lpips_heads=network))
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file; give torchvision's VGG-16"):
        build_networks(chipset, config(lpips_file=tmp_path / "none.pth"))
    with pytest.raises(ConfigError, match="lpips_weight, lpips_file and lpips_heads go together"):
        build_networks(chipset, config(lpips_heads=None))
    tile(pair[1], pair[0], tmp_path / "maps", TileConfig(size=64, min_valid=0.5))
    with pytest.raises(
        ConfigError, match="lpips_weight, lpips_file, lpips_heads are for targets of imagery, the target is a map"
    ):
        build_networks(ChipSet.open(tmp_path / "maps"), config())


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torch_fidelity import feature_extractor_inceptionv3 as module

    class Unlearned(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any) -> None:  # type: ignore[override]
            pass

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        weights = Unlearned("inception-v3-compat", ["2048"]).state_dict()
    for name, one in weights.items():
        if name.endswith("conv.weight"):  # as large as keeps what passes through all the layers
            one.normal_(0, (2 / one[0].numel()) ** 0.5)
    torch.save(weights, file)
    return file


class Evil:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


@has_packages()
def test_weights_of_inception_run_no_code(tmp_path: Path) -> None:
    torch.save({"weights": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(
        CheckpointError, match=r"not a file of weights, or one that holds more; give the weights of the Inception"
    ):
        PretrainedScores(RGB, EvaluateConfig(inception_file=tmp_path / "evil.pth", device="cpu"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("field", ["perceptual_file", "lpips_file", "lpips_heads"])
def test_weights_for_a_loss_run_no_code(pair: tuple[Path, Path], tmp_path: Path, network: Path, field: str) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    torch.save({"features.0.weight": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    files = {"lpips_file": network, "lpips_heads": HEADS} if field.startswith("lpips") else {}
    settings = files | {field: tmp_path / "evil.pth", f"{field.split('_')[0]}_weight": 1}
    config = TrainConfig(
        recipe="pix2pix", steps=1, width=2, downs=3, set=tuple(f"{name}={value}" for name, value in settings.items())
    )
    with pytest.raises(
        CheckpointError,
        match=r"evil\.pth: not a file of weights, or one that holds more; give (torchvision|the linear)",
    ):
        train(tmp_path / "chips", tmp_path / "run", config)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "run").exists()


def chips_of(seed: int, count: int = 4) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 60 + 40 * seed, (4, 48, 48), dtype=np.uint8) for _ in range(count)]


@has_packages()
def test_fid_and_kid_are_those_of_torchmetrics_over_whole_chips(
    inception: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    monkeypatch.setattr(pretrained_scores, "FEATURES", 192)  # the roots of matrices of 2048 take seconds
    monkeypatch.setattr(pretrained_scores._Given, "num_features", 192)
    scores = PretrainedScores(RGB, EvaluateConfig(inception_file=inception, device="cpu"))
    real, made, whole = chips_of(1), chips_of(2), np.ones((48, 48), bool)
    for row, (truth, fake) in enumerate(zip(real, made, strict=True)):
        scores.add("model", row, fake, truth, whole)
        scores.add("truth", row, truth, truth, whole)
    holed = whole.copy()
    holed[3, 4] = False
    scores.add("model", 9, made[0], real[0], holed)
    found, same = scores.result("model"), scores.result("truth")
    assert found["pictures"] == 4 and same["fid"] < 1e-3 * found["fid"] and same["kid"] < found["kid"]
    fid = FrechetInceptionDistance(192, feature_extractor_weights_path=str(inception))
    with pytest.warns(UserWarning, match="will save all extracted features"):
        kid = KernelInceptionDistance(fid.inception, subsets=1, subset_size=4)
    for metric in (fid, kid):
        for chips, is_real in ((real, True), (made, False)):
            metric.update(torch.from_numpy(np.stack(chips)[:, 1:]), real=is_real)
    assert found["fid"] == pytest.approx(float(fid.compute()), rel=1e-3) and found["fid"] > 1e-3
    assert found["kid"] == pytest.approx(float(kid.compute()[0]), rel=1e-3)
    digest = hashlib.sha256(inception.read_bytes()).hexdigest()
    resize = "bilinear to 299 with antialiasing, from 8 bits"
    expected = {"network": "Inception v3", "sha256": digest, "bands": [2, 3, 4], "resize": resize}
    assert found["extractors"] == {"inception": expected}
    assert set(found["reasons"]) == {"lpips"} and found["lpips"] is None
    scores.add("few", 0, made[0], real[0], whole)
    assert scores.result("few")["reasons"]["fid"] == "1 chips have no hole, two are needed"


@has_packages()
def test_files_that_are_no_inception_are_refused(tmp_path: Path, network: Path) -> None:
    config = EvaluateConfig(inception_file=network, device="cpu")
    with pytest.raises(CheckpointError, match=r"vgg16\.pth: not the weights of the Inception of FID") as told:
        PretrainedScores(RGB, config)
    assert "\n" not in str(told.value)
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file; give the weights of the Inception"):
        PretrainedScores(RGB, dataclasses.replace(config, inception_file=tmp_path / "none.pth"))


def test_the_packages_of_fid_are_asked_for(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geop2p.evaluation.pretrained_scores.PACKAGES", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"FID and KID: no_such_package not installed; pip install 'geop2p\[fid\]'"):
        PretrainedScores(RGB, EvaluateConfig(inception_file=network, device="cpu"))


def test_lpips_as_a_score_is_the_mean_over_chips_of_valid_ground(network: Path) -> None:
    config = EvaluateConfig(lpips_file=network, lpips_heads=HEADS, rgb="4,3,1", device="cpu")
    scores, (real, made) = PretrainedScores(RGB, config), (chips_of(1, 2), chips_of(2, 2))
    whole, half = np.ones((2, 48, 48), bool)
    half[:, 32:] = False
    scores.add("model", 0, made[0], real[0], whole)
    scores.add("model", 1, made[1], real[1], half)
    reference = load_lpips(network, HEADS)
    wanted = []
    for fake, truth, valid in zip(made, real, (whole, half), strict=True):
        pair = (np.where(valid, chip[[3, 2, 0]] / 127.5 - 1, 0) for chip in (fake, truth))
        with torch.no_grad():
            maps = reference(*(torch.from_numpy(one).float()[None] for one in pair))
            wanted.append(float(lpips_loss(maps, torch.from_numpy(valid).float()[None, None])))
    found = scores.result("model")
    assert found["lpips"] == pytest.approx(np.mean(wanted), rel=1e-4) and wanted[0] != wanted[1]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (network, HEADS)]
    expected = {"network": "VGG-16", "sha256": digests[0], "heads_sha256": digests[1], "bands": [4, 3, 1]}
    assert found["extractors"] == {"lpips": expected | {"resize": None}}
    assert found["fid"] is None and "pictures" not in found


def test_which_bands_are_red_green_and_blue() -> None:
    assert bands_of(RGB, None) == [1, 2, 3] and bands_of(RGB, (1, 1, 2)) == [0, 0, 1]
    colours = dataclasses.replace(image_encoding(), color_interp=("blue", "green", "red"))
    assert bands_of(colours, None) == [2, 1, 0]
    with pytest.raises(ConfigError, match=r"the target has band 1, band 2, band 3; say which with --rgb"):
        bands_of(image_encoding(), None)
    with pytest.raises(ConfigError, match="rgb names band 5, the target has 4"):
        bands_of(RGB, (1, 2, 5))
    for text in ("1,2", "0,1,2", "a,b,c"):
        with pytest.raises(ConfigError, match=f"rgb is '{text}', expected three numbers of bands"):
            EvaluateConfig(rgb=text)
    with pytest.raises(ConfigError, match="lpips_file and lpips_heads go together"):
        EvaluateConfig(lpips_heads=HEADS)


def test_evaluate_gives_them_or_says_why_not(pair: tuple[Path, Path], tmp_path: Path, network: Path) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    train(tmp_path / "chips", tmp_path / "run", TrainConfig(recipe="pix2pix", steps=1, width=2, downs=3, device="cpu"))
    config = EvaluateConfig(lpips_file=network, lpips_heads=HEADS, device="cpu")
    found = evaluate(tmp_path / "run", tmp_path / "chips", tmp_path / "report.html", config)
    assert found["lpips"] > 0 and found["baseline"]["lpips"] > 0 and found["fid"] is found["kid"] is None
    assert found["reasons"]["fid"] == "needs weights that geop2p does not bring (--inception-file)"
    assert "LPIPS" in (tmp_path / "report.html").read_text() and json.dumps(found["extractors"])
