"""Chips that a page shows as examples."""

import numpy as np
import numpy.typing as npt

from geop2p.evaluation.report import Strip, even_ranks
from geop2p.evaluation.scored_chips import ScoredChips
from geop2p.evaluation.scoring import Predict
from geop2p.raster.rendering import render


def ranked_rows(ground: ScoredChips, errors: npt.NDArray[np.float64]) -> list[tuple[int, str]]:
    """Chips from the best to the worst by their mean error, at even ranks, each with what to say of it."""
    order = ground.rows[np.argsort(errors[ground.rows], kind="stable")]
    found = []
    for rank, name in even_ranks(len(order)):
        row = int(order[rank])
        found.append((row, f"{ground.arrays.ids[row]}: mean error {errors[row]:.3g}, {name}"))
    return found


def place_strip(ground: ScoredChips, row: int, caption: str, predictors: dict[str, Predict]) -> Strip:
    """Source and truth of a chip beside what each predictor makes of it."""
    arrays, valid = ground.arrays, ground.arrays.valid[row]
    pictures = {"source": render(arrays.source[row], valid, ground.source)}
    made = {name: predict(np.array([row]))[0] for name, predict in predictors.items()}
    pictures |= {name: render(values, valid, ground.target) for name, values in made.items()}
    return Strip(caption, pictures | {"truth": render(arrays.target[row], valid, ground.target)})
