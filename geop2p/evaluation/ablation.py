"""The tables of the pix2pix paper (Isola et al., CVPR 2017, sections 4.2 to 4.4) as trainings on a chip set."""

from pathlib import Path
from typing import get_args

from geop2p.config import Ablation, CompareConfig, LossPreset, TrainConfig
from geop2p.errors import ConfigError
from geop2p.tiling.chips import ChipSet
from geop2p.training.networks import build_networks
from geop2p.training.trainer import train

# row: the loss preset, and what is set of the recipe
ROWS: dict[Ablation, dict[str, tuple[LossPreset, tuple[str, ...]]]] = {
    "losses": {name: (name, ()) for name in get_args(LossPreset)},
    "generators": {
        "encoder-decoder, l1": ("l1", ("skips=false",)),
        "encoder-decoder, l1+cgan": ("l1+cgan", ("skips=false",)),
        "u-net, l1": ("l1", ()),
        "u-net, l1+cgan": ("l1+cgan", ()),
    },
    "patch": {f"patch {patch}": ("l1+cgan", (f"patch={patch}",)) for patch in (1, 16, 70, 286)},
}


def train_rows(
    chipset: ChipSet, folder: Path, config: CompareConfig, progress: bool = False
) -> tuple[dict[str, Path], list[str]]:
    """Train the rows of an ablation; those that are finished are not trained again, an interrupted one goes on.

    Args:
        chipset: What to train on.
        folder: For the runs, a folder a row.
        config: Which ablation, steps, width, seed and device.
        progress: Show progress bars.

    Returns:
        The run of each row, and what to say of rows that do not fit the chips.

    Raises:
        ConfigError: The target is a map of classes, no row fits, or the folder has runs with other settings.
    """
    assert config.ablation is not None
    if chipset.target.is_classes:
        raise ConfigError(
            f"{chipset.folder}: an ablation is for imagery, the target is a map, which is trained by cross entropy"
        )
    settings = {
        name: TrainConfig(
            recipe="pix2pix",
            loss=loss,
            set=changes,
            steps=config.steps,
            width=config.width,
            seed=config.seed,
            device=config.device,
        )
        for name, (loss, changes) in ROWS[config.ablation].items()
    }
    left_out = dict[str, str]()
    for name, wanted in settings.items():
        try:
            build_networks(chipset, wanted)
        except ConfigError as error:
            left_out[name] = f"Left out: {name} ({error})."
    if len(left_out) == len(settings):
        raise ConfigError(f"{chipset.folder}: no row of the ablation fits: {next(iter(left_out.values()))}")
    fitting = [name for name in settings if name not in left_out]
    runs = {name: folder / name.replace(", ", "_").replace(" ", "_") for name in fitting}
    for name, run in runs.items():
        train(chipset.folder, run, settings[name], progress=progress)
    return runs, list(left_out.values())
