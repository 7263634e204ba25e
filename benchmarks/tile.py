"""How fast two rasters become chips, beside the tools that people use for it, on the machine at hand.

    python benchmarks/tile.py --size 10000 --rounds 5

Every job runs in a process of its own, start-up included, with compiled bytecode as pip leaves it; the jobs of a round
follow each other, so that ratios are of one moment. Prints one JSON object: medians of seconds, of processor seconds
and of peak memory in MB (and what geop2p adds to its imports), and the ratios, of seconds and of processor seconds.
`bound` is the work of `packed` by hand: the pixels read once by two threads and written chip by chip, without index,
split or statistics. The jobs named by a smaller side are those of layers of a quarter and of half the side, for time by
area. gdal_retile.py and gdalwarp are left out where they are not installed (Debian: gdal-bin python3-gdal); geoai is
measured where --geoai names a Python that has it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

PIXEL = 0.5  # metres
LEFT, TOP = 500_000.0, 5_300_000.0
CLASSES = 6
SMALLER = {"quarter": 4, "half": 2}  # names and parts of the side of layers for time by area
PAUSE = 6  # seconds: ext4 is slow to create files in the 5 seconds after many were deleted

COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

TILE = "import geop2p, sys; geop2p.tile(sys.argv[1], sys.argv[2], sys.argv[3], geop2p.TileConfig(format=sys.argv[4]))"
LOOP = """
import rasterio, sys
from rasterio.windows import Window
for side, path in zip("ab", sys.argv[1:3]):
    with rasterio.open(path) as source:
        for row in range(0, source.height - 255, 256):
            for col in range(0, source.width - 255, 256):
                window = Window(col, row, 256, 256)
                profile = source.profile | {"width": 256, "height": 256, "transform": source.window_transform(window)}
                profile |= {"compress": None, "tiled": False}
                with rasterio.open(f"{sys.argv[3]}/{side}_{row}_{col}.tif", "w", **profile) as chip:
                    chip.write(source.read(window=window))
"""
READ = """
import os, rasterio, sys, threading
from rasterio.windows import Window
def read(part, parts):
    with rasterio.Env(GDAL_CACHEMAX=64 * 2**20), rasterio.open(sys.argv[1]) as a, rasterio.open(sys.argv[2]) as b:
        for row in range(0, a.height, 256)[part::parts]:
            window = Window(0, row, a.width, min(256, a.height - row))
            a.read(window=window), b.read(window=window)
