"""LPIPS, FID and KID: what networks that learned photographs see, from files of weights that the user names.

LPIPS (arXiv 1801.03924) compares a chip with the truth, FID (arXiv 1706.08500) and KID (arXiv 1801.01401) the chips
with the real ones as a whole.
"""

import hashlib
import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geop2p.config import ScoringConfig
from geop2p.errors import CheckpointError, ConfigError, first_line
from geop2p.models.hardware import resolve_device
from geop2p.models.lpips import load_lpips
from geop2p.models.perceptual import read_tensors
from geop2p.models.randomness import OwnDraws
from geop2p.raster.agreement import color_bands
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.training.objectives import lpips_loss

SCORES = ("lpips", "fid", "kid")
PACKAGES = ("torch_fidelity", "torchmetrics")
FEATURES = 2048
SUBSET, SUBSETS = 1000, 100  # of KID, where there are more chips than that
INCEPTION = "Inception of FID (weights-inception-2015-12-05-6726825d.pth of torch-fidelity)"
GIVE = {"lpips": "--lpips-file and --lpips-heads", "fid": "--inception-file", "kid": "--inception-file"}


class PretrainedScores:
    """Scores by pretrained networks, as far as their weights were given.

    Args:
        target: Encoding of the imagery, or of a map, which has no such scores.
        config: Files of weights, which bands are red, green and blue, and the device.

    Raises:
        ConfigError: There are weights, but no bands for them, or packages are missing.
        CheckpointError: A file of weights is missing, damaged, or holds others.
    """

    def __init__(self, target: Encoding, config: ScoringConfig) -> None:
        self._target, self._device = target, resolve_device(config.device)
        self._lpips, self._inception = None, None
        self.extractors: dict[str, Any] = {}
        if config.lpips_file is None and config.inception_file is None:
            return
        self._bands = bands_of(target, config.rgb_bands)
        said = {"bands": [band + 1 for band in self._bands]}
        if config.lpips_file is not None and config.lpips_heads is not None:
            self._lpips = load_lpips(config.lpips_file, config.lpips_heads).to(self._device)
            digests = {"sha256": _digest(config.lpips_file), "heads_sha256": _digest(config.lpips_heads)}
            self.extractors["lpips"] = {"network": "VGG-16"} | digests | said | {"resize": None}
        if config.inception_file is not None:
            self._inception = _load_inception(config.inception_file).to(self._device)
            how = {"network": "Inception v3", "sha256": _digest(config.inception_file)}
            self.extractors["inception"] = how | said | {"resize": "bilinear to 299 with antialiasing, from 8 bits"}
        self._distances: dict[str, list[float]] = {}
        self._features: dict[str, list[Tensor]] = {}
        self._real: dict[int, Tensor] = {}

    def add(self, name: str, row: int, made: Array, real: Array, valid: Mask) -> None:
        """Take in the imagery (bands, rows, cols) of a chip under the name of its predictor.

        Chips with a hole do not enter FID and KID.
        """
        if not self.extractors:
            return
        pictures = [self._picture(values, valid) for values in (made, real)]
        with torch.inference_mode():
            if self._lpips is not None:
                there = torch.from_numpy(valid).float()[None, None].to(self._device)
                distance = float(lpips_loss(self._lpips(*pictures), there))
                self._distances.setdefault(name, []).append(distance)
            if self._inception is not None and valid.all():
                self._features.setdefault(name, []).append(self._seen(pictures[0]))
                if row not in self._real:
                    self._real[row] = self._seen(pictures[1])

    def result(self, name: str) -> dict[str, Any]:
        """The scores of a predictor.

        Returns:
            lpips, fid and kid, each None with a reason in `reasons`; `extractors`: network, hash of its weights, bands
            and resizing of those that were used; `pictures`, how many chips FID and KID are of.
        """
        found: dict[str, Any] = dict.fromkeys(SCORES) | {"reasons": {}, "extractors": self.extractors}
        if self._target.is_classes:
            return {"reasons": {}}
        if self._lpips is not None:
            found["lpips"] = float(np.mean(self._distances[name]))
        made = self._features.get(name, []) if self._inception is not None else []
        if len(made) > 1:
            found |= _inception_scores(torch.cat(list(self._real.values())), torch.cat(made))
        for score in SCORES:
            if found[score] is None:
                few = score != "lpips" and self._inception is not None
                missing = f"needs weights that geop2p does not bring ({GIVE[score]})"
                found["reasons"][score] = f"{len(made)} chips have no hole, two are needed" if few else missing
        return found | ({} if self._inception is None else {"pictures": len(made)})

    def _picture(self, values: Array, valid: Mask) -> Tensor:
        """Red, green and blue in [-1, 1] (1, 3, rows, cols)."""
        return torch.from_numpy(self._target.encode(values, valid)[self._bands])[None].to(self._device)

    def _seen(self, picture: Tensor) -> Tensor:
        assert self._inception is not None
        features: Tensor = self._inception(((picture + 1) * 127.5).round().byte())
        return features.cpu()


def bands_of(target: Encoding, asked: tuple[int, ...] | None) -> list[int]:
    """Indices of the bands that are red, green and blue.

    Args:
        target: Encoding of the imagery.
        asked: Their numbers from 1; None: those that are called so.

    Raises:
        ConfigError: No band is called so, or the imagery has no band of such a number.
    """
    if target.is_classes:
        raise ConfigError("LPIPS, FID and KID compare pictures, the target is a map; leave their weights out")
    count = len(target.bands)
    if asked is not None:
        if max(asked) > count:
            raise ConfigError(f"rgb names band {max(asked)}, the target has {count}")
        return [number - 1 for number in asked]
    named = color_bands(target.bands, target.color_interp)
    if named is None:
        told = ", ".join(target.band_names)
        raise ConfigError(
            f"LPIPS, FID and KID compare red, green and blue, the target has {told}; say which with --rgb"
        )
    return named


class _Given(nn.Module):
    """Features that are computed already, as torchmetrics wants them."""

    num_features = FEATURES

    def forward(self, features: Tensor) -> Tensor:
        return features


def _inception_scores(real: Tensor, made: Tensor) -> dict[str, float]:
    """FID and KID of features (chips, 2048)."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    few = len(made) <= SUBSET
    with warnings.catch_warnings(), OwnDraws():  # KID draws subsets
        warnings.simplefilter("ignore")  # that KID keeps the features
        kid = KernelInceptionDistance(_Given(), 1 if few else SUBSETS, min(len(made), SUBSET))
        fid = FrechetInceptionDistance(_Given())
        for metric in (fid, kid):
            metric.update(real, real=True)
            metric.update(made, real=False)
        return {"fid": float(fid.compute()), "kid": float(kid.compute()[0])}


def _load_inception(file: Path) -> nn.Module:
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"FID and KID: {', '.join(missing)} not installed; pip install 'geop2p[fid]'")
    from torchmetrics.image.fid import NoTrainInceptionV3

    stored = read_tensors(file, f"the weights of the {INCEPTION}")
    with tempfile.TemporaryDirectory() as folder:
        # torch-fidelity would run what a foreign pickle says, so it is given what was read without
        safe = Path(folder) / "inception.pth"
        torch.save(stored, safe)
        try:
            network: nn.Module = NoTrainInceptionV3("inception-v3-compat", [str(FEATURES)], str(safe))
        except (RuntimeError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{file}: not the weights of the {INCEPTION} ({first_line(error)})") from error
    return network


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
