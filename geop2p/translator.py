"""`Translator`: the artefact of training, a generator between two encodings, in one safetensors file."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geop2p.config import Device
from geop2p.errors import CheckpointError, ConfigError, first_line, one_line
from geop2p.models import GENERATORS
from geop2p.models.hardware import resolve_device
from geop2p.models.randomness import OwnDraws
from geop2p.raster.atomic import replacing
from geop2p.raster.borders import reflect_indices
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.pixels import PixelRange, pixel_range

FORMAT = 1
FILE_NAME = "model.safetensors"

Statistics = Literal["tile", "none"]


@dataclass(frozen=True)
class Card:
    """What a model file says of itself, in its header.

    Attributes:
        generator: Name in the registry of generators.
        arguments: What the generator was built with.
        source: Encoding of the input.
        target: Encoding of the output.
        pixel_size: (down a row, along a column) of the first training scene in metres; None without a CRS.
        chip_size: Side of the training chips in pixels.
        stride: Sides of the network's input must be multiples of this.
        field: Largest distance in pixels at which the input matters, norm statistics left out; None: unbounded.
        statistics: `tile` if the network normalises by statistics of its input, `none` if it does not.
        recipe: Recipe of the training.
        provenance: Where it comes from: chips, steps, versions.
        pixel_range: Smallest and largest of the pixels of the training scenes; None: all have `pixel_size`.
    """

    generator: str
    arguments: dict[str, Any]
    source: Encoding
    target: Encoding
    pixel_size: tuple[float, float] | None
    chip_size: int
    stride: int
    field: int | None
    statistics: Statistics
    recipe: str
    provenance: dict[str, Any]
    pixel_range: PixelRange | None = None

    @property
    def trained_pixels(self) -> PixelRange | None:
        """Smallest and largest pixel that it was trained on; None without a CRS."""
        return self.pixel_range or pixel_range([self.pixel_size])

    @property
    def noise(self) -> int:
        """Channels of noise that the network sees beside those of the source."""
        return int(self.arguments.get("noise", 0))

    @property
    def in_channels(self) -> int:
        """Channels of the network's input: of the source, then of noise."""
        return self.source.channels + self.noise

    def to_json(self) -> str:
        """Header form."""
        data = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        data |= {"format": FORMAT, "source": self.source.to_dict(), "target": self.target.to_dict()}
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str, name: str) -> "Card":
        """Read `to_json`'s form; `name` is the file for messages.

        Raises:
            CheckpointError: It is damaged, or of another version.
        """
        with _readable(name):
            data = json.loads(text)
            if data.pop("format") > FORMAT:
                raise CheckpointError(f"{name}: made by a newer geop2p (format above {FORMAT}); upgrade geop2p")
            data |= {"source": Encoding.from_dict(data["source"]), "target": Encoding.from_dict(data["target"])}
            data["pixel_size"] = None if data["pixel_size"] is None else tuple(data["pixel_size"])
            data["pixel_range"] = pixel_range(data["pixel_range"] or ())
            return cls(**data)


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Say in one line that a card is not what this version writes, whatever trips over it.

    Raises:
        CheckpointError: The card cannot be read.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{name}: its card cannot be read ({type(error).__name__}: {one_line(error)}): made by another version "
            "of geop2p, or damaged; fetch it again, or use that version"
        ) from error


def model_file(model: str | Path) -> Path:
    """The weights of a model given as a run folder or as the file itself.

    Raises:
        CheckpointError: There is none, or an exported network.
    """
    path = Path(model)
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        hint = "train one first (geop2p train CHIPS RUN)" if path.is_dir() or not path.exists() else "give a file"
        raise CheckpointError(f"{file}: no such model; {hint}")
    if file.suffix.lower() == ".onnx":
        raise CheckpointError(
            f"{file}: is a network for other programs, as `geop2p export` writes them; give the run that it is from or "
            f"its {FILE_NAME} (predict runs that in ONNX with --engine onnx)"
        )
    return file


