"""What do exact per-example squares cost, beside plain backpropagation?

For each network (random weights, so that nothing is downloaded), in one process and interleaved:

* plain: forward and backward of a batch with the gradients of all weights, as in a training step.
* ours: `SquaredGradients` on the same batch, every example's squares for every filter.

Printed: the medians, the median of the ratios of neighbouring runs, and the peak memory of both above
what the network and its inputs take, each in a process of its own.

    python benchmarks/fisher.py
    python benchmarks/fisher.py --networks resnet18 --image-size 96 --batch 32 --repeats 20
    python benchmarks/fisher.py --quick      # correctness only, small images: nothing is timed

The table goes to standard output, and as JSON to ``--out``.
"""

import argparse
import copy
import gc
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from t2v_hub.fisher import SquaredGradients, frozen
from t2v_hub.fisher.squares import casting
from t2v_hub.probe import Preprocessing, ProbeNetwork

NETWORKS = ["resnet18", "resnet34", "mobilenetv2_100", "convnext_tiny", "vit_small_patch16_224"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="names of timm")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8, help="8 is what embedding takes on a CPU")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", choices=["bfloat16"], default=None)
    parser.add_argument("--out", type=Path, default=Path("build/fisher.json"))
    parser.add_argument("--quick", action="store_true", help="correctness only")
    parser.add_argument("--memory-of", choices=["plain", "ours"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(peak_of(options))
        return
    if options.quick:
        quick(options.networks)
        return
    results = []
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}, batch {options.batch}, "
        f"{options.image_size} px, {options.autocast or 'float32'}, median of {options.repeats}"
    )
    print(
        f"{'network':26s}{'plain ms':>10s}{'ours ms':>10s}{'ratio':>8s}{'range':>14s}{'peak memory ratio':>20s}"
    )
    for name in options.networks:
        result = {"network": name, **timed(name, options), **peaks(name, options)}
        results.append(result)
        print(
            f"{name:26s}{result['plain_ms']:10.0f}{result['ours_ms']:10.0f}{result['ratio']:8.2f}"
            f"{result['lowest']:8.2f}-{result['highest']:.2f}{result['memory_ratio']:20.2f}",
            flush=True,
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {k: str(v) for k, v in vars(options).items() if k not in ("quick", "memory_of")}
    options.out.write_text(json.dumps({"settings": settings, "results": results}, indent=1))


def network(name: str, image_size: int, device: str) -> nn.Module:
    """A network of random weights."""
    torch.manual_seed(0)
    size = {"img_size": image_size} if name.startswith(("vit", "deit", "swin")) else {}
    return timm.create_model(name, num_classes=10, **size).to(device)


def steps(name: str, options: argparse.Namespace) -> tuple[Callable[[], None], Callable[[], None], nn.Module]:
    """Both passes over one batch, and the network that must be frozen for ours."""
    recipe = Preprocessing(size=(options.image_size,) * 2, resize=options.image_size)
    module = network(name, options.image_size, options.device)
    ours = ProbeNetwork.load(module, preprocessing=recipe)
    other = copy.deepcopy(module).eval()
    plain = ProbeNetwork.load(other, preprocessing=recipe)
    inputs = torch.randn(options.batch, 3, *recipe.size, device=options.device)
    direction = torch.randn(options.batch, ours.n_features, device=options.device)
    dtype = getattr(torch, options.autocast) if options.autocast else None

    squares = SquaredGradients(module, ours.features, ours.layers, autocast=dtype)

    def run_plain() -> None:
        other.zero_grad()
        with casting(inputs.device, dtype):
            features = plain.features(inputs)
        features.backward(direction.to(features.dtype))
        wait(options.device)

    def run_ours() -> None:
        squares.forward(inputs)
        squares.backward(direction)
        wait(options.device)

    return run_plain, run_ours, module


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Medians in milliseconds, and the ratio of neighbouring runs."""
    run_plain, run_ours, module = steps(name, options)
    plain, ours = [], []
    with frozen(module):
        for step in (run_plain, run_ours, run_plain, run_ours):
            step()
        for _ in range(options.repeats):
            for step, times in ((run_plain, plain), (run_ours, ours)):
                start = time.perf_counter()
                step()
                times.append(1e3 * (time.perf_counter() - start))
    ratios = np.array(ours) / np.array(plain)
    return {
        "plain_ms": float(np.median(plain)),
        "ours_ms": float(np.median(ours)),
        "ratio": float(np.median(ratios)),
        "lowest": float(ratios.min()),
        "highest": float(ratios.max()),
    }


def peaks(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Peak memory in bytes above what the network and its inputs take."""
    if options.device != "cpu":
        return {key: peak_on_device(name, options, key) for key in ("plain", "ours")} | {
            "memory_ratio": peak_on_device(name, options, "ours") / peak_on_device(name, options, "plain")
        }
    peak = {}
    for what in ("plain", "ours"):
        command = [sys.executable, __file__, "--networks", name, "--memory-of", what]
        command += ["--image-size", str(options.image_size), "--batch", str(options.batch)]
        command += ["--autocast", options.autocast] if options.autocast else []
        # Tensors straight from the system and back, so that what is free is not counted.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        peak[what] = float(output.split()[-1])
    return {
        "plain_bytes": peak["plain"],
        "ours_bytes": peak["ours"],
        "memory_ratio": peak["ours"] / peak["plain"],
    }


def peak_of(options: argparse.Namespace) -> int:
    """Peak resident memory of a pass above what this process held before (Linux)."""
    run_plain, run_ours, module = steps(options.networks[0], options)
    with frozen(module):
        step = run_plain if options.memory_of == "plain" else run_ours
        step()
        gc.collect()
        before, peak, done = resident(), 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.002):
                peak = max(peak, resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        step()
        done.set()
        watcher.join()
    return peak - before


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_on_device(name: str, options: argparse.Namespace, what: str) -> float:
    """Peak memory of the accelerator above what was taken before."""
    run_plain, run_ours, module = steps(name, options)
    with frozen(module):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        (run_plain if what == "plain" else run_ours)()
    return float(torch.cuda.max_memory_allocated() - before)


def quick(networks: list[str]) -> None:
    """Compare squares with autograd, one example at a time, in float64.

    Raises:
        SystemExit: They differ.
    """
    for name in networks:
        module = network(name, 64, "cpu").double()
        probe = ProbeNetwork.load(module, preprocessing=Preprocessing(size=(64, 64), resize=64))
        inputs = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        with frozen(module):
            squares = SquaredGradients(module, probe.features, probe.layers)
            squares.forward(inputs)
            direction = torch.randn(2, probe.n_features, dtype=torch.float64)
            ours = squares.backward(direction)
            weights = [layer.weight for layer in probe.layers]
            for weight in weights:
                weight.requires_grad_(True)
            rows = []
            for image, along in zip(inputs, direction, strict=True):
                gradients = torch.autograd.grad(probe.features(image[None]), weights, along[None])
                rows.append(torch.cat([g.square().flatten(1).mean(dim=1) for g in gradients]))
        truth = torch.stack(rows)
        error = ((ours - truth).abs() / (truth + 1e-6 * truth.mean())).max().item()
        print(f"{name:26s} largest relative error of a filter {error:.1e}, {len(squares.slow)} slow layers")
        if not error <= 1e-9 or squares.slow:
            raise SystemExit(f"{name} is measured wrongly or slowly")


if __name__ == "__main__":
    main()
