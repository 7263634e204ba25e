"""`train`: fit a generator to a chip set."""

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geop2p.config import TrainConfig
from geop2p.config.fields import config_or_default
from geop2p.errors import ChipSetError, OutputError
from geop2p.metrics import error_unit
from geop2p.tiling.chips import ChipSet
from geop2p.training.board import check_board
from geop2p.training.checkpoint import chips_digest
from geop2p.training.diagnosis import explaining_memory
from geop2p.training.distributed import World, joined
from geop2p.training.exclusive import exclusive_training
from geop2p.training.loop import Training
from geop2p.training.networks import Networks, build_networks
from geop2p.training.recipes import recipe_of
from geop2p.training.run_folder import VALUES, check_settings, claim_run, known_start, lock_run, look_at, make_room
from geop2p.training.run_writer import score_to_keep
from geop2p.translator import model_file


@dataclass(frozen=True)
class TrainResult:
    """What a training made.

    Attributes:
        path: Folder of the run.
        steps: Optimisation steps done in all.
        seconds: Time of all calls for this run, validation included.
        images_per_s: Training chips a second of this call, validation and reading left out; None if none ran.
        best: Metric, value and epoch of the best validation, and the file that holds it where `best_by` keeps it; None
            without validation chips.
        unit: Of L1 and RMSE; None for a map as the target.
    """

    path: str
    steps: int
    seconds: float
    images_per_s: float | None
    best: dict[str, Any] | None
    unit: str | None


def train(
    chips: str | Path,
    run: str | Path,
    config: TrainConfig | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> TrainResult:
    """Train a translator on a chip set; repeated, it continues an interrupted run.

    Called in every process that torchrun starts, it trains on all of them; the first one writes. Threads of one process
    train one after the other.

    Args:
        chips: Folder of the chip set.
        run: Folder of the run: config, metrics, samples, checkpoint and `model.safetensors`.
        config: Settings.
        overwrite: Begin again if the run exists; what is not of it stays in the folder.
        progress: Show a progress bar.

    Raises:
        ChipSetError: The chip set is missing, damaged or has no training chips.
        ConfigError: The settings do not fit the chips or the run.
        CheckpointError: The run's checkpoint is damaged or gone, the folder is something else, or another process
            trains there.
        OutputError: The run cannot be written.
        GeoP2PError: The losses are no longer finite, or memory is not enough.
    """
    config, run = config_or_default(config, TrainConfig), Path(run)
    chipset = ChipSet.open(chips)
    if not chipset.counts["train"]:
        raise ChipSetError(f"{chips}: has no training chips; tile with another --split")
    score_to_keep(chipset, config)
    if config.tensorboard:
        check_board()
    with exclusive_training(), joined(config.device) as world, ExitStack() as stack:
        world.check_enough(recipe_of(config).batch_size)
        world.lead(lambda: stack.enter_context(lock_run(run)))
        stack.enter_context(explaining_memory(recipe_of(config).batch_size, config))
        return _train(chipset, run, config, overwrite, progress, world)


def _train(
    chipset: ChipSet, run: Path, config: TrainConfig, overwrite: bool, progress: bool, world: World
) -> TrainResult:
    found = world.lead(lambda: look_at(run, overwrite))
    start = config.init_from if found.is_replaced else None
    if start is not None and model_file(start).parent.resolve() == run.resolve():
        raise OutputError(f"{run}: --init-from reads the model of the run that --overwrite replaces; give a new RUN")
    # refuses what does not fit before the run begins
    networks = build_networks(chipset, config, known_start(found, config.init_from))
    settings = _settings(chipset, networks, config)
    check_settings(run, found, settings)
    if not found.is_replaced:
        world.lead(lambda: claim_run(run, settings))
    training = Training(chipset, networks, run, config, progress, world)
    if found.is_replaced:  # only now that all chips are read
        world.lead(lambda: make_room(run, training.cache))
        world.lead(lambda: claim_run(run, settings))
    training.restore()
    training.run()
    return TrainResult(
        path=str(run),
        steps=training.step,
        seconds=round(training.seconds, 1),
        images_per_s=round(training.images / training.busy, 2) if training.busy else None,
        best=training.writer.best(),
        unit=error_unit(chipset.target),
    )


def _settings(chipset: ChipSet, networks: Networks, config: TrainConfig) -> dict[str, Any]:
    """What decides the weights, as `config.json` holds it."""
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    settings["set"] = list(config.set)  # as JSON gives it back
    settings["init_from"] = networks.card.provenance.get("init_from")
    settings[VALUES] = networks.card.provenance[VALUES]
    return settings | {"chips": chips_digest(chipset.folder)}
