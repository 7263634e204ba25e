"""Translate one georeferenced raster into another.

The three jobs are functions, loaded on first use so that `import geop2p` needs neither torch nor rasterio:

    geop2p.tile(source, target, chips, TileConfig(...))
    geop2p.train(chips, run, TrainConfig(...))
    geop2p.predict(model, input, output, PredictConfig(...))

`geop2p.evaluate` and `geop2p.evaluate_mosaic` score the result, `geop2p.compare` several, `geop2p.describe` says what
a file is, `geop2p.list_systems` what can be trained, `geop2p.export` writes ONNX, `geop2p.plan_training` and
`geop2p.find_lr` prepare a training, and `geop2p.Translator.load(model)(array, valid)` translates one array.
"""

import importlib
from typing import TYPE_CHECKING, Any

from geop2p.config import CompareConfig, EvaluateConfig, PredictConfig, TileConfig, TrainConfig
from geop2p.errors import GeoP2PError

if TYPE_CHECKING:
    from geop2p.evaluation.comparison import compare
    from geop2p.evaluation.description import check, describe
    from geop2p.evaluation.evaluator import evaluate
    from geop2p.evaluation.mosaics import evaluate_mosaic
    from geop2p.interop.conversion import convert
    from geop2p.interop.onnx import ExportResult, export
    from geop2p.mosaic.predictor import PredictResult, predict
    from geop2p.tiling.tiler import TileResult, tile
    from geop2p.training.planning import plan_training
    from geop2p.training.rates import RateTest, find_lr
    from geop2p.training.systems import list_systems
    from geop2p.training.trainer import TrainResult, train
    from geop2p.translator import Translator

__version__ = "0.1.0"

_HOMES = {
    "convert": "geop2p.interop.conversion",
    "tile": "geop2p.tiling.tiler",
    "train": "geop2p.training.trainer",
    "find_lr": "geop2p.training.rates",
    "plan_training": "geop2p.training.planning",
    "predict": "geop2p.mosaic.predictor",
    "compare": "geop2p.evaluation.comparison",
    "evaluate": "geop2p.evaluation.evaluator",
    "evaluate_mosaic": "geop2p.evaluation.mosaics",
    "check": "geop2p.evaluation.description",
    "describe": "geop2p.evaluation.description",
    "export": "geop2p.interop.onnx",
    "list_systems": "geop2p.training.systems",
    "Translator": "geop2p.translator",
    "ExportResult": "geop2p.interop.onnx",
    "PredictResult": "geop2p.mosaic.predictor",
    "RateTest": "geop2p.training.rates",
    "TileResult": "geop2p.tiling.tiler",
    "TrainResult": "geop2p.training.trainer",
}

__all__ = [
    "CompareConfig",
    "EvaluateConfig",
    "ExportResult",
    "GeoP2PError",
    "PredictConfig",
    "PredictResult",
    "RateTest",
    "TileConfig",
    "TileResult",
    "TrainConfig",
    "TrainResult",
    "Translator",
    "__version__",
    "check",
    "compare",
    "convert",
    "describe",
    "evaluate",
    "evaluate_mosaic",
    "export",
    "find_lr",
    "list_systems",
    "plan_training",
    "predict",
    "tile",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geop2p' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
