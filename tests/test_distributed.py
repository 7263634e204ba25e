"""Several processes train what one process trains."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_pair
from safetensors.torch import load_file
from torch import nn

from geop2p import TileConfig, TrainConfig, tile, train
from geop2p.errors import ConfigError
from geop2p.models.patchgan import MultiScale
from geop2p.models.unet import UNet
from geop2p.tiling.chips import ChipSet
from geop2p.training import distributed
from geop2p.training.data import Batch
from geop2p.training.distributed import (
    World,
    divisor,
    joined,
    mean_over_all,
    seen_by_norms,
    summed,
    synchronised,
    without_sync_norms,
    wrapped,
)
from geop2p.training.history import read_metrics
from geop2p.training.networks import build_networks

CONFIG = TrainConfig(
    recipe="pix2pix",
    epochs=2,
    batch_size=2,
    width=4,
    downs=4,
    lr=2e-4,  # at ten times that Adam makes differences of rounding larger than 1e-4 within 28 steps
    device="cpu",
    precision="fp32",
    set=("dropout=0",),
)


def torchrun(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command by two processes."""
    whole = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(whole, capture_output=True, check=False, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains, on 27 chips, so that the last batch of an epoch leaves one of two without."""
    folder = tmp_path_factory.mktemp("whole")
    assert tile(*write_pair(folder), folder / "chips", TileConfig(size=64, min_valid=0.5)).train == 27
    train(folder / "chips", folder / "run", CONFIG)
    return folder


def test_two_processes_train_what_one_does(whole: Path, tmp_path: Path) -> None:
    """Losses, validation and weights."""
    chips = whole / "chips"
    values = {
        name: getattr(CONFIG, name) for name in ("recipe", "epochs", "batch_size", "width", "downs", "lr", "device")
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    options += ["--precision=fp32", "--set=dropout=0", "--json"]
    done = torchrun("-m", "geop2p", "train", str(chips), str(tmp_path / "two"), *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("images_per_s") == 1  # one process reports
    assert "Warning" not in done.stderr
    first, second = (read_metrics(run) for run in (whole / "run", tmp_path / "two"))
    assert len(first) == len(second) == 2
    for one, two in zip(first, second, strict=True):
        assert one["step"] == two["step"]
        for name, value in one["losses"].items():
            assert two["losses"][name] == pytest.approx(value, rel=1e-4), name
        assert two["val"]["l1"] == pytest.approx(one["val"]["l1"], rel=1e-3)
    weights = load_file(tmp_path / "two" / "model.safetensors")
    for name, value in load_file(whole / "run" / "model.safetensors").items():
        if not name.endswith("bias"):  # before an instance norm a bias has no gradient but rounding, which Adam scales
            assert torch.allclose(value, weights[name], atol=2e-4), name


STOPPED = """
import ast, sys
from geop2p import TrainConfig, train
from geop2p.training import loop
from geop2p.training.step import TrainingStep

chips, run, settings, last = sys.argv[1:]
original = TrainingStep.__call__

def call(self, batch, at):
    if at == int(last):
        sys.exit(9)
    return original(self, batch, at)

TrainingStep.__call__, loop.CHECKPOINT_SECONDS = call, -1.0
train(chips, run, TrainConfig(**ast.literal_eval(settings)))
"""


@pytest.mark.parametrize("first", ["one", "two"])
def test_a_run_goes_on_with_another_number_of_processes(whole: Path, tmp_path: Path, first: str) -> None:
    """Stopped within an epoch by one process or two, and finished by two or one."""
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED)
    settings = repr(dataclasses.asdict(CONFIG))
    alone = [sys.executable, str(script), str(whole / "chips"), str(tmp_path / "run"), settings]
    if first == "one":
        done = subprocess.run([*alone, "17"], capture_output=True, check=False, text=True, timeout=120)
        assert done.returncode == 9, done.stderr
        done = torchrun(*alone[1:], "-1")
    else:
        done = torchrun(*alone[1:], "17")
        assert "exitcode  : 9" in done.stderr, done.stderr
        done = subprocess.run([*alone, "-1"], capture_output=True, check=False, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    unbroken, resumed = (read_metrics(folder / "run") for folder in (whole, tmp_path))
    assert [one["step"] for one in unbroken] == [one["step"] for one in resumed] == [14, 28]
    for one, other in zip(unbroken, resumed, strict=True):
        for name, value in one["losses"].items():
            assert other["losses"][name] == pytest.approx(value, rel=1e-4), name


ON_TWO_MACHINES = """
import ast, os, sys
from pathlib import Path
from geop2p import TrainConfig, train
from geop2p.errors import CheckpointError
from geop2p.training import loop

chips, run, settings = sys.argv[1:]
if os.environ["RANK"] == "1":
    loop.load_state = lambda run, device: None  # its own disk has no such file
try:
    train(chips, run, TrainConfig(**ast.literal_eval(settings)))
except CheckpointError as error:
    Path(f"{run}.{os.environ['RANK']}").write_text(str(error))
"""


def test_processes_that_see_different_checkpoints_do_not_go_on(whole: Path, tmp_path: Path) -> None:
    """Two machines whose disks are their own: the first one has the checkpoint, the other would begin at step 0."""
    script, run = tmp_path / "machines.py", tmp_path / "run"
    script.write_text(ON_TWO_MACHINES)
    shutil.copytree(whole / "run", run)
    done = torchrun(str(script), str(whole / "chips"), str(run), repr(dataclasses.asdict(CONFIG)))
    assert done.returncode == 0, done.stderr
    told = f"{run / 'last.pt'}: not the same file to all processes, which found checkpoints of the steps 28, 0 (0: none"
    assert all(Path(f"{run}.{rank}").read_text().startswith(told) for rank in range(2))


def test_a_generator_with_weights_that_it_does_not_use_trains_on_two_processes(whole: Path, tmp_path: Path) -> None:
    """The deepest blocks of a PSPNet's encoder have no part in its answer."""
    options = ["--recipe=pix2pix", "--steps=3", "--batch-size=4", "--width=2", "--device=cpu", "--json"]
    parts = ["generator=smp", "architecture=pspnet", "encoder=resnet18"]
    options += [f"--set={part}" for part in parts]
    done = torchrun("-m", "geop2p", "train", str(whole / "chips"), str(tmp_path / "run"), *options)
    assert done.returncode == 0, done.stderr
    assert '"steps": 3' in done.stdout and "Warning" not in done.stderr


def test_more_processes_than_chips_in_a_step_are_refused(whole: Path, tmp_path: Path) -> None:
    command = ["-m", "geop2p", "train", str(whole / "chips"), str(tmp_path / "run"), "--recipe=pix2pix", "--device=cpu"]
    done = torchrun(*command, "--batch-size=1")
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    told = "batch_size is 1, but 2 processes train, each of which takes its share of a step's chips; give --batch-size"
    assert f"{told} 2 or more" in done.stderr.replace("--batch-size is", "batch_size is")
    World(0, 8).check_enough(8)
    with pytest.raises(ConfigError, match="batch_size is 4, but 8 processes train"):
        World(3, 8).check_enough(4)


@pytest.mark.parametrize(
    ("chips", "batch_size", "device", "least"),
    [(27, 27, "cpu", 13), (2, 5, "cpu", 1), (1, 5, "cpu", 1), (3, 8, "cuda", 3), (2, 64, "cuda", 1)],
)
def test_norms_of_a_process_see_its_share(
    monkeypatch: pytest.MonkeyPatch, chips: int, batch_size: int, device: str, least: int
) -> None:
    monkeypatch.setattr(distributed, "_size", lambda: 2)
    assert seen_by_norms(chips, batch_size, torch.device(device)) == least


def test_a_process_that_would_norm_one_value_is_refused_at_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chipset = ChipSet.open(whole / "chips")
    parts = ("generator=smp", "architecture=deeplabv3", "encoder=resnet18", "norm=batch")
    config = dataclasses.replace(CONFIG, downs=None, batch_size=5, set=parts)
    build_networks(chipset, config)  # the last batch has two of 27 chips
    monkeypatch.setattr(distributed, "_size", lambda: 2)
    with pytest.raises(
        ConfigError, match=r"27 training chips in batches of 5 leave a process one chip, .*--batch-size 7"
    ):
        build_networks(chipset, config)


def test_a_chip_that_is_there_for_the_norms_alone_keeps_its_ground() -> None:
    batch = Batch(torch.ones(2, 3, 4, 4), torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
    blind = batch.blinded()
    assert torch.equal(blind.source, batch.source) and not blind.valid.any()


def test_every_chip_of_a_batch_is_taken_once() -> None:
    for size in (1, 2, 3):
        worlds = [World(rank, size) for rank in range(size)]
        for count in range(1, 7):
            places = np.arange(10, 10 + count)
            parts = [world.part(places) for world in worlds]
            busy = [part for world, part in zip(worlds, parts, strict=True) if not world.is_idle(places)]
            assert sorted(np.concatenate(busy)) == sorted(places)
            assert all(len(part) for part in parts)


def test_a_process_by_itself_divides_by_its_own_counts() -> None:
    count = torch.tensor([3.0, 0.5])
    assert torch.equal(divisor(count, 1), torch.tensor([3.0, 1.0]))
    assert summed(count) is count and torch.equal(mean_over_all(count), count)
    network = nn.Conv2d(1, 1, 1)
    assert wrapped(network) is network
    assert World().lead(lambda: 7) == 7


def test_gradients_of_two_processes_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """`divisor` and `summed` on halves of a batch; the other half's sum is added by hand."""
    values = torch.tensor([0.5, 2.0, -1.0, 3.0], requires_grad=True)
    (values.sum() ** 2 / 4 + values.abs().sum() / 4).backward()
    monkeypatch.setattr(distributed, "_size", lambda: 2)
    halves = []
    for mine, other in ((slice(0, 2), slice(2, 4)), (slice(2, 4), slice(0, 2))):
        part, rest = values.detach()[mine].clone().requires_grad_(), values.detach()[other]
        monkeypatch.setattr(distributed, "_total", lambda one: one.detach() + 2)
        count = divisor(torch.tensor(2.0), 1)
        assert count == 2  # of 4 in all, for the mean of two processes
        monkeypatch.setattr(distributed, "_total", lambda one, rest=rest: one.detach() + rest.sum())
        loss = summed(part.sum()) ** 2 / 4 + part.abs().sum() / count
        loss.backward()
        halves.append(part.grad / 2)  # as the mean over processes does
    assert values.grad is not None and torch.allclose(torch.cat(halves), values.grad)


@pytest.mark.parametrize(
    ("norm", "chips", "device", "processes", "together"),
    [
        ("batch", 31, "cuda", 2, True),  # 15 chips a process
        ("batch", 32, "cuda", 2, False),
        ("batch", 60, "cuda", 4, True),
        ("batch", 1, "cuda", 1, False),
        ("batch", 2, "cpu", 2, False),
        ("instance", 2, "cuda", 2, False),
    ],
)
def test_batch_norms_of_few_chips_a_process_are_taken_together(
    monkeypatch: pytest.MonkeyPatch, norm: Any, chips: int, device: str, processes: int, together: bool
) -> None:
    monkeypatch.setattr(distributed, "_size", lambda: processes)
    for network in (UNet(2, 3, downs=4, width=2, norm=norm), MultiScale(5, width=2, norm=norm)):
        before = network.state_dict()
        kinds = {type(module) for module in network.modules()}
        found = synchronised(network, chips, torch.device(device))
        changed = {nn.BatchNorm2d: nn.SyncBatchNorm} if together else {}
        assert {type(module) for module in found.modules()} == {changed.get(kind, kind) for kind in kinds}
        after = found.state_dict()
        assert before.keys() == after.keys() and all(torch.equal(one, after[name]) for name, one in before.items())


def test_a_copy_that_stands_alone_waits_for_nobody() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    together = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    twin, image = without_sync_norms(together).train(), torch.randn(2, 1, 4, 4)
    assert not [module for module in twin.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert isinstance(together[1], nn.SyncBatchNorm) and int(together[1].num_batches_tracked) == 0
    assert torch.allclose(twin(image).mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-6)
    assert twin.state_dict().keys() == together.state_dict().keys()


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "LOCAL_RANK": "3", "RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="4 processes on 2 GPUs; give torchrun --nproc-per-node 2"), joined("cuda"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined("cpu") as world:
        assert dataclasses.astuple(world) == (0, 1, 1)
