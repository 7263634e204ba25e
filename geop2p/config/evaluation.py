"""The settings of `evaluate` and `compare`."""

from dataclasses import dataclass, fields
from pathlib import Path

from geop2p.config.fields import (
    Ablation,
    Device,
    JudgeName,
    Split,
    at_least,
    changed,
    check_list,
    check_seed,
    documented,
    names,
    option,
    refuse_unused,
)
from geop2p.config.hints import coerce_fields
from geop2p.errors import ConfigError


@documented
@dataclass(frozen=True)
class ScoringConfig:
    """How models are scored on chips.

    Raises:
        ConfigError: A value is of another type or out of its range, or has no effect.
    """

    split: Split = option("test", "Chips to score a model on.")
    sample: int | None = option(None, "Chips to score, spread evenly over the split; none: all.")
    judge: JudgeName | None = option(
        None,
        "Network that learns to read the classes of the source in real imagery (or its values, where it is no map), "
        "then reads the generated imagery.",
    )
    judge_steps: int = option(
        300, "Training steps of the judge, 8 chips each; more steps make a better judge and take longer."
    )
    judge_folder: Path | None = option(
        None, "Folder of trained judges, used again for the same chips and settings; none: judges next to the report."
    )
    lpips_file: Path | None = option(None, "torchvision's weights of VGG-16, for LPIPS.")
    lpips_heads: Path | None = option(None, "Linear layers of LPIPS 0.1 for VGG, with --lpips-file.")
    inception_file: Path | None = option(None, "torch-fidelity's weights of Inception v3, for FID and KID (extra fid).")
    rgb: str | None = option(
        None, "Numbers of the bands that LPIPS, FID and KID take for red, green and blue, such as 3,2,1; none: by name."
    )
    batch_size: int = option(4, "Chips per pass through the network.")
    device: Device = option("auto", "Where the networks run; auto: a GPU if there is one.")

    def __post_init__(self) -> None:
        coerce_fields(self)
        for name in ("batch_size", "judge_steps"):
            at_least(name, getattr(self, name), 1)
        if self.sample is not None:
            at_least("sample", self.sample, 1)
        if (self.lpips_file is None) != (self.lpips_heads is None):
            raise ConfigError("lpips_file and lpips_heads go together: give both or neither")
        _ = self.rgb_bands
        everything = {field.name for field in fields(self)}
        if self.judge is None:
            refuse_unused(self, everything - {"judge_steps", "judge_folder"}, "without --judge")
        if self.lpips_file is None and self.inception_file is None:
            refuse_unused(self, everything - {"rgb"}, "without --lpips-file or --inception-file")

    @property
    def rgb_bands(self) -> tuple[int, ...] | None:
        """Numbers, from 1, of the bands that stand for red, green and blue; None: go by their names.

        Raises:
            ConfigError: `rgb` is not three such numbers.
        """
        if self.rgb is None:
            return None
        numbers = names(self.rgb)
        if len(numbers) != 3 or not all(number.isdecimal() and int(number) for number in numbers):
            raise ConfigError(f"rgb is '{self.rgb}', expected three numbers of bands such as 3,2,1")
        return tuple(int(number) for number in numbers)


@documented
@dataclass(frozen=True)
class EvaluateConfig(ScoringConfig):
    """How a model or a mosaic is scored.

    Raises:
        ConfigError: A value is of another type or out of its range.
    """

    mosaic: Path | None = option(None, "Mosaic of this model: shown in the report and measured for seams.")
    lattices: int = option(
        0,
        "Chips on whose ground corners over centre is measured in mosaics, too: each is predicted on 16 lattices, so "
        "that all of its pixels lie near a corner of a tile once.",
    )
    error_raster: Path | None = option(
        None, "GeoTIFF to write, with a QGIS style: the error of PREDICTION against REFERENCE at every pixel."
    )
    uncertainty: Path | None = option(
        None,
        "Raster that predict --uncertainty or --confidence made with PREDICTION: reports whether errors are where it "
        "expects them.",
    )
    strict: bool = option(False, "Refuse a REFERENCE on another grid than PREDICTION's instead of warping it.")
    ignore_class: str | None = option(
        None,
        "Classes of REFERENCE that mean unlabelled, by name or value, separated by commas: their ground is not scored; "
        "none: the unlabelled classes in the tags of a mosaic of geop2p.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_list("ignore_class", self.ignore_class)
        at_least("lattices", self.lattices, 0)

    @property
    def ignored_classes(self) -> list[str]:
        """Names or values of the classes that mean unlabelled."""
        return names(self.ignore_class)


@documented
@dataclass(frozen=True)
class CompareConfig(ScoringConfig):
    """How runs are compared.

    Raises:
        ConfigError: A value is of another type or out of its range.
    """

    chips: Path | None = option(
        None, "Chip set to score on; none: the one of the training, next to the runs or in the working folder."
    )
    ablation: Ablation | None = option(
        None,
        "Give one chip set for RUNS: the rows of a table of the pix2pix paper are trained on it and compared. losses: "
        "L1, GAN, cGAN and their sums; generators: with and without skips; patch: what one answer of the "
        "discriminator sees. Repeated, it continues where it was.",
    )
    steps: int = option(2000, "Steps that every row of an ablation is trained for.")
    width: int = option(64, "Channels of the first layer of the networks of an ablation.")
    seed: int = option(0, "Seed of the trainings of an ablation.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "width"):
            at_least(name, getattr(self, name), 1)
        check_seed(self.seed)
        aimless = ("steps", "width", "seed") if self.ablation is None else ("chips",)
        needs = "is for --ablation" if self.ablation is None else "is not for --ablation, which is given CHIPS"
        for name in changed(self):
            if name in aimless:
                raise ConfigError(f"{name} {needs}; leave --{name} out")
