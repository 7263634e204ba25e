"""Run by QGIS's own Python: open layers as QGIS does, say what it made of them, and draw them.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 qgis_look.py FOLDER LAYER...

Writes a JSON object a layer; a picture of each goes into FOLDER.
"""

import json
import sys
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor


def look(path: Path, folder: Path) -> dict:
    """What QGIS makes of a layer with the style that lies beside it."""
    vector = path.suffix == ".gpkg"
    layer = QgsVectorLayer(str(path), path.stem, "ogr") if vector else QgsRasterLayer(str(path), path.stem)
    if not layer.isValid():
        return {"valid": False}
    message, styled = layer.loadDefaultStyle()
    renderer, extent = layer.renderer(), layer.extent()
    found = {
        "valid": True,
        "styled": styled,
        "message": message,
        "crs": layer.crs().authid(),
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        "renderer": renderer.type(),
    }
    if found["renderer"] == "paletted":
        found["classes"] = {entry.label: entry.color.name() for entry in renderer.classes()}
    if found["renderer"] == "categorizedSymbol":
        found["classes"] = {entry.value(): entry.symbol().color().name() for entry in renderer.categories()}
    if not vector:
        found["bands"] = [layer.bandName(number + 1) for number in range(layer.bandCount())]
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setBackgroundColor(QColor(255, 0, 255))
    settings.setOutputSize(QSize(400, 300))
    settings.setExtent(extent)
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(str(folder / f"{path.name}.png"))
    return found


if __name__ == "__main__":
    application = QgsApplication([], False)
    application.initQgis()
    pictures = Path(sys.argv[1])
    sys.stdout.write(json.dumps({Path(name).name: look(Path(name), pictures) for name in sys.argv[2:]}) + "\n")
    application.exitQgis()
