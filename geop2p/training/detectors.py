"""What goes wrong in silence: outputs that ignore the source or repeat it, and a discriminator without a task."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geop2p.training.data import Batch, ChipArrays, batches
from geop2p.training.distributed import without_sync_norms
from geop2p.training.feeding import encode_batch
from geop2p.training.history import History
from geop2p.training.objectives import fill, patch_weights
from geop2p.training.recipes import Recipe
from geop2p.training.validation import translate_chips
from geop2p.translator import Translator

CHIPS = 16  # looked at after an epoch
COLLAPSED = 0.01  # share of the truth's variance over chips below which outputs are one picture
COPIED = 0.98  # correlation with the source from which on an output repeats it
OWN_LIKENESS = 0.1  # by which the truth must be less like its source than a copy is
SURE = 0.99  # share of right answers from which on a discriminator learns nothing more, and nobody from it
EPOCHS, EPOCHS_OF_JUDGE = 3, 10  # in a row before a warning

Checks = dict[str, float | None]


def check_outputs(translator: Translator, discriminator: nn.Module | None, recipe: Recipe, chips: ChipArrays) -> Checks:
    """Figures of a translator on some chips, spread over all of them.

    Args:
        translator: As it would be kept.
        discriminator: Its opponent; it is left as it is.
        recipe: Batch size, and what the discriminator sees.
        chips: Validation chips, or training chips without any.

    Returns:
        `variation`: variance of the encoded output over chips, as a share of the truth's; `likeness`: correlation of
        output and source, means of their bands; `true_likeness`: that of truth and source; `right_real` and
        `right_fake`: shares of the discriminator's answers that are right. None where a figure has no meaning: with a
        single chip, a map of classes, or no discriminator.
    """
    source, target = translator.card.source, translator.card.target
    some = np.unique(np.linspace(0, len(chips) - 1, CHIPS).astype(np.int64))
    seen: list[Batch] = []
    fakes: list[Tensor] = []
    for rows in batches(some, recipe.batch_size):
        batch = encode_batch(chips, rows, source, target)
        seen.append(batch)
        fakes.append(translate_chips(translator, batch.source, rows).cpu())
    fake, valid = torch.cat(fakes), torch.cat([batch.valid for batch in seen])
    sources, real = torch.cat([batch.source for batch in seen]), torch.cat([batch.target for batch in seen])
    checks: Checks = {"variation": variation(fake, real, valid), "likeness": None, "true_likeness": None}
    if not source.is_classes and not target.is_classes:
        checks |= {"likeness": correlation(fake, sources, valid), "true_likeness": correlation(real, sources, valid)}
    checks |= {"right_real": None, "right_fake": None}
    if discriminator is not None:
        judge = without_sync_norms(discriminator).train()  # as it answers in training; its own state must not move
        middle = 0.5 if recipe.adversarial == "lsgan" else 0.0
        pairs = zip(seen, fakes, strict=True)
        answers = [_right_answers(judge, batch, fill(made, batch.valid), recipe, middle) for batch, made in pairs]
        rights = [one for one in answers if one is not None]
        checks |= {"right_real": _mean([one[0] for one in rights]), "right_fake": _mean([one[1] for one in rights])}
    return checks


def variation(fake: Tensor, real: Tensor, valid: Tensor) -> float | None:
    """Variance over chips (the first axis) at valid pixels, as a share of the truth's; None if that has none."""
    count = valid.sum(dim=0)
    several = (count > 1).expand(fake.shape[1:])

    def spread(images: Tensor) -> float:
        mean = (images * valid).sum(dim=0) / count.clamp(min=1)
        variance = ((images - mean) ** 2 * valid).sum(dim=0) / count.clamp(min=1)
        return float(variance[several].double().mean()) if several.any() else 0.0

    truth = spread(real)
    return spread(fake) / truth if truth > 0 else None


def correlation(one: Tensor, other: Tensor, valid: Tensor) -> float | None:
    """Pearson's, of the mean over bands at valid pixels; None where a side is constant."""
    inside = valid[:, 0] > 0
    first, second = (side.double().mean(dim=1)[inside] for side in (one, other))
    if len(first) < 2 or not first.std() or not second.std():
        return None
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


def _right_answers(
    judge: nn.Module, batch: Batch, fake: Tensor, recipe: Recipe, middle: float
) -> tuple[float, float] | None:
    """Shares of right answers to real and to fake images, mean over scales, each patch weighed by its valid ground.

    Where there is none, real and fake are the same; None without any.
    """
    device = next(judge.parameters()).device
    if not batch.valid.any():
        return None
    shares = []
    for image in (batch.target, fake):
        seen = torch.cat([batch.source, image], dim=1) if recipe.conditional else image
        with torch.no_grad():
            logits = [scale[-1].cpu() for scale in judge(seen.to(device))]
        weights = [patch_weights(batch.valid, one) for one in logits]
        found = [((one > middle) * weight).sum() / weight.sum() for one, weight in zip(logits, weights, strict=True)]
        shares.append(float(torch.stack(found).mean()))
    return shares[0], 1 - shares[1]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _is_collapsed(checks: Checks) -> bool:
    return checks["variation"] is not None and checks["variation"] < COLLAPSED


def _is_copy(checks: Checks) -> bool:
    likeness, own = checks["likeness"], checks["true_likeness"]
    return likeness is not None and likeness > COPIED and (own is None or own < likeness - OWN_LIKENESS)


def _judge_is_sure(checks: Checks) -> bool:
    rights = (checks["right_real"], checks["right_fake"])
    return all(right is not None and right > SURE for right in rights)


def _judge_is_wrong(checks: Checks) -> bool:
    rights = (checks["right_real"], checks["right_fake"])
    return all(right is not None and right < 1 - SURE for right in rights)


_DETECTORS: tuple[tuple[Callable[[Checks], bool], int, str], ...] = (
    (
        _is_collapsed,
        EPOCHS,
        "the output has been nearly the same for every chip for {epochs} epochs: the network ignores its source; lower "
        "--lr, raise pixel_weight, or check that source and target show the same ground",
    ),
    (
        _is_copy,
        EPOCHS,
        "the output has been nearly a copy of the source for {epochs} epochs, though the truth is not; raise "
        "pixel_weight or the width, or check that SOURCE and TARGET of the chips are not one layer",
    ),
    (
        _judge_is_sure,
        EPOCHS_OF_JUDGE,
        "the discriminator has told real from fake without fail for {epochs} epochs: the generator learns little from "
        "it; try --set discriminator_lr=0.5, a smaller patch or, where it is off, --set spectral_norm=true",
    ),
    (
        _judge_is_wrong,
        EPOCHS_OF_JUDGE,
        "the discriminator has been wrong about real and fake for {epochs} epochs: it is not learning; raise "
        "discriminator_lr, or lower the weights of the losses beside it",
    ),
)


def warnings_now(history: History) -> list[str]:
    """What the last epoch completes: each warning comes once, when its state has lasted long enough."""
    found = []
    for is_so, epochs, text in _DETECTORS:
        lasted = sum(1 for _ in itertools.takewhile(lambda entry: is_so(entry["checks"]), reversed(history)))  # noqa: B023
        if lasted == epochs:
            found.append(text.format(epochs=epochs))
    return found


def all_warnings(history: History) -> list[dict[str, Any]]:
    """Every warning of a training, with its epoch."""
    return [
        {"epoch": history[end - 1]["epoch"], "text": text}
        for end in range(1, len(history) + 1)
        for text in warnings_now(history[:end])
    ]
