"""`find_lr`: the learning-rate range test (Smith, "Cyclical Learning Rates", WACV 2017, arXiv 1506.01186, 3.3)."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from geop2p.config import TrainConfig
from geop2p.config.fields import config_or_default
from geop2p.errors import ChipSetError, ConfigError, GeoP2PError
from geop2p.raster.atomic import check_new, replacing
from geop2p.tiling.chips import ChipSet
from geop2p.training.augmentation import augmentation_of
from geop2p.training.data import Batch, ChipArrays, batches, epoch_order
from geop2p.training.diagnosis import explaining_memory
from geop2p.training.exclusive import exclusive_training
from geop2p.training.feeding import Feed
from geop2p.training.networks import build_networks, check_norms
from geop2p.training.recipes import recipe_of
from geop2p.training.step import TrainingStep

LOWEST, DECADES = 1e-6, 6
HIGHEST = 10.0**DECADES * LOWEST
STEPS = 120
SMOOTHING = 0.9  # of the running mean of the loss that is drawn
DIVERGED = 4.0  # times the smallest loss: the test ends
FALL = 3.0  # times its standard error that a loss has to fall
LEARNT_BY = ("cross_entropy", "l1", "charbonnier", "perceptual", "lpips", "gan")  # the first of these is drawn
INK, MARK, LINE = (28, 35, 38), (31, 111, 92), (228, 232, 233)
SIZE, MARGIN = (900, 520), (90, 50, 40, 70)  # pixels; left, top, right, bottom


@dataclass(frozen=True)
class RateTest:
    """What a range test found.

    Attributes:
        path: Picture of the curve.
        suggestion: Learning rate at which the loss falls fastest; None if it does not fall.
        loss: Name of the loss.
        rates: Learning rate of each step.
        losses: Its loss, smoothed.
    """

    path: str
    suggestion: float | None
    loss: str
    rates: list[float]
    losses: list[float]


def find_lr(
    chips: str | Path,
    picture: str | Path,
    config: TrainConfig | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> RateTest:
    """Raise the learning rate from step to step until the loss leaves, and draw the curve; nothing is kept of it.

    Args:
        chips: Folder of the chip set.
        picture: PNG to write.
        config: Settings of the training that the rate is for; its own rate is not used.
        overwrite: Replace the picture.
        progress: Show a progress bar.

    Raises:
        ChipSetError: The chip set is missing, damaged or has no training chips.
        ConfigError: The settings do not fit the chips, or the picture is no PNG.
        OutputError: The picture exists.
        GeoP2PError: The loss is not finite from the beginning, or memory is not enough.
    """
    config, picture = config_or_default(config, TrainConfig), Path(picture)
    if picture.suffix.lower() != ".png":
        raise ConfigError(f"{picture}: the curve is drawn as a PNG; give a name that ends in .png")
    check_new(picture, overwrite)
    chipset = ChipSet.open(chips)
    if not chipset.counts["train"]:
        raise ChipSetError(f"{chips}: has no training chips; tile with another --split")
    recipe = recipe_of(config, chipset.target)
    length = dataclasses.replace(config, epochs=TrainConfig.epochs, steps=STEPS)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    name, mean, first = "", 0.0, STEPS // DECADES
    with exclusive_training(), explaining_memory(recipe.batch_size, config):
        networks = build_networks(chipset, length)
        arrays = ChipArrays.load(chipset, "train", progress, config.skip_bad)
        if len(arrays) < chipset.counts["train"]:  # the others could not be read
            check_norms(chipset, length, networks.generator, networks.device, len(arrays))
        feed = Feed(
            arrays, chipset.source, chipset.target, networks.device, augmentation_of(chipset, recipe, config.seed)
        )
        update = TrainingStep(networks, recipe, config, total=10 * STEPS)  # the rate's own decay stays out of it
        update.generator.train()
        stream = _batches(feed, arrays, recipe.batch_size, config)
        bar = tqdm(np.geomspace(LOWEST, HIGHEST, STEPS).tolist(), desc="find lr", unit="step", disable=not progress)
        for step, (rate, batch) in enumerate(zip(bar, stream, strict=False)):
            update.rates = {"optimizer_g": rate, "optimizer_d": rate * recipe.discriminator_lr}
            found = update(batch, step)
            name = name or next(known for known in LEARNT_BY if known in found)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * float(found[name])
            shown = mean / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(shown) or (step > first and shown > DIVERGED * min(smoothed[first:])):
                break
            rates.append(rate)
            losses.append(float(found[name]))
            smoothed.append(shown)
    if not losses:
        raise GeoP2PError(f"{chips}: the loss {name} is not finite at the smallest rate, {LOWEST}; see the recipe")
    suggestion = steepest(rates, losses)
    draw_curve(picture, rates, smoothed, name, suggestion)
    return RateTest(str(picture), suggestion, name, rates, smoothed)


def steepest(rates: list[float], losses: list[float]) -> float | None:
    """The rate at which a loss falls fastest over the rate's logarithm, before its minimum.

    Slopes are those of lines through the losses of a decade of rates: what one batch has less than the next says
    nothing of the rate. The first decade is left out, in which nothing is learnt yet.

    Args:
        rates: Of the steps, in equal ratios.
        losses: Of the steps, as they were, not smoothed.

    Returns:
        The middle of the steepest decade; None if the loss does not fall by more than its noise.
    """
    if len(rates) < 2:
        return None
    decade = max(2, round(1 / math.log10(rates[1] / rates[0])))
    late, where = np.array(losses[decade:]), np.log10(rates[decade:])
    if len(late) < 2 * decade:
        return None
    ramp = np.arange(decade) - (decade - 1) / 2
    slopes, means = np.correlate(late, ramp), np.correlate(late, np.full(decade, 1 / decade))
    lowest = int(np.argmin(means))
    noise = np.median(np.abs(np.diff(late))) / 0.95  # of normal errors: the standard deviation of one
    if lowest == 0 or means[0] - means[lowest] <= FALL * noise * math.sqrt(2 / decade):
        return None
    best = int(np.argmin(slopes[: lowest + 1]))
    return float(f"{10 ** where[best : best + decade].mean():.2g}")


def draw_curve(path: Path, rates: list[float], losses: list[float], name: str, suggestion: float | None) -> None:
    """Save the loss over the rate as a PNG."""
    image = Image.new("RGB", SIZE, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    left, top, right, bottom = MARGIN
    width, height = SIZE[0] - left - right, SIZE[1] - top - bottom
    low, high = min(losses), max(losses)

    def place(rate: float, loss: float) -> tuple[float, float]:
        across = math.log(rate / LOWEST) / math.log(HIGHEST / LOWEST)
        return left + across * width, top + height * (1 - (loss - low) / ((high - low) or 1))

    for power in range(round(math.log10(LOWEST)), round(math.log10(HIGHEST)) + 1):
        x = place(10.0**power, low)[0]
        draw.line((x, top, x, top + height), fill=LINE)
        draw.text((x, top + height + 8), f"1e{power}" if power else "1", fill=INK, font=font, anchor="ma")
    for loss in np.linspace(low, high, 5).tolist():
        y = place(LOWEST, loss)[1]
        draw.line((left, y, left + width, y), fill=LINE)
        draw.text((left - 8, y), f"{loss:.3g}", fill=INK, font=font, anchor="rm")
    draw.line([place(rate, loss) for rate, loss in zip(rates, losses, strict=True)], fill=MARK, width=3, joint="curve")
    if suggestion is not None:
        x = place(suggestion, low)[0]
        draw.line((x, top, x, top + height), fill=INK, width=2)
        draw.text((x + 8, top + 4), f"suggestion {suggestion:g}", fill=INK, font=font)
    draw.text((left, top - 30), f"loss {name}, smoothed", fill=INK, font=font)
    draw.text((left + width, SIZE[1] - 26), "learning rate", fill=INK, font=font, anchor="ra")
    with replacing(path) as temporary:
        image.save(temporary)


def _batches(feed: Feed, arrays: ChipArrays, size: int, config: TrainConfig) -> Iterator[Batch]:
    """Batches of one epoch after another."""
    epoch, weights = 0, arrays.weights if config.balance else None
    while True:
        order = epoch_order(config.seed, epoch, len(arrays), weights)
        yield from feed.stream(((order[places], places) for places in batches(np.arange(len(order)), size)), epoch)
        epoch += 1
