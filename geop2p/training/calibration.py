"""Batch-norm statistics estimated anew over training chips, so that prediction sees what training saw.

The running mean that training keeps lags behind the weights, and with one chip a step it averages over what single
chips normalised themselves by (Wu & Johnson, "Rethinking Batch in BatchNorm", arXiv 2105.07576, section 3).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch norms of a network that keep statistics for prediction."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def estimate_statistics(network: nn.Module, sources: Iterable[Tensor]) -> None:
    """Replace the statistics of the batch norms by those of all batches together; dropout stays off.

    A layer's variance is that of its whole input: the mean of the batches' variances leaves out how far their means
    lie apart.

    Args:
        network: Generator; it is in evaluation mode afterwards.
        sources: Batches (batch, channels, rows, cols) on its device, at least one.
    """
    network.eval()
    pools = {norm: _Pool(norm) for norm in batch_norms(network)}
    for norm in pools:
        norm.reset_running_stats()
        norm.train()
    handles = [norm.register_forward_pre_hook(pool) for norm, pool in pools.items()]
    try:
        with torch.no_grad():
            for source in sources:
                network(source)
    finally:
        for handle in handles:
            handle.remove()
    for pool in pools.values():
        pool.fill()
    network.eval()


class _Pool:
    """Moments of all that a batch norm sees.

    Args:
        norm: Whose statistics they become.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        self._norm, self._count = norm, 0
        self._mean = self._square = torch.zeros((), dtype=torch.float64)  # sums, which grow to (channels)

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].float().transpose(0, 1).flatten(1)
        variance, mean = (one.double() for one in torch.stack(torch.var_mean(values, dim=1, correction=0)).cpu())
        count = values.shape[1]
        self._count += count
        self._mean = self._mean + count * mean
        self._square = self._square + count * (variance + mean.square())

    def fill(self) -> None:
        """Give the norm its statistics; the variance is the unbiased one, as torch keeps it.

        A norm that the network has but never calls, as some encoders do, keeps mean 0 and variance 1.
        """
        if not self._count:
            return
        mean = self._mean / self._count
        variance = (self._square / self._count - mean.square()).clamp_(min=0) * self._count / max(1, self._count - 1)
        for kept, found in ((self._norm.running_mean, mean), (self._norm.running_var, variance)):
            assert kept is not None
            kept.copy_(found)
