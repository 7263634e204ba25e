"""The end of an epoch: the network is scored, drawn, logged and kept."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geop2p.tiling.chips import ChipSet
from geop2p.training.calibration import batch_norms, estimate_statistics
from geop2p.training.data import ChipArrays
from geop2p.training.feeding import encode_batch
from geop2p.training.history import append_metrics
from geop2p.training.networks import Networks
from geop2p.training.recipes import Recipe
from geop2p.training.validation import Scores, validate, write_samples
from geop2p.translator import FILE_NAME, Translator

SAMPLE_TIMES = 40  # sample pictures a training leaves at most
STATISTICS_BATCH = 8  # chips whose variance is taken together


class Keeper:
    """Writes into the folder of a run; of several processes one has it.

    Args:
        folder: Of the run.
        chipset: What is trained on.
        chips: Its training chips.
        validation: Its validation chips.
        networks: For their card and device.
        recipe: Batch size and chips for batch-norm statistics.
    """

    def __init__(
        self,
        folder: Path,
        chipset: ChipSet,
        chips: ChipArrays,
        validation: ChipArrays,
        networks: Networks,
        recipe: Recipe,
    ) -> None:
        self.folder, self.chipset, self.chips, self.validation = folder, chipset, chips, validation
        self.card, self.device, self.recipe = networks.card, networks.device, recipe

    def translator(self, generator: torch.nn.Module, step: int, total: int) -> Translator:
        """The generator as it predicts: batch-norm statistics estimated anew, and a card that tells the step."""
        if batch_norms(generator):
            estimate_statistics(generator, self._some_sources())
        counts = {"train_chips": len(self.chips), "steps": step, "of_steps": total}
        card = dataclasses.replace(self.card, provenance=self.card.provenance | counts)
        return Translator(generator, card)

    def score(self, translator: Translator) -> Scores | None:
        """Validation scores; None without validation chips."""
        if not len(self.validation):
            return None
        return validate(translator, self.validation, self.recipe.batch_size)

    def draw(self, translator: Translator, epoch: int, epochs: int, is_last: bool) -> None:
        """Save a sample picture, at most `SAMPLE_TIMES` in a training."""
        if epoch % math.ceil(epochs / SAMPLE_TIMES) == 0 or is_last:
            chips = self.validation if len(self.validation) else self.chips
            write_samples(self.folder / "samples" / f"epoch_{epoch:04d}.png", translator, chips)

    def keep(self, translator: Translator, entry: dict[str, object]) -> None:
        """Log a line of metrics and save the model."""
        append_metrics(self.folder, entry)
        translator.save(self.folder / FILE_NAME)

    def _some_sources(self) -> Iterator[Tensor]:
        """Chips as they are, spread over the training ground, in batches of nearly one size."""
        count = min(self.recipe.statistics_chips, len(self.chips))
        rows = np.linspace(0, len(self.chips) - 1, count).round().astype(np.int64)
        for some in np.array_split(rows, math.ceil(count / STATISTICS_BATCH)):
            yield encode_batch(self.chips, some, self.chipset.source, self.chipset.target).to(self.device).source
