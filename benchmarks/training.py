"""Images a second of a training step, beside the published protocol's plain loop: `python -m benchmarks.training`.

Both train the same network on the same made-up images with the same batch, threads and optimiser, taking turns in one
process. *Ours* is training.train.Training: images on the device as bytes, crops and flips drawn anew in each epoch as
views of them, channels last. *Plain* is the loop of the protocol: a DataLoader over tensors that were cropped, flipped
and normalised once, channels first, the loss read in every step. Its eight loading processes are left out, which on a
few cores would slow it down. Ours computes in bf16 where --precision auto finds this machine faster in it, as a
run with that setting does; plain in float32, as published.

Overhead: what images and augmentation take of our step, measured alone. Memory: the process's highest so far.
Exits with 1 where ours is less than --least times as fast as plain, or the overhead 5 % or more.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from training.config import CHOICES, PRESETS, Config
from training.data import as_network_input
from training.models import NETWORKS, parameters_of
from training.train import Training, crop, draw_crops, pad

MOST_OVERHEAD = 0.05


def made(images: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Pixels and soft labels of no meaning."""
    random = np.random.default_rng(0)
    return random.integers(256, size=(images, 32, 32, 3), dtype=np.uint8), random.dirichlet(np.ones(10), size=images)


def plain_epoch(
    model: nn.Module, pixels: NDArray[np.uint8], labels: NDArray[np.float64], config: Config
) -> Callable[[], None]:
    """An epoch of the protocol's loop, ready to be called."""
    # Cropped and flipped once, as published: it costs the loop nothing.
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).contiguous()
    loader = DataLoader(
        TensorDataset(images, torch.from_numpy(labels).float()), batch_size=config.batch_size, shuffle=True
    )
    model = model.to(config.device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )

    def epoch() -> None:
        model.train()
        total = 0.0
        for given, wanted in loader:
            inputs, targets = given.to(config.device), wanted.to(config.device)
            loss = -(F.log_softmax(model(inputs), dim=1) * targets).sum() / len(inputs)
            total += loss.item()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()

    return epoch


def feeding_epoch(pixels: NDArray[np.uint8], config: Config) -> Callable[[], None]:
    """What our epoch does before the network sees an image, and nothing else."""
    device = torch.device(config.device)
    padded = pad(pixels, config.padding).to(device)

    def epoch() -> None:
        random = np.random.default_rng(0)
        order = torch.from_numpy(random.permutation(len(padded)))
        crops = draw_crops(len(padded), config.augmentation, random).to(device)
        for rows in order.split(config.batch_size):
            here = rows.to(device)
            as_network_input(crop(padded, here, crops[here]))
        if device.type == "cuda":
            torch.cuda.synchronize()

    return epoch


def measure(
    network: str, batch_size: int, images: int, runs: int, threads: int, device: str, precision: str
) -> dict[str, object]:
    """Medians over ``runs`` turns, with the range of the images per second."""
    torch.set_num_threads(threads)
    settings = {"network": network, "batch_size": batch_size, "threads": threads, "device": device}
    config = Config(**{**PRESETS["protocol"], **settings, "precision": precision})
    pixels, labels = made(images)
    torch.manual_seed(0)
    ours = Training(NETWORKS[network](10), pixels, labels, config)
    turns: dict[str, Callable[[], object]] = {
        "ours": ours.epoch,
        "plain": plain_epoch(NETWORKS[network](10), pixels, labels, config),
        "feeding": feeding_epoch(pixels, config),
    }
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(runs + 1):
        for name, epoch in turns.items():
            began = time.perf_counter()
            epoch()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    speed = {name: sorted(images / each for each in found) for name, found in seconds.items()}
    ratios = [plain / mine for plain, mine in zip(seconds["plain"], seconds["ours"], strict=True)]
    return {
        "network": network,
        "parameters": parameters_of(ours.model),
        "batch_size": batch_size,
        "threads": threads,
        "device": device,
        "precision": ours.precision,
        "ours_images_per_second": [speed["ours"][0], statistics.median(speed["ours"]), speed["ours"][-1]],
        "plain_images_per_second": [speed["plain"][0], statistics.median(speed["plain"]), speed["plain"][-1]],
        "times_as_fast": statistics.median(ratios),
        "overhead": statistics.median(
            feeding / mine for feeding, mine in zip(seconds["feeding"], seconds["ours"], strict=True)
        ),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "device_peak_mb": torch.cuda.max_memory_allocated() // 2**20 if device.startswith("cuda") else None,
    }


def main() -> int:
    """0, or 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=CHOICES["network"], default="vgg11")
    parser.add_argument("--precision", choices=CHOICES["precision"], default="float32", help="ours (default: float32)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=640, help="in an epoch (default: 640)")
    parser.add_argument("--runs", type=int, default=5, help="epochs measured of each (default: 5)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--least", type=float, default=1.0, help="times as fast as plain, or exit with 1 (default: 1)")
    parser.add_argument("--json", action="store_true", help="one line for a program to read")
    arguments = parser.parse_args()
    found = measure(
        arguments.network,
        arguments.batch_size,
        arguments.images,
        arguments.runs,
        arguments.threads,
        arguments.device,
        arguments.precision,
    )
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            shown = [round(v, 1) for v in value] if isinstance(value, list) else value
            print(f"{name:<26}{round(shown, 3) if isinstance(shown, float) else shown}")
    times, overhead = found["times_as_fast"], found["overhead"]
    assert isinstance(times, float)  # noqa: S101 - measure says so
    assert isinstance(overhead, float)  # noqa: S101
    return int(times < arguments.least or overhead >= MOST_OVERHEAD)


if __name__ == "__main__":
    sys.exit(main())
