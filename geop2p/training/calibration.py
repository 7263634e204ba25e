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
    """Replace the statistics of the batch norms by the mean over batches; dropout stays off.

    Args:
        network: Generator; it is in evaluation mode afterwards.
        sources: Batches (batch, channels, rows, cols) on its device, at least one; each weighs the same.
    """
    network.eval()
    norms = batch_norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    with torch.no_grad():
        for source in sources:
            network(source)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
