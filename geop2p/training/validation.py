"""A translator on chips: predictions, scores and sample pictures."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from geop2p.errors import ChipSetError
from geop2p.metrics import scores_for
from geop2p.models.positional_noise import on_ground_of_its_own
from geop2p.raster.atomic import replacing
from geop2p.raster.encoding import Array, Encoding
from geop2p.raster.rendering import render
from geop2p.training.data import ChipArrays, Indices, batches
from geop2p.training.feeding import encode_batch
from geop2p.translator import Translator

SAMPLES = 6  # chips shown in a sample picture
FRAME = 2  # white pixels around each picture of it
SCORERS = 4  # threads that score chips

Scores = dict[str, Any]
Sums = dict[str, npt.NDArray[np.float64]]


def validate(translator: Translator, chips: ChipArrays, batch_size: int, scored: Encoding) -> Scores:
    """Scores of a translator on chips, in the target's units.

    Args:
        translator: It.
        chips: They.
        batch_size: Chips at once.
        scored: The target's encoding with the classes that the translator cannot know: their ground is wrong.

    Raises:
        ChipSetError: A valid pixel of a chip is not finite, so that nothing can be said of it.
    """
    total = scores_for(scored)

    def score(row: int, predicted: Array) -> Sums:
        one = scores_for(scored)
        one.add(predicted, chips.target[row], chips.valid[row])
        return one.sums

    def take_in(sums: Sums) -> None:
        for name, values in sums.items():
            total.sums[name] += values

    waiting = deque[Future[Sums]]()
    with ThreadPoolExecutor(SCORERS) as pool:  # while the network makes the next ones
        for rows in batches(np.arange(len(chips)), batch_size):
            for row in rows:
                _check_finite(chips, row)
            for row, predicted in zip(rows, predict_chips(translator, chips, rows), strict=True):
                waiting.append(pool.submit(score, row, predicted))
            while len(waiting) > 2 * SCORERS:
                take_in(waiting.popleft().result())
        for future in waiting:  # in the order of the chips, so that sums are the same to the bit
            take_in(future.result())
    return total.result()


def _check_finite(chips: ChipArrays, row: int) -> None:
    for side, values in (("source", chips.source[row]), ("target", chips.target[row])):
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values[:, chips.valid[row]]).all():
            raise ChipSetError(
                f"validation chip {chips.ids[row]} holds values of the {side} that are not finite in valid pixels; "
                "tile again with a mask over them"
            )


def predict_chips(translator: Translator, chips: ChipArrays, rows: Indices) -> list[Array]:
    """Stored target values (bands, rows, cols) that a translator predicts for some chips."""
    batch = encode_batch(chips, rows, translator.card.source, translator.card.target)
    output = translate_chips(translator, batch.source, rows).cpu().numpy()
    return [translator.card.target.decode(one) for one in output]


def translate_chips(translator: Translator, sources: Tensor, rows: Indices) -> Tensor:
    """What a translator makes of encoded chips (batch, channels, rows, cols), each with noise of its own if any.

    Args:
        translator: It.
        sources: The chips.
        rows: Their numbers in the split.
    """
    return translator.translate(on_ground_of_its_own(sources, rows.tolist(), translator.card.noise))


def write_samples(path: Path, translator: Translator, chips: ChipArrays) -> None:
    """Save source, prediction and truth of some chips side by side as a PNG."""
    shown = np.unique(np.linspace(0, len(chips) - 1, SAMPLES).astype(np.int64))
    source, target = translator.card.source, translator.card.target
    rows = []
    for row, predicted in zip(shown, predict_chips(translator, chips, shown), strict=True):
        sides = ((chips.source[row], source), (predicted, target), (chips.target[row], target))
        pictures = [render(values, chips.valid[row], encoding) for values, encoding in sides]
        frame = ((FRAME, FRAME), (FRAME, FRAME), (0, 0))
        framed = [np.pad(picture, frame, constant_values=255) for picture in pictures]
        rows.append(np.concatenate(framed, axis=1))
    with replacing(path) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary)