class Translator:
    """A trained generator with the encodings of its two sides.

    Args:
        generator: Network from encoded source to encoded target.
        card: What it is.
        digest: SHA-256 of the file it was loaded from, if any.
    """

    def __init__(self, generator: nn.Module, card: Card, digest: str = "") -> None:
        self.generator = generator.eval()
        self.card = card
        self.digest = digest

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next((parameter.device for parameter in self.generator.parameters()), torch.device("cpu"))

    def translate(self, encoded: Tensor) -> Tensor:
        """Run the network without dropout.

        Args:
            encoded: float32 (batch, channels, rows, cols), sides multiples of the stride; without channels of noise
                the network takes that of the ground at (0, 0).

        Returns:
            float32 (batch, channels, rows, cols): values in [-1, 1], or probabilities of classes.

        Raises:
            ConfigError: It is of another shape.
        """
        known = sorted({self.card.source.channels, self.card.in_channels})
        if encoded.ndim != 4 or encoded.shape[1] not in known:
            expected = f"(batch, {' or '.join(map(str, known))} channels, rows, cols)"
            raise ConfigError(f"encoded has the shape {tuple(encoded.shape)}, expected {expected}")
        self.generator.eval()
        with torch.inference_mode():
            result: Tensor = self.generator(encoded.to(self.device))
            if result.shape[2:] != encoded.shape[2:]:
                wanted = f"sides that are multiples of {self.card.stride}"
                raise ConfigError(f"encoded has the shape {tuple(encoded.shape)}, expected {wanted}")
            if self.card.target.is_classes:
                result = result.softmax(dim=1)
            return result.float()

    def __call__(self, array: Array, valid: Mask | None = None) -> Array:
        """Translate one array in one pass.

        Where holes or the border are near, `geop2p.predict` makes something else: it fills the holes for the network
        and shows it reflected ground beyond the border, and it says which classes the model never saw; here they are
        made into something without a word.

        Args:
            array: Stored source values (bands, rows, cols); what is not finite, or masked in any band, is no data.
            valid: Ground with data (rows, cols), not 0 where there is some; none: all of it.

        Returns:
            Stored target values (bands, rows, cols), of ground without data too. The border is padded to the stride by
            reflection.

        Raises:
            ConfigError: The array is of another shape, holds no numbers, or has not the bands of the source.
        """
        values, mask = _pixels(array, valid)
        rows, cols = mask.shape
        below, right = -rows % self.card.stride, -cols % self.card.stride
        at = np.ix_(reflect_indices(0, rows + below, rows), reflect_indices(0, cols + right, cols))
        encoded = self.card.source.encode(values[:, at[0], at[1]], mask[at])
        result = self.translate(torch.from_numpy(encoded)[None])[0, :, :rows, :cols]
        return self.card.target.decode(result.cpu().numpy())

    def save(self, path: str | Path) -> None:
        """Write weights and card to one safetensors file, atomically.

        Raises:
            OutputError: The disk is full, or the place is read-only.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.generator.state_dict().items()}
        with replacing(Path(path), lasting=True) as temporary:
            try:
                save_file(tensors, temporary, metadata={"geop2p": self.card.to_json()})
            except safetensors.SafetensorError as error:
                raise OSError(str(error)) from error

    @classmethod
    def load(cls, model: str | Path, device: Device = "cpu") -> Self:
        """Read a model.

        Args:
            model: Run folder or `model.safetensors`.
            device: Where to put it.

        Raises:
            CheckpointError: It is missing, damaged, foreign, or of a newer format.
            ConfigError: The device is not there.
        """
        file = model_file(model)
        card = read_card(file)
        if card.generator not in GENERATORS:
            raise CheckpointError(f"{file}: generator '{card.generator}' is unknown; known: {', '.join(GENERATORS)}")
        with _readable(str(file)), OwnDraws():  # of first weights, which are replaced
            generator = GENERATORS[card.generator](**card.arguments)
        try:
            generator.load_state_dict(load_file(file))
        except RuntimeError as error:
            raise CheckpointError(
                f"{file}: weights do not fit its own card ({first_line(error)}); train it again"
            ) from error
        return cls(generator.to(resolve_device(device)), card, hashlib.sha256(file.read_bytes()).hexdigest())


def _pixels(array: Any, valid: Any) -> tuple[Array, Mask]:
    """Values (bands, rows, cols) and valid pixels (rows, cols) of what somebody gives as an array and a mask.

    Raises:
        ConfigError: They are of another shape.
    """
    values = np.asarray(array)
    if values.ndim != 3 or not values.size:
        raise ConfigError(f"array has the shape {values.shape}, expected (bands, rows, cols)")
    mask = np.ones(values.shape[1:], bool) if valid is None else np.asarray(valid) != 0
    if mask.shape != values.shape[1:]:
        raise ConfigError(f"valid has the shape {mask.shape}, expected (rows, cols), {values.shape[1:]}")
    if values.dtype.kind not in "biuf":
        raise ConfigError(f"array holds {values.dtype}, expected numbers")
    known = np.isfinite(values)
    if isinstance(array, np.ma.MaskedArray):
        known &= ~np.ma.getmaskarray(array)
    return values, mask & np.all(known, axis=0)


def read_card(model: str | Path) -> Card:
    """The card of a model, without its weights.

    Raises:
        CheckpointError: The file is missing, damaged, foreign, or of a newer format.
    """
    file = model_file(model)
    try:
        with safetensors.safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file}: not a whole safetensors file ({error}); train or fetch it again") from error
    if "geop2p" not in metadata:
        raise CheckpointError(f"{file}: a safetensors file without a geop2p card; give a model that geop2p trained")
    return Card.from_json(metadata["geop2p"], str(file))
