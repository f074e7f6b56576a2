"""Six small experts on handwritten digits: on disk with a catalog, and on a Hub of this machine.

Adapters and examples are tested on them: real checkpoints of both libraries, which load in a moment.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from t2v_hub import Candidate, Catalog, ModelSelector, Task2Vec, TaskEmbedding
from t2v_hub.testing import LoopbackHub

if TYPE_CHECKING:
    from datasets import Dataset

WIDTHS = (16, 24, 32, 48)
OWNER = "digits"
DATA = f"{OWNER}/odd-chalk"
"""Id of the new task on the Hub: splits ``train`` (50 images of five classes) and ``test`` (200)."""
PROBE = "timm/resnet18.a1_in1k"
"""What the probe is called on the Hub: the name of the default one, which is a real network there."""


@dataclass(frozen=True)
class DigitsPool:
    """Experts on disk, a catalog of them, and a new task.

    Attributes:
        folder: Where everything lies.
        catalog: Folder of a catalog whose candidates are `experts`, by their paths.
        probe: Folder of the probe.
        experts: Folder of each expert by name; even ones are of transformers, odd ones of timm.
        sources: Embedding of what each was trained on, by name.
        target: Embedding of the new task.
        train: Images of the new task, 10 of each of five digits.
        test: 40 more of each.
    """

    folder: Path
    catalog: Path
    probe: Path
    experts: Mapping[str, Path]
    sources: Mapping[str, TaskEmbedding]
    target: TaskEmbedding
    train: "Dataset"
    test: "Dataset"

    def selector(self) -> ModelSelector:
        """Bound to the new task."""
        return ModelSelector(Catalog.load(self.catalog), task=self.target, images=self.train)


def make_pool(folder: Path) -> DigitsPool:
    """The experts, briefly trained; some ten seconds."""
    from t2v_hub.demo.digits import TARGETS, Digits, expert_tasks
    from t2v_hub.demo.networks import PREPROCESSING, fit, n_parameters, new_network, save, tensors

    digits = Digits(0)
    probe = folder / "probe"
    save(new_network("timm", 10, widths=WIDTHS, seed=99), probe, class_names="0123456789", widths=WIDTHS)
    task2vec = Task2Vec(probe, max_samples=100, cache=False, progress=False, device="cpu")
    catalog = Catalog(folder / "catalog")
    experts, sources = {}, {}
    for number, task in enumerate(expert_tasks(("paper", "chalk", "colour"))):
        library = ("transformers", "timm")[number % 2]
        data = digits.dataset(task, "experts", stop=30)
        network = new_network(library, 5, widths=WIDTHS, seed=number)  # type: ignore[arg-type]
        fit(network, tensors(data, PREPROCESSING), epochs=3, seed=number)
        experts[task.name] = folder / "experts" / task.name
        save(network, experts[task.name], class_names=data.features["label"].names, widths=WIDTHS)
        sources[task.name] = task2vec.embed(data)
        candidate = Candidate(
            str(experts[task.name]),
            library=library,  # type: ignore[arg-type]
            source=task.name,
            parameters=n_parameters(network),
        )
        catalog.add(candidate, embedding=sources[task.name])
    train, test = (digits.dataset(TARGETS[0], pool) for pool in ("train", "test"))  # type: ignore[arg-type]
    target = task2vec.embed(train)
    return DigitsPool(folder, folder / "catalog", probe, experts, sources, target, train, test)


@dataclass(frozen=True)
class DigitsHub:
    """A running Hub with the pool's experts, enriched, the probe, and the new task's images.

    Attributes:
        hub: The Hub.
        environment: Of processes that are to know it and nothing else.
    """

    hub: LoopbackHub
    environment: Mapping[str, str]

    def run(
        self, script: Path, arguments: Sequence[str], folder: Path, *, timeout: float = 300
    ) -> "subprocess.CompletedProcess[str]":
        """What a user's script does, in a new process, in a folder of its own; its failure is raised.

        Args:
            script: A Python file.
            arguments: Of its command line.
            folder: Where it runs, and where its caches are.
            timeout: Seconds after which it has failed.
        """
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            env={**self.environment, "HF_HOME": str(folder / "hf"), "T2V_HOME": str(folder / "t2v")},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done


def publish(pool: DigitsPool, hub: LoopbackHub, folder: Path) -> DigitsHub:
    """The pool on a Hub that runs already, put there with the real client."""
    environment = {**os.environ, **hub.environment(folder / "hf"), "TQDM_DISABLE": "1"}
    for id in (PROBE, f"{OWNER}/{next(iter(pool.experts))}"):
        hub.add_repo(id, {}, owner="owner")  # whose the token is: now a member of both namespaces
    pool.train.save_to_disk(folder / "train")
    pool.test.save_to_disk(folder / "test")
    for name, source in pool.sources.items():
        source.save(folder / f"{name}.safetensors")
    script = Path(__file__).parent / "digits_publishing.py"
    done = subprocess.run(
        [sys.executable, str(script), str(pool.folder), str(folder)],
        env={**environment, "T2V_HOME": str(folder / "t2v")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return DigitsHub(hub, environment)
