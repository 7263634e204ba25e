"""Golden figures of the networks (rule 9), the contract that every generator keeps, and how far they look."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch
import torch
from conftest import image_encoding
from torch import nn
from torch.nn import functional

from geop2p.models import DISCRIMINATORS, GENERATORS
from geop2p.models.field import one_sided_field
from geop2p.models.layers import (
    Generator,
    Padding,
    ShuffledConv,
    convolution,
    init_weights,
    norm_layer,
    upsampling,
    uses_input_statistics,
)
from geop2p.models.patchgan import LAYERS, MultiScale, PatchGAN
from geop2p.models.resnet import ResNet
from geop2p.models.smp import Smp
from geop2p.models.unet import UNet
from geop2p.translator import Card, Translator

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"downs": 4, "width": 4},
    "resnet": {"blocks": 6, "width": 4},
    "smp": {"architecture": "unet", "encoder": "mobilenet_v2"},
}
UPS = ("transposed", "resize", "pixelshuffle")
PADDINGS = ("zero", "reflect", "replicate")


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: UNet(3, 3, norm="instance"), 54_409_603),
        (lambda: UNet(3, 3, norm="batch"), 54_413_955),
        (lambda: UNet(3, 3, downs=7, norm="batch"), 41_828_995),
        (lambda: ResNet(3, 3, blocks=9, norm="instance"), 11_378_179),
        (lambda: PatchGAN(6, layers=0, norm="batch"), 9_024),
        (lambda: PatchGAN(6, norm="instance"), 2_767_809),
        (lambda: PatchGAN(6, norm="batch"), 2_768_705),
        (lambda: PatchGAN(6, layers=1, norm="batch"), 139_585),
        (lambda: PatchGAN(6, layers=2, norm="instance"), 666_049),
        (lambda: PatchGAN(6, layers=2, norm="batch"), 666_433),
        (lambda: PatchGAN(6, layers=4, norm="batch"), 6_964_033),
        (lambda: PatchGAN(6, layers=5, norm="instance"), 11_157_441),
        (lambda: PatchGAN(6, layers=5, norm="batch"), 11_159_361),
        (lambda: PatchGAN(6, layers=6, norm="instance"), 15_352_257),
        (lambda: PatchGAN(6, layers=6, norm="batch"), 15_354_689),
        (lambda: MultiScale(39, patch=70, scales=2), 5_603_202),
    ],
)
def test_parameter_counts(network, parameters: int) -> None:
    with torch.device("meta"):
        assert count(network()) == parameters


@pytest.mark.parametrize(
    ("layers", "patch", "patches"),
    [(0, 1, 256), (1, 16, 126), (2, 34, 62), (3, 70, 30), (4, 142, 14), (5, 286, 6), (6, 574, 2)],
)
def test_patch_sizes(layers: int, patch: int, patches: int) -> None:
    assert LAYERS.get(patch) == (layers if patch != 574 else None)
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
    assert int(seen.max() - seen.min()) + 1 == patch


@pytest.mark.parametrize("spectral", [False, True])
def test_scales_give_features_and_logits(spectral: bool) -> None:
    network = MultiScale(5, patch=34, scales=2, width=4, with_spectral_norm=spectral)
    init_weights(network)
    fine, coarse = network(torch.randn(2, 5, 64, 64))
    assert [tuple(one.shape[1:]) for one in fine] == [(4, 32, 32), (8, 16, 16), (16, 15, 15), (1, 14, 14)]
    assert coarse[-1].shape == (2, 1, 6, 6)
    smallest = network(torch.zeros(1, 5, network.smallest, network.smallest))
    assert smallest[-1][-1].shape == (1, 1, 1, 1)


def test_spectral_norms_are_one_from_the_first_step_on() -> None:
    torch.manual_seed(0)
    network = MultiScale(3, patch=34, width=8, with_spectral_norm=True)
    init_weights(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            norm = float(torch.linalg.matrix_norm(module.weight.detach().flatten(1), ord=2))
            assert norm == pytest.approx(1, abs=0.1)


def test_a_look_in_training_is_two_power_iterations() -> None:
    torch.manual_seed(0)
    network = MultiScale(3, patch=1, width=8, with_spectral_norm=True)
    layer = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    raw, norm = layer.parametrizations.weight.original.detach().flatten(1), layer.parametrizations.weight[0]
    left, right = norm._u.clone(), norm._v.clone()
    for _ in range(2):
        left = functional.normalize(raw @ right, dim=0)
        right = functional.normalize(raw.T @ left, dim=0)
    assert torch.allclose(layer.weight.flatten(1), raw / (left @ raw @ right))


@pytest.mark.parametrize(("downs", "field"), [(4, 45), (5, 93), (6, 189), (7, 381), (8, 765)])
def test_one_sided_field_of_the_unet(downs: int, field: int) -> None:
    assert one_sided_field(UNet(2, 1, downs=downs, width=1), 2, 2**downs) == field


@pytest.mark.parametrize(("blocks", "field"), [(6, 60), (9, 84)])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_one_sided_field_of_the_residual_network(blocks: int, field: int, norm: str) -> None:
    """169 pixels in all for nine blocks: 84 to each side and the pixel itself."""
    assert one_sided_field(ResNet(2, 1, blocks=blocks, width=1, norm=norm), 2, 4) == field


def test_fields_that_no_halo_covers_are_unbounded() -> None:
    assert one_sided_field(UNet(1, 1, downs=5, width=1), 1, 32, reach=64) is None

    class Gate(nn.Module):
        def forward(self, source: torch.Tensor) -> torch.Tensor:
            return source * source.mean(dim=(2, 3), keepdim=True).sigmoid()

    class Stretch(nn.Module):
        """Corners on corners: where a pixel comes from depends on the size of the whole."""

        def forward(self, source: torch.Tensor) -> torch.Tensor:
            half = nn.functional.avg_pool2d(source, 2)
            return nn.functional.interpolate(half, scale_factor=2, mode="bilinear", align_corners=True)

    assert one_sided_field(Gate(), 1, 1, reach=64) is None
    assert one_sided_field(Stretch(), 1, 2, reach=64) is None


@pytest.mark.parametrize(
    ("architecture", "encoder", "field"),
    [("unet", "mobilenet_v2", 339), ("unet", "resnet34", 543), ("unet", "vgg11", 217), ("fpn", "resnet18", None)],
)
def test_fields_of_library_networks(architecture: str, encoder: str, field: int | None) -> None:
    network = Smp(1, 1, architecture, encoder)
    assert one_sided_field(network, 1, network.stride, reach=768) == field
    assert uses_input_statistics(network) == (architecture == "fpn")  # its group norms


def test_dropout_and_norms_sit_where_the_port_has_them() -> None:
    network = UNet(3, 3)
    with_dropout = [any(isinstance(m, nn.Dropout) for m in layer) for layer in network.decoder]
    assert with_dropout == [False, False, False, False, True, True, True, False]
    with_norm = [any(isinstance(m, nn.InstanceNorm2d) for m in layer) for layer in network.encoder]
    assert with_norm == [False, True, True, True, True, True, True, False]


def build(name: str, inputs: int, outputs: int, **changes: Any) -> Generator:
    torch.manual_seed(0)
    network = GENERATORS[name](in_channels=inputs, out_channels=outputs, **SMALL[name] | changes)
    if network.std is not None:
        init_weights(network, 0.1)
    return network


def test_every_generator_is_under_contract() -> None:
    assert set(SMALL) == set(GENERATORS)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("inputs", "outputs", "head"), [(1, 4, "tanh"), (7, 1, "logits")])
def test_every_generator_keeps_the_size_and_learns_in_all_its_parts(
    name: str, inputs: int, outputs: int, head: str
) -> None:
    network = build(name, inputs, outputs, norm="batch", head=head)
    side = network.smallest
    output = network(torch.randn(2, inputs, side, side + network.stride))
    assert output.shape == (2, outputs, side, side + network.stride)
    assert (output.abs().max() <= 1) == (head == "tanh") or head == "logits"
    output.square().sum().backward()
    unmoved = [key for key, one in network.named_parameters() if one.grad is None or not one.grad.any()]
    assert not unmoved


@pytest.mark.parametrize("architecture", segmentation_models_pytorch.MODEL_ARCHITECTURES_MAPPING)
def test_every_decoder_of_the_library_is_a_generator(architecture: str) -> None:
    encoder = "tu-vit_tiny_patch16_224" if architecture == "dpt" else "resnet18"
    with torch.device("meta"):
        network = GENERATORS["smp"](in_channels=5, out_channels=4, architecture=architecture, encoder=encoder)
        rows, cols = network.smallest, network.smallest + network.stride
        assert network(torch.zeros(2, 5, rows, cols)).shape == (2, 4, rows, cols)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("norm", ["instance", "group", "none"])
def test_every_generator_takes_every_norm(name: str, norm: str) -> None:
    network = build(name, 2, 3, norm=norm)
    assert uses_input_statistics(network) == (norm != "none")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert network(torch.randn(1, 2, network.smallest, network.smallest)).shape[1] == 3


@pytest.mark.parametrize("name", SMALL)
def test_every_generator_survives_saving_and_takes_odd_sizes(name: str, tmp_path: Path) -> None:
    network = build(name, 5, 3, norm="batch")
    card = Card(
        generator=name,
        arguments={"in_channels": 5, "out_channels": 3, "norm": "batch"} | SMALL[name],
        source=image_encoding(bands=5),
        target=image_encoding(bands=3),
        pixel_size=None,
        chip_size=64,
        stride=network.stride,
        field=None,
        statistics="none",
        recipe="pix2pix",
        provenance={},
    )
    before = Translator(network, card)
    before.save(tmp_path / "model.safetensors")
    after = Translator.load(tmp_path / "model.safetensors")
    values = np.random.default_rng(0).integers(0, 255, (5, 67, 95), dtype=np.uint8)
    assert before(values).shape == (3, 67, 95)
    assert np.array_equal(before(values), after(values))


@pytest.mark.parametrize(("up", "padding"), [*itertools.product(UPS, PADDINGS)])
@pytest.mark.parametrize("name", ["unet", "resnet"])
def test_tiles_with_a_halo_of_the_field_equal_the_whole(name: str, up: str, padding: str) -> None:
    """Fact 2 of exact mosaics, for trained-like weights: tiles cut at multiples of the stride agree everywhere."""
    network = build(name, 2, 1, norm="batch", up=up, padding=padding, **({"downs": 3} if name == "unet" else {}))
    check_halo(network)


def test_tiles_of_library_networks_equal_the_whole() -> None:
    check_halo(build("smp", 2, 1))


def check_halo(network: Generator) -> None:
    network.eval()
    field = one_sided_field(network, 2, network.stride)
    assert field is not None
    halo = -(-field // network.stride) * network.stride
    image = torch.randn(1, 2, 32, 2 * halo + 96)
    with torch.inference_mode():
        whole = network(image)[..., halo + 32 : halo + 64]
        tile = network(image[..., 32 : 64 + 2 * halo])[..., halo:-halo]
    assert torch.allclose(tile, whole, atol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 4)])
def test_resize_is_nearest_neighbour_and_a_convolution(padding: Padding, size: tuple[int, int]) -> None:
    """Computed as one transposed convolution, with the gradients of the two."""
    layer = upsampling("resize", 2, 3, 4, padding).double()
    source = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    mode = {"zero": "constant"}.get(padding, padding)
    padded = functional.pad(functional.interpolate(source, scale_factor=2), (1,) * 4, mode)
    expected = functional.conv2d(padded, layer.weight, layer.bias)
    for ours, theirs in zip(
        (layer(source), *torch.autograd.grad(layer(source).square().sum(), [source, layer.weight, layer.bias])),
        (expected, *torch.autograd.grad(expected.square().sum(), [source, layer.weight, layer.bias])),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_padding_stays_in_16_bits() -> None:
    """Where autocast multiplies in them: processors would pad in 32, and the next layer convert it back."""
    layer, seen = convolution(2, 3, 4, 2, "reflect"), list[torch.dtype]()
    with torch.autocast("cpu", torch.bfloat16), pytest.MonkeyPatch.context() as patch:
        pad = functional.pad
        patch.setattr(functional, "pad", lambda *given: (made := pad(*given), seen.append(made.dtype))[0])
        layer(torch.ones(1, 2, 8, 8, dtype=torch.bfloat16))
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize(("up", "padding"), [*itertools.product(UPS, PADDINGS)])
@pytest.mark.parametrize("kernel", [3, 4])
def test_padding_replaces_the_zeros_beyond_the_border(up: str, padding: str, kernel: int) -> None:
    """Of a constant, every square of 2x2 pixels is made alike up to the border, unless zeros lie beyond it."""
    layer = upsampling(up, 2, 3, kernel, padding)
    made = layer(torch.ones(1, 2, 8, 8)).detach()[0]
    squares = made.reshape(3, 8, 2, 8, 2)
    assert torch.allclose(squares, squares[:, 4:5, :, 4:5], atol=1e-6) == (padding != "zero")
    halved = convolution(2, 3, kernel, 2, padding)(torch.ones(1, 2, 8, 8)).detach()
    assert halved.shape == (1, 3, 4, 4)
    assert torch.allclose(halved, halved[..., 2:3, 2:3], atol=1e-6) == (padding != "zero")


def test_a_side_too_short_to_be_reflected_is_repeated() -> None:
    layer = convolution(1, 1, 7, 1, "reflect")
    nn.init.constant_(layer.weight, 1 / 49)
    assert float((layer(torch.full((1, 1, 1, 2), 3.0)) - layer.bias).detach().max()) == pytest.approx(3)
    assert UNet(1, 1, downs=3, width=2, up="pixelshuffle", padding="reflect")(torch.ones(1, 1, 8, 8)).shape[-1] == 8


def test_shuffled_pixels_begin_as_nearest_neighbour() -> None:
    network = UNet(2, 3, downs=3, width=4, up="pixelshuffle")
    init_weights(network)
    for module in network.modules():
        if isinstance(module, ShuffledConv):
            made = module(torch.randn(1, module[0].in_channels, 4, 4))
            assert torch.allclose(made[..., ::2, ::2], made[..., 1::2, 1::2], atol=1e-6)


def test_without_skips_nothing_passes_around_the_bottleneck() -> None:
    network = UNet(1, 1, downs=4, width=4, norm="none", skips=False)
    nn.init.zeros_(network.encoder[3][1].weight)
    nn.init.zeros_(network.encoder[3][1].bias)
    one, two = network(torch.randn(2, 1, 16, 16))
    assert torch.equal(one, two)


def test_initial_weights_are_drawn_from_a_narrow_normal() -> None:
    network = PatchGAN(6, norm="batch")
    init_weights(network)
    convolution = next(m for m in network.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 128)
    assert float(convolution.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    gain = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)).weight.detach()
    assert float(gain.mean()) == pytest.approx(1, abs=0.02)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="expected instance, batch, group, none"):
        norm_layer("layer", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="architecture 'vnet' is unknown; known: deeplabv3"):
        Smp(1, 1, "vnet")
    with pytest.raises(ValueError, match="unet cannot be built with encoder 'resnet1'"):
        Smp(1, 1, "unet", "resnet1")


def test_every_discriminator_takes_any_channels() -> None:
    for builder in DISCRIMINATORS.values():
        assert builder(in_channels=7, width=4)(torch.zeros(2, 7, 64, 64))[0][-1].shape == (2, 1, 6, 6)
