"""What generators and discriminators share: norms, padded convolutions, up-sampling and the initial weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from geop2p.models.positional_noise import drawn_noise, ground_noise

Norm = Literal["instance", "batch", "group", "none"]
Padding = Literal["zero", "reflect", "replicate"]
Up = Literal["transposed", "resize", "pixelshuffle"]
Head = Literal["tanh", "logits"]

GROUPS = 32  # of group norm at most (Wu & He, ECCV 2018, arXiv 1803.08494)
FRESH_LOOKS = 15  # after which spectral norms fit fresh weights
POWER_ITERATIONS = 2  # in each look: one for the real and one for the fake that it serves under `normed_once`


class Generator(nn.Module):
    """A network from (batch, in_channels, rows, cols) to (batch, out_channels, rows, cols).

    Attributes:
        stride: Its down-sampling factor: sides of the input must be multiples of it.
        smallest: Shortest side of the input that it can be trained on.
        std: Standard deviation of the initial weights; None: the network draws its own.
        in_channels: Channels of the input, those of the noise among them, which come last.
        noise: Of them noise: a network that sees but a class has nothing else to draw texture from.
    """

    stride: int
    smallest: int
    std: float | None = 0.02

    def __init__(self, in_channels: int, noise: int) -> None:
        super().__init__()
        self.in_channels, self.noise = in_channels, noise

    def with_noise(self, source: Tensor) -> Tensor:
        """The source with its noise, where it comes without: drawn in training, else that of the ground at (0, 0)."""
        if not self.noise or source.shape[1] == self.in_channels:
            return source
        if self.training:
            return torch.cat([source, drawn_noise(source, self.noise)], dim=1)
        noise = ground_noise(0, 0, (source.shape[2], source.shape[3]), self.noise).to(source)
        return torch.cat([source, noise.expand(len(source), *noise.shape)], dim=1)


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """A normalisation layer: instance norm without weights, batch or group norm with them, or none.

    Raises:
        ValueError: The name is not known.
    """
    if norm == "instance":
        return nn.InstanceNorm2d(channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(GROUPS, channels), channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm is '{norm}', expected {', '.join(get_args(Norm))}")


def has_own_shift(norm: Norm) -> bool:
    """Whether the norm adds its own bias, so that the convolution before it needs none."""
    return norm in ("batch", "group")


def uses_input_statistics(network: nn.Module) -> bool:
    """Whether the network, when it predicts, normalises by statistics of its input: then tiles see each other's cut."""
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d | nn.BatchNorm2d) and not module.track_running_stats:
            return True
        if isinstance(module, nn.GroupNorm):
            return True
    return False


def convolution(ins: int, outs: int, kernel: int, stride: int, padding: Padding, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the side, or divides it by its stride."""
    amount = (kernel - 1) // 2
    if padding == "zero":
        return nn.Conv2d(ins, outs, kernel, stride, amount, bias=bias)
    return PaddedConv(ins, outs, kernel, stride, amount, bias=bias, padding_mode=padding)


def upsampling(up: Up, ins: int, outs: int, kernel: int, padding: Padding, bias: bool = True) -> nn.Module:
    """A convolution that doubles the side.

    Args:
        up: transposed: a transposed convolution; resize: nearest neighbour, then a 3x3 convolution (Odena et al.,
            Distill 2016); pixelshuffle: a 3x3 convolution to four times the channels, then one pixel of each
            (Shi et al., arXiv 1609.05158).
        ins: Channels before.
        outs: Channels after.
        kernel: Side of the transposed kernel, 3 or 4.
        padding: What lies beyond the border.
        bias: Whether to add one.

    Raises:
        ValueError: The name is not known.
    """
    if up == "transposed":
        extra = 4 - kernel
        if padding == "zero":
            return nn.ConvTranspose2d(ins, outs, kernel, 2, 1, extra, bias=bias)
        return PaddedTransposedConv(ins, outs, kernel, extra, padding, bias)
    if up == "resize":
        return ResizeConv(ins, outs, 3, bias=bias, padding_mode="zeros" if padding == "zero" else padding)
    if up == "pixelshuffle":
        return ShuffledConv(convolution(ins, 4 * outs, 3, 1, padding, bias), nn.PixelShuffle(2))
    raise ValueError(f"up is '{up}', expected {', '.join(get_args(Up))}")


class PaddedConv(nn.Conv2d):
    """A convolution with reflected or repeated borders, also where a side is too short to be reflected.

    Attributes:
        may_be_short: Whether this is to be found out when an exported network runs, rather than when it is traced.
    """

    may_be_short = False

    @property
    def amount(self) -> int:
        """Pixels beyond each border."""
        return cast(int, self.padding[0])

    def forward(self, input: Tensor) -> Tensor:
        """Pad, then convolve."""
        pad = _pad_any if self.may_be_short else _pad
        return functional.conv2d(pad(input, self.amount, self.padding_mode), self.weight, self.bias, self.stride)


class PaddedTransposedConv(nn.ConvTranspose2d):
    """A transposed convolution that doubles the side and sees a reflected or repeated pixel beyond the border.

    Attributes:
        may_be_short: See `PaddedConv`.
    """

    may_be_short = False
    amount = 1

    def __init__(self, ins: int, outs: int, kernel: int, extra: int, mode: str, bias: bool) -> None:
        super().__init__(ins, outs, kernel, 2, 3, extra, bias=bias)  # 1, and the two pixels that the padding adds
        self.mode = mode

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Pad, then convolve."""
        pad = _pad_any if self.may_be_short else _pad
        return super().forward(pad(input, self.amount, self.mode), output_size)


class ResizeConv(nn.Conv2d):
    """Nearest neighbour to twice the side, then a 3x3 convolution: computed as the transposed one that both are.

    The enlarged image is never made: four taps fall on each pixel of the input, in a kernel of 4x4 sums. One pixel
    beyond its border, reflected or repeated, is the border of the input repeated.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Enlarge and convolve."""
        turned = (4 * self.weight).flip(2, 3).transpose(0, 1)
        kernel = functional.avg_pool2d(turned, 2, 1, 1)  # sums over 2x2 taps, which see the same pixel
        if self.padding_mode == "zeros":
            return functional.conv_transpose2d(input, kernel, self.bias, 2, 1)
        return functional.conv_transpose2d(_pad(input, 1, "replicate"), kernel, self.bias, 2, 3)


class ShuffledConv(nn.Sequential):
    """A convolution to four times the channels, and the shuffle that makes each four a square of 2x2 pixels."""

    def even_out(self) -> None:
        """Start as nearest neighbour: the four share their weights (ICNR; Aitken et al., arXiv 1707.02937)."""
        weight = cast(nn.Conv2d, self[0]).weight
        with torch.no_grad():
            weight.copy_(weight[::4].repeat_interleave(4, 0))


def _pad(image: Tensor, amount: int, mode: str) -> Tensor:
    if min(image.shape[-2:]) <= amount:
        mode = "replicate"  # a single pixel is its own reflection
    if image.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):  # which pads in float32, and leaves it to the next layer
            return functional.pad(image, (amount,) * 4, mode)
    return functional.pad(image, (amount,) * 4, mode)


