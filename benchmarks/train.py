"""How fast a training step is and how fast chips become batches, beside the training step that most people know.

    python benchmarks/train.py --rounds 5 --peer ../pytorch-CycleGAN-and-pix2pix

Steps: U-Net-256 and 70x70 PatchGAN with instance norm, cross entropy and 100 L1, or those of --recipe, for every
precision, batch size and, with --compile, compiled networks. Loading: one pair of chips, stored, to an encoded and
augmented batch, on one thread. With --peer, a checkout of junyanz/pytorch-CycleGAN-and-pix2pix, its own training step
and its own AlignedDataset run in the same process on the same data, in turn with ours. On a GPU the share of the time
in which kernels run is measured too. Prints one JSON line: medians over the rounds.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from geop2p.config import Precision, RecipeName, TrainConfig
from geop2p.models import DISCRIMINATORS, GENERATORS
from geop2p.models.hardware import CPU_FLAGS, has_fast_bf16
from geop2p.models.layers import init_weights
from geop2p.raster.encoding import Array, Band, Encoding
from geop2p.tiling.packed import PackedMasks
from geop2p.training.augmentation import Augmentation
from geop2p.training.data import Batch, ChipArrays, batches
from geop2p.training.feeding import Feed
from geop2p.training.networks import Networks
from geop2p.training.recipes import RECIPES, recipe_of
from geop2p.training.step import TrainingStep
from geop2p.translator import Card

SIZE = 256
JITTER = 286 / 256
RGB = Encoding("image", "uint8", tuple(Band() for _ in range(3)))

Job = Callable[[], Any]


def medians(jobs: dict[str, Job], rounds: int, device: torch.device) -> dict[str, tuple[float, float]]:
    """Median seconds of every job, and of all processors together, which other work on the machine hardly moves.

    The jobs of a round follow each other, so that ratios are of one moment.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            wait_for(device)
            start, before = time.perf_counter(), time.process_time()
            job()
            wait_for(device)
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - start, time.process_time() - before))
                print(f"{number} {name}: %.3f s, %.3f core-s" % times[name][-1], file=sys.stderr)
    columns = {name: zip(*found, strict=True) for name, found in times.items()}
    return {name: (statistics.median(next(both)), statistics.median(next(both))) for name, both in columns.items()}


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def our_step(name: RecipeName, precision: Precision, compiled: bool, device: torch.device) -> TrainingStep:
    """The step of a recipe on images of three bands."""
    torch.manual_seed(0)
    config = TrainConfig(recipe=name, precision=precision)
    recipe = recipe_of(config)
    own = {"norm": recipe.norm, "dropout": recipe.dropout, "up": recipe.up, "padding": recipe.padding}
    generator = GENERATORS["unet"](in_channels=3, out_channels=3, downs=recipe.downs or 8, **own)
    judging = {"norm": recipe.discriminator_norm, "with_spectral_norm": recipe.spectral_norm}
    discriminator = DISCRIMINATORS["patchgan"](in_channels=6, scales=recipe.scales, **judging)
    for network in (generator, discriminator):
        init_weights(network)
        network.to(device)
        if compiled:
            network.compile(dynamic=False)
    card = Card("unet", {}, RGB, RGB, None, SIZE, generator.stride, None, "tile", name, {})
    return TrainingStep(Networks(generator, discriminator, card, device), recipe, config, 1_000_000)


def peer_model(device: torch.device) -> Any:
    """The peer's model with the same parts."""
    from models.pix2pix_model import Pix2PixModel  # type: ignore[import-not-found]

    networks = {"netG": "unet_256", "netD": "basic", "n_layers_D": 3, "norm": "instance", "ngf": 64, "ndf": 64}
    losses = {"gan_mode": "vanilla", "lambda_L1": 100.0, "lr": 2e-4, "beta1": 0.5, "direction": "AtoB"}
    rest = {"init_type": "normal", "init_gain": 0.02, "no_dropout": False, "input_nc": 3, "output_nc": 3}
    place = {"gpu_ids": [0] if device.type == "cuda" else [], "checkpoints_dir": ".", "name": ".", "preprocess": "none"}
    model = Pix2PixModel(SimpleNamespace(isTrain=True, **networks, **losses, **rest, **place))
    ours = our_step("pix2pix", "fp32", False, torch.device("cpu"))
    for theirs, mine in ((model.netG, ours.generator), (model.netD, ours.discriminator)):
        if sum(one.numel() for one in theirs.parameters()) != sum(one.numel() for one in mine.parameters()):
            raise SystemExit("the peer's networks are not of the same size: another version?")
    return model


