"""A pool of experts as `digits_pool`, of networks that the old timm of AutoGluon can make."""

from pathlib import Path

import timm
from digits_pool import DigitsPool
from timm.models._hub import save_for_hf  # AutoGluon's timm has it nowhere else

from t2v_hub import Candidate, Catalog, Task2Vec
from t2v_hub.demo.digits import SIDE, TARGETS, Digits, expert_tasks
from t2v_hub.demo.networks import PREPROCESSING, fit, seeded, tensors

ARCHITECTURE = "resnet18"
ARGUMENTS = {"layers": (1, 1, 1, 1)}


def make_pool(folder: Path) -> DigitsPool:
    """Four experts of timm, briefly trained."""
    digits = Digits(0)
    tasks = expert_tasks(("paper", "chalk"))[:4]
    save(new_network(10, seed=99), folder / "probe", [str(digit) for digit in range(10)])
    task2vec = Task2Vec(folder / "probe", max_samples=60, cache=False, progress=False, device="cpu")
    catalog = Catalog(folder / "catalog")
    experts, sources = {}, {}
    for number, task in enumerate(tasks):
        data = digits.dataset(task, "experts", stop=20)
        network = new_network(5, seed=number)
        fit(network, tensors(data, PREPROCESSING), epochs=2, seed=number)
        experts[task.name] = folder / "experts" / task.name
        save(network, experts[task.name], data.features["label"].names)
        sources[task.name] = task2vec.embed(data)
        catalog.add(
            Candidate(str(experts[task.name]), library="timm", source=task.name), embedding=sources[task.name]
        )
    train, test = (digits.dataset(TARGETS[0], pool) for pool in ("train", "test"))
    target = task2vec.embed(train)
    return DigitsPool(folder, folder / "catalog", folder / "probe", experts, sources, target, train, test)


def new_network(n_classes: int, *, seed: int):
    with seeded(seed):
        return timm.create_model(ARCHITECTURE, num_classes=n_classes, **ARGUMENTS)


def save(network, folder: Path, class_names: list[str]) -> None:
    network.pretrained_cfg = {
        "architecture": ARCHITECTURE,
        "num_classes": len(class_names),
        "label_names": class_names,
        "input_size": (3, SIDE, SIDE),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": "conv1",
        "classifier": "fc",
    }
    folder.mkdir(parents=True)
    save_for_hf(network, str(folder), model_args=ARGUMENTS, safe_serialization=True)
    (folder / "README.md").write_text(
        "---\nlibrary_name: timm\ntags: [timm]\n---\n"
    )  # as timm's own push does