parts = len(os.sched_getaffinity(0))
threads = [threading.Thread(target=read, args=(part, parts)) for part in range(parts)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
"""
BOUND = """
import numpy as np, os, rasterio, sys, threading
from rasterio.windows import Window
files = [os.open(f"{sys.argv[3]}/{side}.npy", os.O_RDWR | os.O_CREAT) for side in "ab"]
def work(part, parts):
    with rasterio.Env(GDAL_CACHEMAX=64 * 2**20), rasterio.open(sys.argv[1]) as a, rasterio.open(sys.argv[2]) as b:
        down, across = a.height // 256, a.width // 256
        for row in range(down)[part::parts]:
            for source, file in zip((a, b), files):
                values = source.read(window=Window(0, row * 256, across * 256, 256))
                chips = values.reshape(source.count, 256, across, 256).transpose(2, 0, 1, 3)
                os.pwrite(file, np.ascontiguousarray(chips).data, row * values.nbytes)
parts = len(os.sched_getaffinity(0))
threads = [threading.Thread(target=work, args=(part, parts)) for part in range(parts)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
"""
GEOAI = """
import geoai, sys
geoai.export_geotiff_tiles(in_raster=sys.argv[1], out_folder=sys.argv[3], in_class_data=sys.argv[2], tile_size=256,
    stride=256, quiet=True)
"""


def make_layers(folder: Path, size: int) -> None:
    """An image that compresses as badly as a real one and its map, tiled, striped and the map in degrees."""
    where = {"height": size, "width": size, "crs": "EPSG:32632", "transform": Affine(PIXEL, 0, LEFT, 0, -PIXEL, TOP)}
    where |= {"driver": "GTiff", "dtype": "uint8", "compress": "deflate", "zlevel": 1, "num_threads": "all_cpus"}
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    palette = {code: (40 * code, 255 - 40 * code, 90) for code in range(1, CLASSES + 1)}
    draw = np.random.default_rng(0)
    coarse = draw.integers(1, CLASSES + 1, (size // 40 + 2, size // 40 + 2)).astype(np.uint8)
    files = [
        (rasterio.open(folder / f"{name}{suffix}.tif", "w", count=count, **where, **layout), count)
        for suffix, layout in (("", blocks), ("_strips", {}))
        for name, count in (("image", 3), ("map", 1))
    ]
    for file, count in files:
        if count == 1:
            file.write_colormap(1, palette)
    for row in range(0, size, 1024):
        rows = min(1024, size - row)
        codes = coarse[np.arange(row, row + rows) // 40][:, np.arange(size) // 40]
        noise = draw.integers(0, 90, (3, rows, size), dtype=np.int16)
        image = np.clip(codes * np.array([25, 32, 39])[:, None, None] + noise, 0, 255).astype(np.uint8)
        for file, count in files:
            file.write(image if count == 3 else codes[np.newaxis], window=Window(0, row, size, rows))
    for file, _ in files:
        file.close()


def run(command: list[str | Path]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak memory in MB of a process; its output goes to stderr."""
    start = time.perf_counter()
    pid = os.posix_spawnp(
        str(command[0]), [str(part) for part in command], COMPILED, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)]
    )
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def jobs(folder: Path, geoai: str | None) -> dict[str, list[list[str | Path]]]:
    """The processes of every job, by name; {out} is an empty folder."""
    python = [sys.executable, "-c"]
    image, codes = folder / "image.tif", folder / "map.tif"
    strips = [folder / "map_strips.tif", folder / "image_strips.tif"]
    result: dict[str, list[list[str | Path]]] = {
        "imports": [[*python, "import geop2p.tiling.tiler"]],
        "full read": [[*python, READ, codes, image]],
        "bound": [[*python, BOUND, codes, image, "{out}"]],
        "packed": [[*python, TILE, codes, image, "{out}/chips", "packed"]],
        "geotiff": [[*python, TILE, codes, image, "{out}/chips", "geotiff"]],
        "virtual": [[*python, TILE, codes, image, "{out}/chips", "virtual"]],
        "packed, strips": [[*python, TILE, *strips, "{out}/chips", "packed"]],
        "packed, warped": [[*python, TILE, folder / "map_degrees.tif", image, "{out}/chips", "packed"]],
        "rasterio loop": [[*python, LOOP, codes, image, "{out}"]],
    }
    for side in SMALLER:
        layers = [folder / side / name for name in ("map.tif", "image.tif")]
        result |= {f"{form}, {side}": [[*python, TILE, *layers, "{out}/chips", form]] for form in ("packed", "geotiff")}
    if shutil.which("gdal_retile.py"):
        retile = ["gdal_retile.py", "-q", "-ps", "256", "256", "-targetDir"]
        result["gdal_retile"] = [[*retile, "{out}/a", codes], [*retile, "{out}/b", image]]
        warp = ["gdalwarp", "-q", "-multi", "-wo", "NUM_THREADS=ALL_CPUS", "-t_srs", "EPSG:32632", "-tr", PIXEL, PIXEL]
        warp += ["-te", *bounds(image)]
        result["gdalwarp + gdal_retile"] = [
            [*map(str, warp), folder / "map_degrees.tif", "{out}/warped.tif"],
            [*retile, "{out}/a", "{out}/warped.tif"],
            [*retile, "{out}/b", image],
        ]
    if geoai:
        result["geoai"] = [[geoai, "-c", GEOAI, image, codes, "{out}"]]
    return result


def bounds(path: Path) -> tuple[float, ...]:
    """(left, bottom, right, top) of a raster."""
    with rasterio.open(path) as dataset:
        return tuple(dataset.bounds)


def make_degrees(folder: Path) -> None:
    """The map in degrees at about its own pixel size."""
    from geop2p.raster.aligned import aligned_reader
    from geop2p.raster.grid import Grid, covering
    from geop2p.raster.reading import describe_raster

    grid: Grid = describe_raster(folder / "map.tif").grid
    degrees = covering(grid.bounds_in(rasterio.CRS.from_epsg(4326)), rasterio.CRS.from_epsg(4326), 6e-6)
    where = {"height": degrees.height, "width": degrees.width, "crs": degrees.crs, "transform": degrees.transform}
    where |= {"driver": "GTiff", "count": 1, "dtype": "uint8", "compress": "deflate", "tiled": True, "nodata": 0}
    with (
        aligned_reader(folder / "map.tif", degrees, "classes") as reader,
        rasterio.open(folder / "map_degrees.tif", "w", **where) as file,
    ):
        for row in range(0, degrees.height, 1024):
            window = Window(0, row, degrees.width, min(1024, degrees.height - row))
            values, valid = reader.read(window)
            file.write(np.where(valid, values, 0), window=window)


