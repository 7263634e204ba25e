"""LPIPS against its reference, with random weights of VGG-16 and the linear layers that the reference brings."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import vgg16

from geop2p import TileConfig, TrainConfig, tile, train
from geop2p.errors import CheckpointError, ConfigError
from geop2p.models.lpips import load_lpips
from geop2p.tiling.chips import ChipSet
from geop2p.training.history import read_metrics
from geop2p.training.networks import build_networks
from geop2p.training.objectives import lpips

HEADS = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "vgg.pth"


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
        assert float(lpips(maps, torch.ones(2, 1, 48, 64))) == pytest.approx(float(expected.mean()), rel=1e-4)


def test_only_valid_ground_counts_and_flat_images_have_gradients(network: Path) -> None:
    mine = load_lpips(network, HEADS)
    real, valid = torch.zeros(1, 3, 32, 64), torch.zeros(1, 1, 32, 64)
    valid[..., :32] = 1
    fake = torch.zeros(1, 3, 32, 64, requires_grad=True)
    loss = lpips(mine(fake, real), valid)
    loss.backward()
    assert float(loss.detach()) == 0 and torch.isfinite(fake.grad).all()  # type: ignore[arg-type]
    squares = [torch.ones(1, 1, side, side) for side in (32, 16, 8)]
    maps = [torch.cat([one, 9 * one], dim=3) for one in squares]
    assert float(lpips(maps, valid)) == pytest.approx(3)  # 1 of each layer; the nines lie where nothing is valid


def test_it_trains_and_refuses_what_it_cannot_compare(pair: tuple[Path, Path], tmp_path: Path, network: Path) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))

    def config(**entries: Any) -> TrainConfig:
        values = {"lpips_weight": 1, "lpips_file": network, "lpips_heads": HEADS} | entries
        settings = tuple(f"{name}={value}" for name, value in values.items() if value is not None)
        return TrainConfig(steps=1, width=2, downs=3, device="cpu", set=settings)

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
    with pytest.raises(ConfigError, match="LPIPS compares pictures of red, green and blue, the target is a map"):
        build_networks(ChipSet.open(tmp_path / "maps"), config())
