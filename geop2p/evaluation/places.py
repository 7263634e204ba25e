"""Chips that a page shows, and whether they are chips that a model can be scored on."""

import numpy as np
import numpy.typing as npt

from geop2p.errors import ChipSetError
from geop2p.evaluation.ground import Ground
from geop2p.evaluation.report import Strip, even_ranks
from geop2p.evaluation.scoring import Predict
from geop2p.raster.agreement import difference
from geop2p.raster.encoding import Encoding
from geop2p.raster.render import render
from geop2p.tiling.chips import ChipSet
from geop2p.translator import Card


def ranked_rows(ground: Ground, errors: npt.NDArray[np.float64]) -> list[tuple[int, str]]:
    """Chips from the best to the worst by their mean error, at even ranks, each with what to say of it."""
    order = ground.rows[np.argsort(errors[ground.rows], kind="stable")]
    found = []
    for rank, name in even_ranks(len(order)):
        row = int(order[rank])
        found.append((row, f"{ground.arrays.ids[row]}: mean error {errors[row]:.3g}, {name}"))
    return found


def place_strip(ground: Ground, row: int, caption: str, makers: dict[str, Predict]) -> Strip:
    """Source and truth of a chip beside what makers predict for it."""
    arrays, valid = ground.arrays, ground.arrays.valid[row]
    pictures = {"source": render(arrays.source[row], valid, ground.source)}
    made = {name: predict(np.array([row]))[0] for name, predict in makers.items()}
    pictures |= {name: render(values, valid, ground.target) for name, values in made.items()}
    return Strip(caption, pictures | {"truth": render(arrays.target[row], valid, ground.target)})


def check_same_sides(card: Card, chipset: ChipSet) -> None:
    """Refuse chips that hold something else than the model's.

    Raises:
        ChipSetError: They do.
    """
    for side in ("source", "target"):
        trained: Encoding = getattr(card, side)
        found: Encoding = getattr(chipset, side)
        if (trained.kind, len(trained.bands)) != (found.kind, len(found.bands)):
            raise ChipSetError(
                f"{chipset.folder}: {side} is {found.kind} with {len(found.bands)} bands, the model was trained on "
                f"{trained.kind} with {len(trained.bands)}"
            )
        if (apart := difference(found, trained)) is not None:
            raise ChipSetError(f"{chipset.folder}: {side}: {apart} as in the model's training; give other chips")
