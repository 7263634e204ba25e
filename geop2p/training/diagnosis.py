"""Why a training stopped, in words: losses that are not finite, memory that is not enough."""

from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from geop2p.config import TrainConfig
from geop2p.errors import GeoP2PError
from geop2p.models.memory import telling_when_full
from geop2p.training.data import Batch

OF_DISCRIMINATOR = {"d", "r1"}  # losses that the discriminator's weights of the step before decide
AFTER_DISCRIMINATOR = {"gan", "features"}  # those that it decides after its own update


def is_finite(network: nn.Module | None) -> bool:
    """Whether all weights and statistics of a network are finite."""
    if network is None:
        return True
    return all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values())


def explain_losses(
    run: Path, since: dict[str, int], step: int, batch: Batch, ids: list[str], config: TrainConfig, bf16: bool
) -> GeoP2PError:
    """The error for losses that are not finite.

    Args:
        run: Folder of the run.
        since: Losses, and for how many steps up to now they have not been finite.
        step: Steps done.
        batch: Chips of the first of these steps.
        ids: Their names.
        config: For what to change.
        bf16: Whether the networks ran in that format.
    """
    longest = max(since.values())
    first = [name for name, age in since.items() if age == longest]
    at = step - longest + 1
    found = f"{run}: loss {' and '.join(first)} is not finite from step {at} on"
    again = "and repeat with --overwrite"
    bad = [name for name, is_good in zip(ids, _finite_chips(batch), strict=True) if not is_good]
    if bad:
        return GeoP2PError(
            f"{found}: the inputs came first, chip {', '.join(bad)} holds values that are not finite; tile again with "
            "a mask over them"
        )
    lower = f"lower --lr (now {config.lr}){', use --precision fp32' if bf16 else ''}"
    if set(first) <= OF_DISCRIMINATOR | AFTER_DISCRIMINATOR:
        when = "before" if set(first) & OF_DISCRIMINATOR else "itself"
        cause = f"the discriminator's weights broke first, in the step {when}"
        advice = f"{lower} or --set discriminator_lr=0.5, or where it is off --set spectral_norm=true, {again}"
    elif at == 1:
        cause = "with the weights it began with, so the loss itself overflows"
        advice = f"{lower} or the weights of the losses, {again}"
    else:
        cause = "the generator's weights broke in the step before"
        advice = f"{lower}, {again}"
    return GeoP2PError(f"{found}, its chips are finite: {cause}; {advice}")


def explain_weights(run: Path, broken: list[str], step: int, config: TrainConfig) -> GeoP2PError:
    """The error for weights that are not finite after a step whose losses were."""
    return GeoP2PError(
        f"{run}: the weights of the {' and the '.join(broken)} are not finite after step {step}, the losses before "
        f"were; lower --lr (now {config.lr}) and repeat with --overwrite"
    )


def explaining_memory(batch_size: int, config: TrainConfig) -> AbstractContextManager[None]:
    """Say what to try when memory is not enough.

    Raises:
        GeoP2PError: Memory was not enough.
    """
    hint = f"try --batch-size {batch_size // 2}"
    if batch_size == 1:
        hint = f"try --width {max(1, config.width // 2)}, or tile with a smaller --size"
    told = f"out of memory with {batch_size} chips a step and width {config.width}; {hint}"
    return telling_when_full(GeoP2PError(told))


def _finite_chips(batch: Batch) -> list[bool]:
    def chip(one: Tensor) -> Tensor:
        return torch.isfinite(one).flatten(1).all(dim=1)

    return [bool(good) for good in chip(batch.source) & chip(batch.target)]
