"""One training by several processes, as torchrun starts them: one a GPU, or several on a CPU.

Every process takes its share of each batch. What a loss divides by is counted over all of them, so that the mean of
their gradients, which `DistributedDataParallel` takes, is the gradient of the whole batch.
"""

import copy
import gc
import inspect
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from geop2p.config import Device
from geop2p.errors import ConfigError, GeoP2PError
from geop2p.models.hardware import resolve_device
from geop2p.models.smp import Smp
from geop2p.training.calibration import batch_norms
from geop2p.training.data import Indices

PATIENCE = timedelta(hours=12)  # that a process waits for another that validates; torchrun ends all when one fails
SMALL = 16  # chips a process below which batch norm takes its statistics over all processes

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """The processes of a training.

    Attributes:
        rank: Number of this one; 0 writes.
        size: How many they are.
        neighbours: How many of them run on this machine.
    """

    rank: int = 0
    size: int = 1
    neighbours: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def part(self, places: Indices) -> Indices:
        """This process's share of a batch; a chip of another's where there are too few, to be blinded."""
        mine = np.array_split(places, self.size)[self.rank]
        return mine if len(mine) else places[:1]

    def is_idle(self, places: Indices) -> bool:
        """Whether a batch has no chip left for this process."""
        return len(places) <= self.rank

    def check_enough(self, batch_size: int) -> None:
        """Refuse more processes than chips in a step: those without would count in batch norms and do nothing.

        Raises:
            ConfigError: There are more processes than chips in a step.
        """
        if batch_size < self.size:
            raise ConfigError(
                f"batch_size is {batch_size}, but {self.size} processes train, each of which takes its share of a "
                f"step's chips; give --batch-size {self.size} or more, or torchrun fewer processes"
            )

    def known_to_all(self, value: int) -> list[int]:
        """What each process has, in the order of their ranks."""
        found: list[Any] = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(found, value)
        return found

    def lead(self, job: Callable[[], Result]) -> Result:
        """Do a job in the first process; the others wait for its result, or raise what it raised.

        Raises:
            GeoP2PError: As the job did.
        """
        if self.size == 1:
            return job()
        outcome: list[Any] = [None, None]
        failure: GeoP2PError | None = None
        if self.leads:
            try:
                outcome[0] = job()
            except GeoP2PError as error:
                failure = outcome[1] = error
        distributed.broadcast_object_list(outcome)
        if failure is not None:
            raise failure
        if outcome[1] is not None:
            raise outcome[1]
        result: Result = outcome[0]
        return result


@contextmanager
def joined(device: Device) -> Iterator[World]:
    """Join the other processes of this training, if torchrun started any.

    Raises:
        ConfigError: There are more processes than GPUs, or they cannot work together on the device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "MASTER_ADDR" not in os.environ:
        yield World()
        return
    kind, local = resolve_device(device).type, int(os.environ["LOCAL_RANK"])
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"device '{kind}' trains in one process; use --device cpu, or leave torchrun out")
    if kind == "cuda":
        if neighbours > torch.cuda.device_count():
            raise ConfigError(
                f"{neighbours} processes on {torch.cuda.device_count()} GPUs; give torchrun --nproc-per-node "
                f"{torch.cuda.device_count()}, or use --device cpu"
            )
        torch.cuda.set_device(local)  # what 'cuda' means from here on
    # a generator of a library has weights that it does not use, or not
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified", UserWarning)
    # single-channel convolutions have strides of their own choice, which cost nothing to speak of
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(distributed.get_rank(), size, neighbours)
    except BaseException:
        if kind == "cpu":  # NCCL would wait for the others, which end with this process
            distributed.destroy_process_group()
        raise
    gc.collect()  # wrapped networks are cycles that hold on to the group, which must not outlive its threads
    distributed.destroy_process_group()


def dropout_seed(seed: int, step: int) -> int:
    """A seed that is a function of the training's seed, the step and the process, so that runs resume."""
    rank = distributed.get_rank() if _size() > 1 else 0
    return ((seed << 32) + step + rank * 0x9E3779B97F4A7C15) % 2**63


def synchronised(network: nn.Module, batch_size: int, device: torch.device) -> nn.Module:
    """The network with batch norms over all processes, where a process has few chips; torch has it for GPUs only."""
    if not _is_synchronised(batch_size, device) or not batch_norms(network):
        return network
    result: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return result


def _is_synchronised(batch_size: int, device: torch.device) -> bool:
    return _size() > 1 and device.type == "cuda" and batch_size // _size() < SMALL


def seen_by_norms(chips: int, batch_size: int, device: torch.device) -> int:
    """How many chips of a batch a batch norm takes its statistics of at least: a process's share, or all.

    Args:
        chips: Of the batch, which may be the last of an epoch.
        batch_size: Of the others.
        device: Where the networks run.
    """
    return chips if _is_synchronised(batch_size, device) else max(1, chips // _size())


def without_sync_norms(network: nn.Module) -> nn.Module:
    """A copy of a network whose batch norms wait for no other process."""
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
    return twin


def wrapped(network: nn.Module) -> nn.Module:
    """The network as its training calls it: its gradients become the mean over all processes.

    Buffers need no broadcast: spectral norms follow the weights alone, batch norms are synchronised or estimated anew.
    """
    if _size() == 1:
        return network
    # some encoders hold weights that nothing is computed from; looking for them takes time at every step
    options: dict[str, Any] = {"find_unused_parameters": isinstance(network, Smp)}
    is_new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # from torch 2.15 on
    options["forward_sync_buffers" if is_new else "broadcast_buffers"] = False
    return DistributedDataParallel(network, **options)


def divisor(count: Tensor, least: float) -> Tensor:
    """What a loss divides a sum over its batch by.

    Args:
        count: Pixels, weights or chips of this process's share.
        least: Of the count over all processes.

    Returns:
        The count; of several processes, the mean of theirs.
    """
    return _total(count).clamp(min=least) / _size()


def summed(values: Tensor) -> Tensor:
    """Sums over the batches of all processes, with the gradient that the mean over them makes right."""
    if _size() == 1:
        return values
    return _total(values) + _size() * (values - values.detach())


def mean_over_all(values: Tensor) -> Tensor:
    """The mean over the processes, without gradient."""
    return _total(values) / _size()


def _total(values: Tensor) -> Tensor:
    if _size() == 1:
        return values
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total


def _size() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
