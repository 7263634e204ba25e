"""`plan_training`: what a training would do and take, without doing it."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from geop2p.config import TrainConfig
from geop2p.config.fields import config_or_default
from geop2p.errors import ChipSetError, GeoP2PError
from geop2p.models.memory import HeldBytes, telling_when_full
from geop2p.models.randomness import OwnDraws
from geop2p.tiling.chips import ChipSet
from geop2p.training.augmentation import augmentation_of
from geop2p.training.data import Batch
from geop2p.training.hardware import uses_bf16
from geop2p.training.networks import Networks, build_networks
from geop2p.training.recipes import Recipe, recipe_of
from geop2p.training.run_writer import score_to_keep
from geop2p.training.step import TrainingStep

MEBI = 2**20


def plan_training(chips: str | Path, config: TrainConfig | None = None) -> dict[str, Any]:
    """What a training would do and take; nothing is trained or written.

    Args:
        chips: Folder of the chip set.
        config: Settings.

    Returns:
        `config` and `recipe` as they would be used; `chips` of each split; `epochs`, `steps_per_epoch` and `steps`;
        `parameters` of generator and discriminator; `device` and `bf16`, whether the networks would run in it;
        `memory_mib`: what stays between steps (`networks`: weights, gradients, optimisers, running mean), the most
        that a `step` holds on top of nothing (kernels' own memory is not seen, bf16 takes less), and `chips`;
        `model_mib` on disk.

    Raises:
        ChipSetError: The chip set is missing, damaged or has no training chips.
        ConfigError: The settings do not fit the chips.
    """
    config = config_or_default(config, TrainConfig)
    chipset = ChipSet.open(chips)
    if not chipset.counts["train"]:
        raise ChipSetError(f"{chips}: has no training chips; tile with another --split")
    score_to_keep(chipset, config)
    recipe = recipe_of(config, chipset.target)
    hint = f"; try --width {config.width // 2}" if config.width > 1 else ""
    with telling_when_full(GeoP2PError(f"out of memory with networks of width {config.width}{hint}")):
        networks = build_networks(chipset, config)
    drawn = augmentation_of(chipset, recipe, config.seed)
    per_epoch = math.ceil(chipset.counts["train"] / recipe.batch_size)
    steps = config.steps or config.epochs * per_epoch
    sides = ((len(side.bands), np.dtype(side.dtype).itemsize) for side in (chipset.source, chipset.target))
    chip = chipset.size**2 * (1 + sum(bands * size for bands, size in sides))  # a byte for the mask
    counts = {"generator": networks.generator, "discriminator": networks.discriminator}
    result: dict[str, Any] = {
        "config": {name: str(value) if isinstance(value, Path) else value for name, value in _fields(config).items()},
        "recipe": _fields(recipe) | {"flip": drawn.flip, "d4": drawn.d4},
        "chips": chipset.counts,
        "epochs": math.ceil(steps / per_epoch),
        "steps_per_epoch": per_epoch,
        "steps": steps,
        "parameters": {name: _count(network) for name, network in counts.items() if network is not None},
        "device": str(networks.device),
        "bf16": uses_bf16(config.precision, networks.device),
        "model_mib": round(_bytes(networks.generator) / MEBI, 1),
    }
    with OwnDraws():  # of the places of noise
        lasting, most = step_bytes(networks, recipe, config, chipset)
    read = chip * (chipset.counts["train"] + chipset.counts["val"])
    memory = {"networks": lasting, "step": most, "chips": read}
    return result | {"memory_mib": {name: round(size / MEBI, 1) for name, size in memory.items()}}


class _AllBytes(TorchDispatchMode):
    """Counts the tensors that any operation makes, those of the backward pass and of the optimisers among them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = HeldBytes()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.held.count(result)
        return result


def step_bytes(networks: Networks, recipe: Recipe, config: TrainConfig, chipset: ChipSet) -> tuple[int, int]:
    """Bytes that stay between steps, and the most that one holds at once, in fp32.

    Counted on the meta device, whose tensors have shapes and no values; the networks are there afterwards.
    """
    meta, size, count = torch.device("meta"), chipset.size, recipe.batch_size
    for part in (networks.generator, networks.discriminator, networks.vgg, networks.lpips):
        if part is not None:
            part.to(meta)
    plain = dataclasses.replace(config, precision="fp32")  # the meta device has no other
    update = TrainingStep(dataclasses.replace(networks, device=meta), recipe, plain, total=2)
    update.generator.train()
    parts = (update.generator, update.discriminator, update.mean, update.vgg, update.lpips)
    with _AllBytes() as counter:
        counter.held.count([[*part.parameters(), *part.buffers()] for part in parts if part is not None])
        for step in range(2):  # the first one makes the state of the optimisers
            channels = (chipset.source.channels, chipset.target.channels, 1)
            update(Batch(*(torch.zeros(count, bands, size, size, device=meta) for bands in channels)), step)
    return counter.held.now, counter.held.peak


def _fields(settings: TrainConfig | Recipe) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in network.state_dict().values())
