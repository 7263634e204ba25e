"""Chips that do not fit into memory are packed once, beside the run, and mapped from there."""

import logging
from pathlib import Path

import numpy as np

from geop2p.config import Split
from geop2p.errors import ChipSetError, ConfigError
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.packed import pack_split
from geop2p.training.checkpoint import chips_digest

log = logging.getLogger(__name__)

CACHE = "cache"
SHARE = 0.5  # of the memory that is free, for the chips of a training; others are packed
MOST = 0.9  # of it for chips that are read without a place to pack them to
MEMORY = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")  # of this process: its memory.max, memory.current and memory.stat
TRAINED_SPLITS: tuple[Split, ...] = ("train", "val")


def pack_if_large(chipset: ChipSet, run: Path, skip_bad: bool, processes: int, progress: bool = False) -> Path | None:
    """Pack the chips of a training unless they are packed or fit into memory.

    Args:
        chipset: Whose chips.
        run: Folder of the run, which gets a folder in `cache` that is named after the chip set's description.
        skip_bad: Whether chips that cannot be used are to be left out, which packing cannot do.
        processes: That keep the chips in the memory of this machine.
        progress: Show a progress bar.

    Returns:
        The folder of the packed chips; None where the chips are read from the chip set.

    Raises:
        ConfigError: The chips have to be packed and `skip_bad` is asked for.
        ChipSetError: A chip is not what the chip set promises.
        OutputError: The disk is full.
    """
    needed, room = processes * size_of(chipset), free_memory()
    if chipset.layout == "packed" or room is None or needed <= SHARE * room:
        return None
    if skip_bad:
        raise ConfigError(
            f"{chipset.folder}: {_size(needed)} of chips do not fit into memory and are packed as they are; "
            "leave --skip-bad out, or tile again without the bad chips"
        )
    folder = run / CACHE / chips_digest(chipset.folder)
    log.info("%s of chips do not fit into memory: packed into %s", _size(needed), folder)
    for split in TRAINED_SPLITS:
        pack_split(chipset, split, folder, progress)
    return folder


def check_fits(chipset: ChipSet, split: Split) -> None:
    """Refuse to read chips that memory cannot hold.

    Raises:
        ChipSetError: The chips are larger than the free memory.
    """
    needed, room = size_of(chipset, (split,)), free_memory()
    if room is not None and needed > MOST * room:
        raise ChipSetError(
            f"{chipset.folder}: its {split} chips take {_size(needed)} of memory, {_size(room)} are free; "
            f"pack them, so that they are read from disk: geop2p tile --from {chipset.folder} PACKED --format packed"
        )


def size_of(chipset: ChipSet, splits: tuple[Split, ...] = TRAINED_SPLITS) -> int:
    """Bytes of chips in memory, where each valid pixel is one; by default those of a training."""
    sides = [len(side.bands) * np.dtype(side.dtype).itemsize for side in (chipset.source, chipset.target)]
    return sum(chipset.counts[split] for split in splits) * chipset.size**2 * (sum(sides) + 1)


def free_memory() -> int | None:
    """Bytes that this process may still take, its control group's limit included; None where Linux does not tell."""
    if not MEMORY.is_file():
        return None
    fields = dict(line.split(":", 1) for line in MEMORY.read_text(encoding="ascii").splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used, parts = (GROUP / f"memory.{name}" for name in ("max", "current", "stat"))
    if limit.is_file() and (most := limit.read_text(encoding="ascii").strip()) != "max":
        counts = dict(line.split() for line in parts.read_text(encoding="ascii").splitlines())
        cached = int(counts["active_file"]) + int(counts["inactive_file"])  # files that were read: given up if needed
        free = min(free, int(most) - int(used.read_text(encoding="ascii")) + cached)
    return free


def _size(count: int) -> str:
    """Bytes for messages."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
