"""What the parts share: a loopback Hub in a process of its own, embeddings that look real, tables."""

import multiprocessing
import os
import platform
import resource
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np

from t2v_hub.card import TAG, entry_values, space_tag
from t2v_hub.card.yamltext import entry_text
from t2v_hub.embedding import Layer, Measurement, Space, TaskEmbedding, TaskInfo
from t2v_hub.testing import LoopbackHub

_GROUPS = 15  # of images, as Task2Vec leaves them out in turn


class Served:
    """A `LoopbackHub` in another process.

    Attributes:
        endpoint: Its address.
        token: Of its owner.
    """

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.endpoint, self.token = self.call(_address)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of the module's top level makes of the hub, over there."""
        self._pipe.send((function, arguments))
        ok, value = self._pipe.recv()
        if not ok:
            raise RuntimeError(value)
        return value


@contextmanager
def served() -> Iterator[Served]:
    """A hub that answers until the block ends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Served(ours)
    finally:
        ours.close()
        process.join(5)
        process.kill()


def _serve(pipe: Pipe) -> None:
    with LoopbackHub() as hub:
        while True:
            try:
                function, arguments = pipe.recv()
            except EOFError:
                return
            try:
                answer = True, function(hub, *arguments)
            except Exception:  # noqa: BLE001  # whatever it is, the other process must hear of it
                answer = False, traceback.format_exc()
            pipe.send(answer)


def _address(hub: LoopbackHub) -> tuple[str, str]:
    return hub.endpoint, hub.token


def space(n_filters: int) -> Space:
    """A space of that many filters, in layers as ResNet's are; 8,512 are those of ResNet-34."""
    shape = [64] * 7 + [128] * 9 + [256] * 13 + [512] * 7 if n_filters >= 500 else [1]
    sizes = [max(1, n * n_filters // sum(shape)) for n in shape]
    sizes[-1] += n_filters - sum(sizes)
    return Space(
        probe="timm/resnet34.a1_in1k",
        probe_digest="sha256:" + "ab" * 32,
        layers=tuple(Layer(f"layer{i // 9}.{i % 9}.conv", n) for i, n in enumerate(sizes)),
        preprocessing={"size": [224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        head={"kind": "l2", "loss": "softmax", "penalty": 10.0},
        sampling={"fisher": "natural"},
        family="fisher",
        beta=1e-9,
    )


def embedding(number: int, where: Space, *, name: str | None = None, target: bool = False) -> TaskEmbedding:
    """An embedding of its own: filters share a profile, as those of a probe do, and differ by a factor of 2 or so."""
    profile = np.random.default_rng(0).normal(-12.0, 2.0, where.n_filters)
    rng = np.random.default_rng((1, number))
    fisher = np.exp(profile + rng.normal(0.0, 0.7, where.n_filters))
    return TaskEmbedding(
        fisher=fisher.astype(np.float32),
        prior=np.full(len(where.layers), 1e-3, np.float32),
        space=where,
        task=TaskInfo(name or f"org/data{number}", 1000, 10, split="train", revision=f"{number:040x}"),
        measurement=Measurement(
            "monte_carlo", 1000, number, standard_error=0.15, distance_standard_error=0.009
        ),
        deviations=rng.normal(0, 0.02, (_GROUPS, where.n_filters)).astype(np.float16) if target else None,
    )


def card(one: TaskEmbedding, *, head: str = "license: mit\n") -> str:
    """A README with that embedding, as `push_embedding` writes it."""
    entry = entry_text(entry_values(one, role="finetune"))
    tags = f'tags:\n- image-classification\n- {TAG}\n- "{space_tag(one.space.id)}"\n'
    return f"---\n{head}{tags}{TAG}:\n{entry}---\n# A model\n\nIt classifies images.\n"


def peak_memory() -> int:
    """Bytes of memory that this process held at most, mapped files among them.

    ``ru_maxrss`` would count what the parent held when it started this process, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def print_machine() -> None:
    """What it ran on."""
    from importlib.metadata import version

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {version(name)}" for name in ("huggingface_hub", "numpy", "pyarrow"))
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"
    print(
        f"\n{_processor()}, {cores} cores; Python {platform.python_version()}, {versions}; OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'unset')}; load at the end {load}"
    )


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table in Markdown."""
    print()
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def megabytes(n_bytes: float) -> str:
    """Bytes in MB."""
    return f"{n_bytes / 1e6:,.0f} MB" if n_bytes >= 1e7 else f"{n_bytes / 1e6:,.2f} MB"


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
