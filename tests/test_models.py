"""Golden figures of the networks (rule 9), and how far they look."""

import pytest
import torch
from torch import nn

from geop2p.models import DISCRIMINATORS, GENERATORS
from geop2p.models.field import one_sided_field
from geop2p.models.layers import init_weights, norm_layer
from geop2p.models.patchgan import PatchGAN
from geop2p.models.unet import UNet


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: UNet(3, 3, norm="instance"), 54_409_603),
        (lambda: UNet(3, 3, norm="batch"), 54_413_955),
        (lambda: UNet(3, 3, downs=7, norm="batch"), 41_828_995),
        (lambda: PatchGAN(6, norm="instance"), 2_767_809),
        (lambda: PatchGAN(6, norm="batch"), 2_768_705),
        (lambda: PatchGAN(6, layers=1, norm="batch"), 139_585),
        (lambda: PatchGAN(6, layers=2, norm="instance"), 666_049),
        (lambda: PatchGAN(6, layers=4, norm="batch"), 6_964_033),
        (lambda: PatchGAN(6, layers=5, norm="instance"), 11_157_441),
    ],
)
def test_parameter_counts(network, parameters: int) -> None:
    assert count(network()) == parameters


@pytest.mark.parametrize(
    ("layers", "patches", "field"), [(1, 126, 16), (2, 62, 34), (3, 30, 70), (4, 14, 142), (5, 6, 286)]
)
def test_patch_sizes(layers: int, patches: int, field: int) -> None:
    discriminator = PatchGAN(2, layers=layers, width=1)
    assert discriminator(torch.zeros(1, 2, 256, 256)).shape == (1, 1, patches, patches)
    for module in discriminator.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.1)
    plain = nn.Sequential(*[m for m in discriminator.layers if isinstance(m, nn.Conv2d)]).double()
    image = torch.zeros(1, 2, 640, 640, dtype=torch.float64, requires_grad=True)
    output = plain(image)
    output[0, 0, output.shape[2] // 2, output.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].abs().sum(dim=0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == field


@pytest.mark.parametrize(("downs", "field"), [(4, 45), (5, 93), (6, 189), (7, 381), (8, 765)])
def test_one_sided_field_of_the_unet(downs: int, field: int) -> None:
    assert one_sided_field(UNet(2, 1, downs=downs, width=1), 2, 2**downs) == field


def test_a_field_wider_than_the_reach_is_unbounded() -> None:
    assert one_sided_field(UNet(1, 1, downs=5, width=1), 1, 32, reach=64) is None


def test_dropout_and_norms_sit_where_the_port_has_them() -> None:
    network = UNet(3, 3)
    with_dropout = [any(isinstance(m, nn.Dropout) for m in layer) for layer in network.decoder]
    assert with_dropout == [False, False, False, False, True, True, True, False]
    with_norm = [any(isinstance(m, nn.InstanceNorm2d) for m in layer) for layer in network.encoder]
    assert with_norm == [False, True, True, True, True, True, True, False]


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 4), (7, 1)])
def test_every_generator_keeps_the_size(norm: str, inputs: int, outputs: int) -> None:
    for build in GENERATORS.values():
        network = build(in_channels=inputs, out_channels=outputs, downs=4, width=4, norm=norm)
        assert network(torch.zeros(2, inputs, 32, 48)).shape == (2, outputs, 32, 48)
    for build in DISCRIMINATORS.values():
        assert build(in_channels=inputs, width=4)(torch.zeros(2, inputs, 64, 64)).shape == (2, 1, 6, 6)


def test_initial_weights_are_drawn_from_a_narrow_normal() -> None:
    network = PatchGAN(6, norm="batch")
    init_weights(network)
    convolution = next(m for m in network.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 128)
    assert float(convolution.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    gain = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)).weight.detach()
    assert float(gain.mean()) == pytest.approx(1, abs=0.02)


def test_unknown_norms_are_refused() -> None:
    with pytest.raises(ValueError, match="expected instance or batch"):
        norm_layer("layer", 3)  # type: ignore[arg-type]
