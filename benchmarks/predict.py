"""How fast tiles become a mosaic and what memory that takes, beside the tools that people use for it.

    python benchmarks/predict.py --size 4096 --rounds 5 --peers VENV
    python benchmarks/predict.py --only network --only "narrow network" --device cuda

Every job runs in a process of its own that reports the seconds and the added memory of the job alone, imports and input
left out; the jobs of a round follow each other, so that ratios are of one moment. Tiles of 256 pixels overlap by half.

- arrays: uint8 (3, rows, cols) in memory to the same, an identity network in between
- rasters: GeoTIFF to GeoTIFF, deflate at its default level, the same network; geop2p also masks, makes overviews and
  reports seams
- network: GeoTIFF to GeoTIFF through the U-Net-256 of pix2pix (width 64), beside that network alone on as many tiles,
  those of the seam report included
- narrow network: the same with a U-Net of width 16, a larger raster; on a GPU both are done once before they count
- memory: what a raster adds to the process, by its size and by --memory
- bounds: what real networks add, by --memory; their weights were loaded before
- large: long, wide and large rasters, up to 30,000 x 20,000 pixels, a picture repeated

Peers (MONAI, pytorch-toolbelt, geoai) are measured where --peers names the folder of a virtual environment that has
them and what geop2p needs; absent ones are named. One JSON object on stdout, a table on stderr. Needs Linux.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TILE, PICTURE = 256, 2048
BOUNDS = ("100MB", "200MB", "300MB", "500MB", "700MB", "1GB", "2GB")
LARGE = ((10_000, 10_000), (40_000, 10_000), (2000, 100_000), (20_000, 30_000))  # rows, columns
GROUPS = ("arrays", "rasters", "network", "narrow network", "memory", "bounds", "large")
GEO = {"downs": 5, "up": "resize", "padding": "reflect"}  # of pix2pix-geo
NETWORKS: dict[str, tuple[str, dict[str, Any], int | None]] = {  # generator, arguments, field
    "unet": ("unet", {"width": 16}, None),
    "unet-64": ("unet", {"width": 64}, None),
    "geo-64": ("unet", {"width": 64, **GEO}, 93),
    "resnet-64": ("resnet", {"width": 64}, 84),
}
BOUNDED = ("identity", "unet-64", "geo-64", "resnet-64")
ALONE = {"network": ("unet-64", 1024), "narrow network": ("unet", 2048)}  # network and side of the raster
Pixels = npt.NDArray[np.uint8]


def picture(side: int) -> Pixels:
    """Smooth ground with noise, which compresses as an aerial image does; uint8 (3, side, side)."""
    draw = np.random.default_rng(0)
    coarse = np.cumsum(np.cumsum(draw.normal(0, 1, (3, side // 16 + 1, side // 16 + 1)), 1), 2)
    coarse = (coarse - coarse.min()) / np.ptp(coarse) * 200 + 20
    smooth = coarse.repeat(16, 1).repeat(16, 2)[:, :side, :side]
    return (smooth + draw.integers(-8, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


def make_raster(folder: Path, rows: int, cols: int) -> Path:
    """The picture repeated over a raster: a GeoTIFF up to 8192 pixels, beyond that a virtual one."""
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    path = folder / f"in_{rows}_{cols}.tif"
    where: dict[str, Any] = {"crs": "EPSG:32632", "transform": Affine(1, 0, 500_000, 0, -1, 5_300_000)}
    layout = {"driver": "GTiff", "count": 3, "dtype": "uint8", "compress": "deflate", "tiled": True, "blockxsize": 256}
    layout |= {"blockysize": 256, "num_threads": "all_cpus", "photometric": "rgb"}
    piece = picture(PICTURE)
    if max(rows, cols) <= 8192:
        with rasterio.open(path, "w", height=rows, width=cols, **layout, **where) as file:
            for row in range(0, rows, PICTURE):
                for col in range(0, cols, PICTURE):
                    down, along = min(PICTURE, rows - row), min(PICTURE, cols - col)
                    file.write(piece[:, :down, :along], window=Window(col, row, along, down))
        return path
    with rasterio.open(path, "w", height=PICTURE, width=PICTURE, **layout, **where) as file:
        file.write(piece)
        wkt = file.crs.to_wkt().replace('"', "&quot;")
    bands = []
    for band in (1, 2, 3):
        sources = [
            f'<SimpleSource><SourceFilename relativeToVRT="1">{path.name}</SourceFilename><SourceBand>{band}'
            f'</SourceBand><SrcRect xOff="0" yOff="0" xSize="{PICTURE}" ySize="{PICTURE}"/>'
            f'<DstRect xOff="{col}" yOff="{row}" xSize="{PICTURE}" ySize="{PICTURE}"/></SimpleSource>'
            for row in range(0, rows, PICTURE)
            for col in range(0, cols, PICTURE)
        ]
        bands.append(f'<VRTRasterBand dataType="Byte" band="{band}">{"".join(sources)}</VRTRasterBand>')
    virtual = path.with_suffix(".vrt")
    virtual.write_text(
        f'<VRTDataset rasterXSize="{cols}" rasterYSize="{rows}"><SRS>{wkt}</SRS>'
        f"<GeoTransform>500000, 1, 0, 5300000, 0, -1</GeoTransform>{''.join(bands)}</VRTDataset>"
    )
    return virtual


def make_model(folder: Path, name: str) -> Path:
    """A model of three bands: one of `NETWORKS`, or the identity."""
    import torch
    from torch import nn

    from geop2p.models import GENERATORS
    from geop2p.raster.encoding import Band, Encoding
    from geop2p.translator import Card, Translator

    class Identity(nn.Module):
        stride = 1

        def __init__(self, **_: Any) -> None:
            super().__init__()

        def forward(self, source: torch.Tensor) -> torch.Tensor:
            return source

    GENERATORS["identity"] = Identity  # type: ignore[assignment]
    encoding = Encoding("image", "uint8", (Band(), Band(), Band()))
    torch.manual_seed(0)
    generator, own, field = NETWORKS.get(name, ("identity", {}, None))
    arguments = {"in_channels": 3, "out_channels": 3, "head": "tanh", "norm": "batch", **own}
    network = GENERATORS[generator](**arguments)
    card = Card(generator, arguments, encoding, encoding, (1.0, 1.0), TILE, network.stride, field, "none", "", {})
    path = folder / f"{name}.safetensors"
    Translator(network, card).save(path)
    return path


def geop2p_arrays(options: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    """`Mosaic.window` over an array."""
    from affine import Affine
    from rasterio.windows import Window

    from geop2p import PredictConfig
    from geop2p.mosaic.mosaic import Mosaic
    from geop2p.raster.grid import Grid
    from geop2p.translator import Translator

    values = picture(options.size)

    class Memory:
        grid = Grid(None, Affine.identity(), options.size, options.size)

        def read(self, window: Window) -> tuple[Pixels, npt.NDArray[np.bool_]]:
            rows, cols = window.toslices()
            return values[:, rows, cols], np.ones((int(window.height), int(window.width)), bool)

    config = PredictConfig(tile_size=TILE, overlap=0.5, batch_size=4, device="cpu")
    mosaic = Mosaic(Translator.load(make_model(folder, "identity")), Memory.grid, config, folder)

    def job() -> None:
        made, _ = mosaic.window(Memory(), Window(0, 0, options.size, options.size))
        assert np.array_equal(made, values)

    return job


def monai_arrays(options: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    """MONAI's sliding window with Gaussian weights."""
    import torch
    from monai.inferers import sliding_window_inference

    values = picture(options.size)

    @torch.inference_mode()
    def job() -> None:
        source = torch.from_numpy(values)[None].float().mul_(2 / 255).sub_(1)
        made = sliding_window_inference(source, (TILE, TILE), 4, lambda batch: batch, 0.5, mode="gaussian")
        assert isinstance(made, torch.Tensor)
        result = made.add_(1).mul_(255 / 2).round_().clamp_(0, 255).to(torch.uint8)[0].numpy()
        assert np.array_equal(result, values)

    return job