def _pad_any(image: Tensor, amount: int, mode: str) -> Tensor:
    """As `_pad`, with one graph for sides of any length; slower."""
    if mode == "replicate":
        return functional.pad(image, (amount,) * 4, mode)
    rows, cols = image.shape[-2:]
    is_short = torch.minimum(torch.scalar_tensor(rows), torch.scalar_tensor(cols)) <= amount
    for axis, side in ((2, rows), (3, cols)):
        place, last = torch.arange(-amount, side + amount), side - 1
        inside = torch.maximum(place, -place)  # not abs, of which OpenVINO makes another number
        reflected = torch.minimum(inside, 2 * last - inside)
        image = image.index_select(axis, torch.where(is_short, place, reflected).clamp(0, last))
    return image


def mark_short(network: Generator) -> None:
    """Find the layers of a network on the processor that cannot reflect all sides of the smallest input."""
    layers = [module for module in network.modules() if isinstance(module, PaddedConv | PaddedTransposedConv)]
    if not layers:
        return

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        layer = cast(PaddedConv, module)
        layer.may_be_short = min(given[0].shape[-2:]) <= layer.amount

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    with torch.inference_mode():
        network(torch.zeros(1, network.in_channels, network.smallest, network.smallest))
    for hook in hooks:
        hook.remove()


def spectral(network: nn.Module) -> None:
    """Divide the weights of every convolution by their spectral norm (Miyato et al., arXiv 1802.05957)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            spectral_norm(module, n_power_iterations=POWER_ITERATIONS)


@contextmanager
def normed_once(network: nn.Module) -> Iterator[None]:
    """Within the block all looks of a network see the same spectral norms, computed once and in float32.

    In every look, and under a GPU's autocast, they would be more than half of its kernels.
    """
    with parametrize.cached():
        for module in network.modules():
            if parametrize.is_parametrized(module, "weight"):
                _ = module.weight
        yield


def init_weights(network: nn.Module, std: float = 0.02) -> None:
    """Draw convolution weights from N(0, std) and norm gains from N(1, std); biases are 0 (pix2pix, 6.2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(_raw_weight(module), 0.0, std)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ShuffledConv):
            module.even_out()
        elif parametrize.is_parametrized(module, "weight"):
            _refit(module)


def _raw_weight(module: nn.Module) -> Tensor:
    if parametrize.is_parametrized(module, "weight"):
        return cast(Any, module).parametrizations.weight.original  # type: ignore[no-any-return]
    return cast(Tensor, module.weight)


def _refit(module: nn.Module) -> None:
    """Bring a spectral norm's vectors to new weights: each look at the weight in training mode improves them."""
    with torch.no_grad():
        for _ in range(FRESH_LOOKS):
            _ = module.weight
