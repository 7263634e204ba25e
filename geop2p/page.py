"""What pages are made of: pictures inside links, and numbers as people read them."""

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[np.uint8]


def photo_uri(picture: Picture) -> str:
    """A picture as JPEG inside a link."""
    return _uri(picture, "JPEG", quality=90, subsampling=0)


def exact_uri(picture: Picture) -> str:
    """A picture as PNG inside a link."""
    return _uri(picture, "PNG", optimize=True)


def _uri(picture: Picture, form: str, **options: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def figure(value: Any) -> str:
    """A number to four digits, or a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
