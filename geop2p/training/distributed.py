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
from geop2p.training.calibration import batch_norms
from geop2p.training.data import Indices
from geop2p.translator import resolve_device

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
    if _size() == 1 or device.type != "cuda" or batch_size // _size() >= SMALL or not batch_norms(network):
        return network
    result: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return result


def alone(network: nn.Module) -> nn.Module:
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
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters:
        return DistributedDataParallel(network, forward_sync_buffers=False)
    return DistributedDataParallel(network, broadcast_buffers=False)  # its name before torch 2.15


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
