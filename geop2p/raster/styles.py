"""QGIS styles: the `.qml` file that QGIS loads with a raster of the same stem."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from geop2p.raster.agreement import color_bands
from geop2p.raster.atomic import write_text
from geop2p.raster.encoding import Encoding
from geop2p.raster.vrt import BandSummary
from geop2p.raster.writing import fill_value

Ramp = Literal["share", "amount"]  # from 0 to 1; from 0 to two standard deviations above the mean

STOPS = ("#0d0850", "#7e03a8", "#cc4778", "#f89540", "#f0f921")  # from least to most


MARK = "<!--written by geop2p-->"  # QGIS leaves it out when somebody saves a style of their own


def style_path(raster: Path) -> Path:
    """Where QGIS looks for a raster's default style: `<stem>.qml`, not `<name>.tif.qml`."""
    return raster.with_suffix(".qml")


def write_style(raster: Path, encoding: Encoding, summaries: Sequence[BandSummary], ramp: Ramp | None = None) -> None:
    """Write the default style of a raster: paletted with class names, RGB, grey, or colours from dark to light.

    Args:
        raster: The raster it belongs to.
        encoding: What it holds.
        summaries: Statistics of each band, for the stretch of values that are not 8-bit imagery.
        ramp: What the first of one or two bands is drawn in colours for; None: it is grey.
    """
    # QGIS shows the internal mask of a raster without nodata as one more band; it applies it where a style says so
    alpha = str(len(encoding.bands) + 1) if fill_value(encoding) is None else "-1"
    root = ElementTree.Element("qgis", version="3.22", styleCategories="AllStyleCategories")
    pipe = ElementTree.SubElement(root, "pipe")
    if encoding.is_classes:
        _paletted(pipe, encoding, alpha)
    elif len(encoding.bands) >= 3:
        shown = color_bands(encoding.bands, encoding.color_interp) or range(3)
        drawn = dict(zip(("red", "green", "blue"), shown, strict=True))
        numbers = {f"{name}Band": str(number + 1) for name, number in drawn.items()}
        renderer = ElementTree.SubElement(
            pipe, "rasterrenderer", {"type": "multibandcolor", "opacity": "1", "alphaBand": alpha} | numbers
        )
        for name, number in drawn.items():
            _stretch(renderer, f"{name}ContrastEnhancement", encoding, number, summaries[number])
    elif ramp is not None:
        _in_colors(pipe, ramp, summaries[0], alpha)
    else:
        renderer = ElementTree.SubElement(
            pipe, "rasterrenderer", type="singlebandgray", opacity="1", alphaBand=alpha,
            grayBand="1", gradient="BlackToWhite",
        )  # fmt: skip
        _stretch(renderer, "contrastEnhancement", encoding, 0, summaries[0])
    ElementTree.indent(root)
    write_text(style_path(raster), f"{ElementTree.tostring(root, encoding='unicode')}\n{MARK}\n")


def is_own_style(style: Path) -> bool:
    """Whether a style is as `write_style` left it."""
    return style.is_file() and style.read_bytes().rstrip().endswith(MARK.encode())


def _paletted(pipe: ElementTree.Element, encoding: Encoding, alpha: str) -> None:
    renderer = ElementTree.SubElement(pipe, "rasterrenderer", type="paletted", opacity="1", alphaBand=alpha, band="1")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for entry in encoding.classes:
        color = "#{:02x}{:02x}{:02x}".format(*entry.color)
        ElementTree.SubElement(
            palette, "paletteEntry", value=str(entry.value), color=color, label=entry.name, alpha="255"
        )


def _in_colors(pipe: ElementTree.Element, ramp: Ramp, summary: BandSummary, alpha: str) -> None:
    most = 1.0
    if ramp == "amount" and summary.mean is not None and summary.std is not None:
        most = summary.mean + 2 * summary.std
    ends = {"classificationMin": "0", "classificationMax": repr(most)}
    renderer = ElementTree.SubElement(
        pipe,
        "rasterrenderer",
        {"type": "singlebandpseudocolor", "opacity": "1", "alphaBand": alpha, "band": "1"} | ends,
    )
    shader = ElementTree.SubElement(
        ElementTree.SubElement(renderer, "rastershader"), "colorrampshader",
        colorRampType="INTERPOLATED", clip="0", minimumValue="0", maximumValue=repr(most),
    )  # fmt: skip
    for number, color in enumerate(STOPS):
        value = most * number / (len(STOPS) - 1)
        ElementTree.SubElement(shader, "item", value=repr(value), color=color, label=f"{value:.3g}", alpha="255")


def _stretch(renderer: ElementTree.Element, tag: str, encoding: Encoding, number: int, summary: BandSummary) -> None:
    """Linear stretch: the full range of 8-bit values, else two standard deviations around the mean.

    QGIS shows physical values: stored ones times the scale of the band, plus its offset.
    """
    low, high = 0.0, 255.0
    if encoding.dtype != "uint8" and summary.mean is not None and summary.std is not None:
        assert summary.minimum is not None and summary.maximum is not None
        low = max(summary.minimum, summary.mean - 2 * summary.std)
        high = min(summary.maximum, summary.mean + 2 * summary.std)
    band = encoding.bands[number]
    low, high = sorted(value * band.scale + band.offset for value in (low, high))
    element = ElementTree.SubElement(renderer, tag)
    ElementTree.SubElement(element, "minValue").text = repr(low)
    ElementTree.SubElement(element, "maxValue").text = repr(high)
    ElementTree.SubElement(element, "algorithm").text = "StretchToMinimumMaximum"