def measure(folder: Path, rounds: int, geoai: str | None, only: list[str]) -> dict[str, dict[str, Any]]:
    """Medians of seconds and peak memory of every job."""
    figures: dict[str, list[tuple[float, float, float]]] = {}
    for number in range(rounds + 1):
        outs = folder / "outs"
        outs.mkdir()
        for name, processes in jobs(folder, geoai).items():
            if only and name not in only:
                continue
            out = tempfile.mkdtemp(dir=outs)
            for part in ("a", "b"):
                (Path(out) / part).mkdir()
            here = [[str(part).replace("{out}", out) for part in process] for process in processes]
            seconds, busy, memory = zip(*(run(process) for process in here), strict=True)
            if number:  # the first round fills the page cache
                figures.setdefault(name, []).append((sum(seconds), sum(busy), max(memory)))
        shutil.rmtree(outs)
        time.sleep(PAUSE)
    result: dict[str, dict[str, Any]] = {}
    for name, rows in figures.items():
        seconds, busy, memory = zip(*rows, strict=True)
        result[name] = {
            "seconds": round(statistics.median(seconds), 2),
            "cpu": round(statistics.median(busy), 2),
            "range": [round(min(seconds), 2), round(max(seconds), 2)],
            "peak_mb": round(statistics.median(memory)),
        }
    return result


def ratios(figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How many times faster (or, for strips, virtual, the bound and area, slower) geop2p is; memory that it adds."""
    pairs = {
        "packed over gdal_retile": ("gdal_retile", "packed"),
        "geotiff over gdal_retile": ("gdal_retile", "geotiff"),
        "packed over geoai": ("geoai", "packed"),
        "geotiff over geoai": ("geoai", "geotiff"),
        "packed over rasterio loop": ("rasterio loop", "packed"),
        "warped over gdalwarp + gdal_retile": ("gdalwarp + gdal_retile", "packed, warped"),
        "strips against tiled": ("packed, strips", "packed"),
        "virtual against full read": ("virtual", "full read"),
        "packed against bound": ("packed", "bound"),
    }
    for form in ("packed", "geotiff"):
        pairs |= {
            f"{form}, area x4": (f"{form}, half", f"{form}, quarter"),
            f"{form}, area x4 again": (form, f"{form}, half"),
        }
    result: dict[str, Any] = {
        name: [round(figures[first][what] / figures[second][what], 2) for what in ("seconds", "cpu")]
        for name, (first, second) in pairs.items()
        if first in figures and second in figures
    }
    if "imports" in figures:
        for name in ("packed", "geotiff", "virtual", "packed, strips", "packed, warped"):
            if name in figures:
                result[f"{name}: added MB"] = figures[name]["peak_mb"] - figures["imports"]["peak_mb"]
    return result


def main() -> None:
    """Make the layers, run the jobs, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000, help="Pixels per side of the rasters.")
    parser.add_argument("--rounds", type=int, default=5, help="Rounds that count.")
    parser.add_argument("--geoai", help="A Python that has geoai.")
    parser.add_argument("--folder", help="Where to work (about 6 GB); such as /dev/shm, to leave the disk out of it.")
    parser.add_argument("--make", type=Path, help="Only make the layers, in this folder.")
    parser.add_argument("--only", action="append", default=[], help="Only this job; may be repeated.")
    options = parser.parse_args()
    if options.make:
        make_layers(options.make, options.size)
        make_degrees(options.make)
        for name, part in SMALLER.items():
            (options.make / name).mkdir()
            make_layers(options.make / name, options.size // part)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)  # made by another process: the peak memory of a job begins at that of its parent
        subprocess.run([sys.executable, __file__, "--make", folder, "--size", str(options.size)], check=True)
        figures = measure(folder, options.rounds, options.geoai, options.only)
    print(json.dumps({"size": options.size, "cores": os.cpu_count(), "jobs": figures, "ratios": ratios(figures)}))


if __name__ == "__main__":
    main()