def measure_steps(options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Steps and images a second of every variant, and of the peer's step."""
    data = {}
    for size in options.batch:
        sides = [torch.rand(size, 3, SIZE, SIZE, device=device) * 2 - 1 for _ in range(2)]
        data[size] = Batch(sides[0], sides[1], torch.ones(size, 1, SIZE, SIZE, device=device))
    jobs: dict[str, Job] = {}
    variants: list[dict[str, Any]] = []

    def add(name: str, size: int, run: Callable[[Batch], Any], **what: Any) -> None:
        def job() -> None:
            for _ in range(options.steps):
                run(data[size])

        jobs[f"{name}, batch {size}"] = job
        variants.append({"step": name, "batch": size} | what)

    peer = peer_model(device) if options.peer else None

    def peer_step(batch: Batch) -> None:
        peer.set_input({"A": batch.source, "B": batch.target, "A_paths": []})
        peer.optimize_parameters()

    for size in options.batch if peer else []:
        add("peer", size, peer_step, precision="fp32", compiled=False)
    for compiled in (False, True) if options.compile else (False,):
        for precision in options.precision:
            step = our_step(options.recipe, precision, compiled, device)
            for size in options.batch:
                name = f"geop2p {precision}" + (" compiled" if compiled else "")
                add(name, size, lambda batch, step=step: step(batch, 0), precision=precision, compiled=compiled)
    seconds = medians(jobs, options.rounds, device)
    for variant, (name, taken) in zip(variants, seconds.items(), strict=True):
        rate = options.steps / taken[0]
        variant |= {"steps_per_s": round(rate, 3), "images_per_s": round(rate * variant["batch"], 3)}
        variant["core_s_per_step"] = round(taken[1] / options.steps, 3)
        theirs = seconds.get(f"peer, batch {variant['batch']}")
        if theirs and not name.startswith("peer"):
            variant |= {"over_peer": round(theirs[0] / taken[0], 2), "core_s_over_peer": round(theirs[1] / taken[1], 2)}
    return variants


def measure_loading(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Milliseconds a pair, with and without enlargement and crop, from packed chips on the host."""
    torch.set_num_threads(1)
    chips = packed_chips(folder, options.pairs)
    host, jobs = torch.device("cpu"), {}

    def load(feed: Feed, size: int) -> None:
        order = np.random.default_rng(0).permutation(options.pairs)
        for _ in feed.stream([(order[places], places) for places in batches(np.arange(options.pairs), size)], 0):
            pass

    for name, jitter in (("plain", 1.0), ("jitter", JITTER)):
        for masked in (False, True):
            some = chips[masked]
            feed = Feed(some, RGB, RGB, host, Augmentation(0, jitter, flip=True))
            for size in options.batch:
                label = f"geop2p {name}, batch {size}" + (", holes" if masked else "")
                jobs[label] = lambda feed=feed, size=size: load(feed, size)
        if options.peer:
            jobs[f"peer {name}"] = peer_loading(folder, name == "jitter", options.pairs)
    seconds = medians(jobs, options.rounds, host)
    result: dict[str, Any] = {}
    for name, taken in seconds.items():
        wall, core = (1e3 * one / options.pairs for one in taken)
        result[name] = {"ms": round(wall, 3), "core_ms": round(core, 3)}
        theirs = seconds.get(f"peer {name.split()[1].rstrip(',')}")
        if theirs and not name.startswith("peer"):
            ratios = [round(other / own, 2) for other, own in zip(theirs, taken, strict=True)]
            result[name] |= {"over_peer": ratios[0], "core_over_peer": ratios[1]}
    return result


def pictures(count: int, seed: int) -> Array:
    """Smooth pictures with some noise, uint8 (count, rows, cols, 3)."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        fine = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).astype(int)
        made.append(np.clip(fine + draw.integers(-12, 12, fine.shape), 0, 255).astype(np.uint8))
    return np.stack(made)


def packed_chips(folder: Path, pairs: int) -> dict[bool, ChipArrays]:
    """The same chips as packed files, valid everywhere or not, and as A|B JPEG for the peer."""
    sides = [pictures(pairs, seed) for seed in (0, 1)]
    (folder / "train").mkdir()
    for row in range(pairs):
        pair = np.concatenate([side[row] for side in sides], axis=1)
        Image.fromarray(pair).save(folder / "train" / f"{row:04d}.jpg", quality=90)
    mapped = []
    for name, side in zip(("source", "target"), sides, strict=True):
        np.save(folder / f"{name}.npy", np.ascontiguousarray(side.transpose(0, 3, 1, 2)))
        mapped.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    result = {}
    for masked in (False, True):
        valid = np.ones((pairs, SIZE, SIZE), bool)
        valid[:, 90:120, 30:50] = not masked
        masks = PackedMasks(np.packbits(valid, axis=-1), SIZE)
        names, weights = [str(row) for row in range(pairs)], np.ones(pairs, np.float32)
        result[masked] = ChipArrays(names, mapped[0], mapped[1], masks, weights)
    return result


def peer_loading(folder: Path, jitter: bool, pairs: int) -> Job:
    """The peer's data set on the same chips, in one process."""
    from data.aligned_dataset import AlignedDataset  # type: ignore[import-not-found]

    what = {"preprocess": "resize_and_crop" if jitter else "crop", "load_size": 286 if jitter else SIZE}
    rest = {"crop_size": SIZE, "direction": "AtoB", "input_nc": 3, "output_nc": 3, "no_flip": False}
    where = {"dataroot": str(folder), "phase": "train", "max_dataset_size": float("inf")}
    dataset = AlignedDataset(SimpleNamespace(**what, **rest, **where))
    return lambda: [dataset[row] for row in range(pairs)]


def measure_busy(options: argparse.Namespace, folder: Path, device: torch.device) -> dict[str, Any]:
    """Share of the time of steps, loading included, in which the GPU runs kernels."""
    chips = packed_chips(folder, options.pairs)[False]
    recipe = RECIPES[options.recipe]
    feed = Feed(chips, RGB, RGB, device, Augmentation(0, recipe.jitter, recipe.flip, recipe.d4))
    result: dict[str, Any] = {"chips": feed.place}
    for size in options.batch:
        step = our_step(options.recipe, "auto", options.compile, device)
        pieces = [(places, places) for places in batches(np.arange(options.pairs), size)]
        for batch in feed.stream(pieces[:3], 0):
            step(batch, 0)
        wait_for(device)
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            start = time.perf_counter()
            for batch in feed.stream(pieces, 1):
                step(batch, 0)
            wait_for(device)
            taken = time.perf_counter() - start
        kernels = sum(entry.self_device_time_total for entry in record.key_averages()) / 1e6
        result[f"batch {size}"] = {"busy": round(kernels / taken, 3), "images_per_s": round(options.pairs / taken, 2)}
    return result


def name_of(device: torch.device) -> str:
    """What the device is called."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = CPU_FLAGS.read_text().splitlines() if CPU_FLAGS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Run the steps and the loading, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="Rounds that count.")
    parser.add_argument("--steps", type=int, default=1, help="Steps of a variant in a round; on a GPU 20 or more.")
    parser.add_argument("--pairs", type=int, default=64, help="Pairs that are loaded in a round.")
    parser.add_argument("--batch", type=int, action="append", help="Batch size; may be repeated (1 and 4).")
    parser.add_argument("--precision", action="append", choices=("fp32", "bf16"), help="May be repeated (both).")
    parser.add_argument("--compile", action="store_true", help="Measure compiled networks too.")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="Where steps run.")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="Threads of the steps on a CPU.")
    parser.add_argument("--recipe", default="pix2pix", choices=tuple(RECIPES), help="Whose steps are measured.")
    parser.add_argument("--peer", type=Path, help="Checkout of junyanz/pytorch-CycleGAN-and-pix2pix.")
    parser.add_argument("--only", choices=("steps", "loading"), help="Leave the other out.")
    options = parser.parse_args()
    options.batch, options.precision = options.batch or [1, 4], options.precision or ["fp32", "bf16"]
    if options.compile:
        torch._dynamo.config.recompile_limit = 64  # the discriminator learns and judges, in every precision and size
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # else it would run as it is, called compiled
    if options.peer:
        if options.recipe != "pix2pix":
            parser.error("--peer trains pix2pix; leave --recipe out")
        if not (options.peer / "models" / "pix2pix_model.py").is_file():
            parser.error(f"{options.peer}: no checkout of pytorch-CycleGAN-and-pix2pix")
        sys.path.insert(0, str(options.peer))
    device = torch.device(options.device)
    figures: dict[str, Any] = {"torch": torch.__version__, "device": name_of(device), "threads": options.threads}
    figures["recipe"] = options.recipe
    figures |= {"fast_bf16": has_fast_bf16(device), "rounds": options.rounds, "load": os.getloadavg()[0]}
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        if options.only != "loading":
            figures["steps"] = measure_steps(options, device)
            if device.type == "cuda":
                figures["gpu"] = measure_busy(options, Path(first), device)
        if options.only != "steps":
            figures["loading"] = measure_loading(options, Path(second))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