def toolbelt_arrays(options: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    """pytorch-toolbelt's slicer and merger with pyramid weights."""
    import torch
    from pytorch_toolbelt.inference.tiles import ImageSlicer, TileMerger

    values = np.ascontiguousarray(picture(options.size).transpose(1, 2, 0))

    def job() -> None:
        slicer = ImageSlicer(values.shape[:2], TILE, TILE // 2, weight="pyramid")
        merger = TileMerger(slicer.target_shape, 3, slicer.weight)
        batch, places = [], []
        for tile, place in slicer.iter_split(values):
            batch.append(torch.from_numpy(tile.transpose(2, 0, 1)).float().mul_(2 / 255).sub_(1))
            places.append(place)
            if len(batch) == 4:
                merger.integrate_batch(torch.stack(batch), places)
                batch, places = [], []
        if batch:
            merger.integrate_batch(torch.stack(batch), places)
        made = merger.merge_().add_(1).mul_(255 / 2).round_().clamp_(0, 255).to(torch.uint8)
        assert np.array_equal(slicer.crop_to_orignal_size(made.permute(1, 2, 0).numpy()), values)

    return job


def geop2p_rasters(options: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    """`geop2p.predict`."""
    import geop2p
    import geop2p.mosaic.predictor
    from geop2p.translator import Translator

    names = {"bounds": options.job} | {group: name for group, (name, _) in ALONE.items()}
    model = make_model(folder, names.get(options.group, "identity"))
    output, memory = Path(options.folder) / f"out_{os.getpid()}.tif", options.memory
    settings: dict[str, Any] = {"memory": memory} if memory else {}
    if options.group == "bounds":
        translator = Translator.load(model, options.device)
        Translator.load = lambda *_: translator  # type: ignore[method-assign, assignment]
    else:
        settings |= {"tile_size": TILE, "overlap": 0.5, "batch_size": 4}
    config = geop2p.PredictConfig(**settings, device=options.device)

    translate, tiles = Translator.translate, [0]

    def counted(self: Translator, sources: Any) -> Any:
        tiles[0] += len(sources)
        return translate(self, sources)

    Translator.translate = counted  # type: ignore[method-assign]

    def job() -> dict[str, Any]:
        tiles[0] = 0
        made = geop2p.predict(model, options.input, output, config)
        output.unlink()
        return {"tiles": tiles[0], "mode": made.mode, "tile_size": made.tile_size}

    return job


def geoai_rasters(options: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    """Geoai's blended predictor."""
    import torch
    from geoai.inference import predict_geotiff

    output = f"{options.folder}/geoai_{os.getpid()}.tif"

    def job() -> None:
        predict_geotiff(
            torch.nn.Identity(), options.input, output, TILE, TILE // 2, 4, num_classes=3, output_dtype="uint8",
            output_nodata=0, compress="deflate", verbose=False, device="cpu",
            preprocess_fn=lambda tile: tile * np.float32(2 / 255) - 1,
            postprocess_fn=lambda made: np.rint((made + 1) * (255 / 2)).clip(0, 255),
        )  # fmt: skip
        Path(output).unlink()

    return job


def bare_network(options: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    """The network alone on so many tiles."""
    import torch

    from geop2p.translator import Translator

    translator = Translator.load(make_model(folder, ALONE[options.group][0]), options.device)
    tiles = torch.rand(4, 3, TILE, TILE)

    def job() -> None:
        for _ in range(options.tiles // 4):
            translator.translate(tiles)
        if options.device == "cuda":
            torch.cuda.synchronize()

    return job


JOBS = {
    ("arrays", "geop2p"): geop2p_arrays,
    ("arrays", "monai"): monai_arrays,
    ("arrays", "toolbelt"): toolbelt_arrays,
    ("rasters", "geop2p"): geop2p_rasters,
    ("rasters", "geoai"): geoai_rasters,
    **{(group, "geop2p"): geop2p_rasters for group in ALONE},
    **{(group, "bare"): bare_network for group in ALONE},
    **{("bounds", name): geop2p_rasters for name in BOUNDED},
}


def status(name: str) -> float:
    """A line of this process's memory in MiB: VmRSS is now, VmHWM the most since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def child(options: argparse.Namespace) -> None:
    """Do one job and print its figures; 3 says that the tool is absent."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        try:
            job = JOBS[options.group, options.job](options, Path(name))
        except ModuleNotFoundError as error:
            print(error, file=sys.stderr)
            sys.exit(3)
        if options.device == "cuda" and options.group in ALONE:
            job()
        Path("/proc/self/clear_refs").write_text("5")
        before, cpu, start = status("VmRSS"), time.process_time(), time.perf_counter()
        figures = job() or {}
        figures |= {"seconds": time.perf_counter() - start, "core_seconds": time.process_time() - cpu}
        print(json.dumps(figures | {"added_mib": round(status("VmHWM") - before, 1)}))


def run(options: argparse.Namespace, group: str, job: str, **settings: Any) -> dict[str, Any] | None:
    """Figures of a job in a process of its own; None where its tool is absent."""
    python = f"{options.peers}/bin/python" if options.peers else sys.executable
    command = [python, __file__, "--folder", options.folder, "--group", group, "--job", job]
    command += ["--device", options.device]
    command += [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    environment = os.environ | {"GDAL_NUM_THREADS": "ALL_CPUS", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode == 3:
        return None
    if done.returncode:
        raise SystemExit(f"{group} {job} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def interleaved(options: argparse.Namespace, group: str, jobs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Medians of jobs that take turns, and how many times geop2p's seconds each needs; None for absent tools."""
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for _ in range(options.rounds):
        for name, settings in jobs.items():
            more = {"tiles": samples["geop2p"][-1]["tiles"]} if name == "bare" else {}
            figures = run(options, group, name, **settings, **more)
            if figures is not None:
                samples[name].append(figures)
    result: dict[str, Any] = {}
    for name, found in samples.items():
        result[name] = None
        if found:
            numbers = [key for key, value in found[0].items() if not isinstance(value, str)]
            result[name] = {key: round(statistics.median(one[key] for one in found), 3) for key in numbers}
            result[name]["ratio"] = round(result[name]["seconds"] / result["geop2p"]["seconds"], 3)
        print(f"{group:8} {name:9} {result[name] or 'absent'}", file=sys.stderr)
    return result


def measured(options: argparse.Namespace, group: str) -> dict[str, Any]:
    """All figures of a group."""
    folder, size = Path(options.folder), options.size
    if group == "arrays":
        return interleaved(options, group, {name: {"size": size} for name in ("geop2p", "monai", "toolbelt")})
    if group == "rasters":
        settings = {"input": make_raster(folder, size, size)}
        return interleaved(options, group, dict.fromkeys(("geop2p", "geoai"), settings))
    if group in ALONE:
        side = ALONE[group][1]
        return interleaved(options, group, {"geop2p": {"input": make_raster(folder, side, side)}, "bare": {}})
    result: dict[str, Any] = {}
    if group == "bounds":
        path = make_raster(folder, 1024, 1024)
        for name, memory in itertools.product(BOUNDED, BOUNDS):
            result[f"{name} {memory}"] = run(options, group, name, input=path, memory=memory)
            print(f"{group:8} {name:9} {memory:5} {result[f'{name} {memory}']}", file=sys.stderr)
        return result
    sizes = LARGE if group == "large" else tuple((side, side) for side in (2048, 4096, 8192))
    for rows, cols in sizes:
        path = make_raster(folder, rows, cols)
        jobs: list[tuple[str, dict[str, Any]]] = [("geop2p", {}), ("geop2p", {"memory": "300MB"})]
        for name, settings in jobs if group == "large" else [*jobs, ("geoai", {})]:
            label = f"{name}{settings.get('memory', '') and ' 300MB'} {rows} x {cols}"
            result[label] = run(options, "rasters", name, input=path, **settings)
            print(f"{group:8} {label:28} {result[label] or 'absent'}", file=sys.stderr)
    return result


def machine(device: str) -> dict[str, Any]:
    """What the figures hold for."""
    import rasterio
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")
    figures = {"cpu": model, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    figures["device"] = torch.cuda.get_device_name() if device == "cuda" else device
    return figures | {"torch": torch.__version__, "gdal": rasterio.__gdal_version__}


def main() -> None:
    """Measure the groups asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="Pixels per side of arrays and rasters.")
    parser.add_argument("--rounds", type=int, default=5, help="Rounds that count.")
    parser.add_argument("--peers", help="Virtual environment with MONAI, pytorch-toolbelt and geoai.")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="Where networks of geop2p run.")
    parser.add_argument("--only", choices=GROUPS, action="append", help="Leave the other groups out.")
    for name in ("folder", "group", "job", "input", "memory", "tiles"):
        parser.add_argument(f"--{name}", type=int if name == "tiles" else str, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return child(options)
    result: dict[str, Any] = {"machine": machine(options.device), "size": options.size, "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as options.folder:
        for group in options.only or GROUPS:
            result[group] = measured(options, group)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result))
    return None


if __name__ == "__main__":
    main()
