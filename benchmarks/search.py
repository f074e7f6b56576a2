"""What does a ranking gain in a hyperparameter search, and what does a bad one cost?

On the demo's handwritten digits: its experts, and its four new tasks with 50 training images each. A search
of ``--trials`` trials chooses an expert and one of five learning rates (1e-4 to 1e-2); a trial is a real,
short fine-tuning of all weights, and its value the accuracy on 75 validation images. Reported is what the
search found: the accuracy, on 125 test images that it never saw, of the trial that was best in validation so
far. Searches:

* ranked: `RankedCheckpointSampler`, the experts in the order of our ranking for the first half of the trials,
  then TPE;
* TPE, and random: Optuna's own, over the same experts and rates;
* shuffled: as ranked, with the ranking in random order, another for each search; reversed: upside down.

A seed is one of the fresh head and of the order of the images. With each, a search is repeated ``--repeats``
times with samplers of other seeds, others for each task too, but the same for all kinds of search: its luck
with the learning rates would outweigh the rest. Means are over all; intervals are 95 % (Student's t) over the
seeds' means, so they hold for these tasks and experts, and other seeds. "everything" is the best in validation
of all experts and rates.

Fine-tunings are kept in a file beside the experts, by what went in; none is done twice, and a run that was
stopped goes on. Experts and ranking are made by the demo in ``--folder``, if they are not there (some minutes).

    OMP_NUM_THREADS=1 python benchmarks/search.py --folder search
    OMP_NUM_THREADS=1 python benchmarks/search.py --folder search --quick
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy.stats import t as student

from t2v_hub import AutoSelector, Catalog, Preprocessing, ProbeNetwork, RankedCandidate, Ranking
from t2v_hub.demo import run as run_demo
from t2v_hub.demo.digits import TARGETS, Digits, DigitTask
from t2v_hub.demo.networks import Batch, accuracy, fit, seeded, tensors
from t2v_hub_integrations.optuna import RankedCheckpointSampler, suggest_checkpoint

N_VALIDATION = 15  # of the 40 images of each digit that are not for training
OURS = "ranked"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    rates: tuple[float, ...]
    epochs: int
    tasks: tuple[DigitTask, ...]


FULL = Plan((1e-4, 3e-4, 1e-3, 3e-3, 1e-2), 10, TARGETS)
QUICK = Plan((1e-3, 3e-3), 1, TARGETS[:1])


@dataclass(frozen=True)
class Tuned:
    """What a fine-tuning came to: accuracy on the images that the search sees, and on those it does not."""

    validation: float
    test: float


class Tunings:
    """Fine-tunings, each done once.

    Args:
        path: Where they are kept, one a line.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.n_new = path, 0
        self.kept: dict[str, Tuned] = {}
        text = path.read_text() if path.exists() else ""
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self.kept[row["key"]] = Tuned(row["validation"], row["test"])
            except (ValueError, KeyError, TypeError):
                print(f"ignored a damaged line of {path}: {line[:60]!r}")
        if not text.endswith("\n"):  # torn off when a run was killed; what comes next is a line of its own
            with path.open("a") as file:
                file.write("\n" if text else "")

    def __call__(self, key: str, tune: Callable[[], Tuned]) -> Tuned:
        if key not in self.kept:
            self.kept[key] = tuned = tune()
            self.n_new += 1
            with self.path.open("a") as file:
                row = {"key": key, "validation": tuned.validation, "test": tuned.test}
                file.write(f"{json.dumps(row)}\n")
        return self.kept[key]


class Target:
    """A new task: its images, the experts ranked for it, and what fine-tuning them gives."""

    def __init__(self, task: DigitTask, catalog: Catalog, tunings: Tunings, plan: Plan) -> None:
        digits = Digits(0)
        self.task, self.tunings, self.plan = task, tunings, plan
        self.train = digits.dataset(task, "train")
        self.validation = digits.dataset(task, "test", stop=N_VALIDATION)
        self.test = digits.dataset(task, "test", start=N_VALIDATION)
        selector = AutoSelector.from_task(
            self.train, catalog=catalog, seed=0, cache=False, device="cpu", progress=False
        )
        self.ranking = selector.rank()
        self.items = {item.candidate.id: item for item in self.ranking}
        self.digests = {id: digest(Path(id)) for id in self.items}
        self.recipes: dict[str, Preprocessing] = {}
        self.inputs: dict[Preprocessing, list[Batch]] = {}

    def tuned(self, id: str, level: int, seed: int) -> Tuned:
        recipe = f"{self.plan.epochs} epochs of 16 at {self.plan.rates[level]:g}, {N_VALIDATION} of a class for validation"
        key = f"{self.task.name} | {Path(id).name} {self.digests[id]} | {recipe} | seed {seed}"
        return self.tunings(key, lambda: self._tune(self.items[id], self.plan.rates[level], seed))

    def _tune(self, item: RankedCandidate, rate: float, seed: int) -> Tuned:
        train, validation, test = self._inputs(item.candidate.id)
        with seeded(seed):
            network = item.load(self.train)
        fit(network, train, epochs=self.plan.epochs, seed=seed, rate=rate, batch_size=16)
        return Tuned(accuracy(network, validation), accuracy(network, test))

    def _inputs(self, id: str) -> list[Batch]:
        """The images as an expert takes them."""
        if id not in self.recipes:
            self.recipes[id] = ProbeNetwork.load(id).preprocessing
        recipe = self.recipes[id]
        if recipe not in self.inputs:
            self.inputs[recipe] = [tensors(data, recipe) for data in (self.train, self.validation, self.test)]
        return self.inputs[recipe]


def digest(folder: Path) -> str:
    """A short name of an expert's weights."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:8]


def ordered(ranking: Ranking, order: NDArray[np.int64]) -> Ranking:
    return replace(ranking, items=tuple(ranking.items[place] for place in order))


def rankings(target: Target, draw: int) -> dict[str, Ranking | None]:
    """By which ranking each search goes; None for none."""
    n = len(target.ranking)
    shuffled = np.random.default_rng([draw, 1]).permutation(n)
    return {
        OURS: target.ranking,
        "TPE": None,
        "random": None,
        "shuffled": ordered(target.ranking, shuffled),
        "reversed": ordered(target.ranking, np.arange(n)[::-1]),
    }


def search(
    name: str, ranking: Ranking | None, target: Target, *, seed: int, draw: int, n_trials: int
) -> Array:
    """Test accuracy of the best trial in validation, after 1, 2, … trials; ``draw`` seeds the sampler."""
    sampler: optuna.samplers.BaseSampler
    if ranking is not None:
        sampler = RankedCheckpointSampler(ranking, n_trials=n_trials, top_k=len(ranking), seed=draw)
    elif name == "TPE":
        sampler = optuna.samplers.TPESampler(seed=draw)
    else:
        sampler = optuna.samplers.RandomSampler(seed=draw)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    tests = []

    def objective(trial: optuna.Trial) -> float:
        id = suggest_checkpoint(trial, target.ranking)
        tuned = target.tuned(id, trial.suggest_int("level", 0, len(target.plan.rates) - 1), seed)
        tests.append(tuned.test)
        return tuned.validation

    study.optimize(objective, n_trials=n_trials)
    if ranking is not None:  # a search that did not follow its ranking would be compared under a wrong name
        first = [trial.params["checkpoint"] for trial in study.trials[: max(1, n_trials // 2)]]
        assert first[: len(ranking)] == list(ranking.ranked[: len(first)])
    values = [trial.value or 0.0 for trial in study.trials]
    return np.array([tests[int(np.argmax(values[: n + 1]))] for n in range(n_trials)])


def everything(target: Target, seed: int) -> float:
    """Test accuracy of the best in validation of all experts and rates."""
    levels = range(len(target.plan.rates))
    all_tuned = [target.tuned(id, level, seed) for id in target.ranking.choices for level in levels]
    return max(all_tuned, key=lambda tuned: tuned.validation).test


def interval(values: Array, *, signed: bool = False) -> str:
    """Mean over seeds and its 95 % interval, in accuracy points."""
    mean = 100 * values.mean()
    sign = "+" if signed else ""
    if len(values) < 2:
        return f"{mean:{sign}.1f}"
    half = 100 * float(student.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{mean:{sign}.1f} ({mean - half:{sign}.1f} to {mean + half:{sign}.1f})"


def report(curves: dict[str, Array], whole: Array, shown: list[int]) -> None:
    """Tables from curves of shape ``(n_seeds, n_targets, n_trials)``."""
    columns = "".join(f" {n} |" for n in shown)
    rule = "|---|" + "---|" * len(shown)
    print(f"\naccuracy in % after so many trials\n\n| |{columns}\n{rule}")
    for name, curve in curves.items():
        cells = "".join(f" {interval(curve[:, :, n - 1].mean(axis=1))} |" for n in shown)
        print(f"| {name} |{cells}")
    print(f"\neverything: {interval(whole.mean(axis=1))}")
    print(f"\nranked less the other, in points, paired by seed\n\n| |{columns}\n{rule}")
    for name, curve in curves.items():
        if name != OURS:
            gain = (curves[OURS] - curve).mean(axis=1)
            cells = "".join(f" {interval(gain[:, n - 1], signed=True)} |" for n in shown)
            print(f"| {name} |{cells}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="of the demo's experts and the results")
    parser.add_argument("--catalog", type=Path, help="experts of another run on the same digits")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="two seeds, one task, two rates, one epoch")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.repeats, args.trials = 2, 2, 4
    plan = QUICK if args.quick else FULL
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    args.folder.mkdir(parents=True, exist_ok=True)
    catalog = args.catalog or args.folder / "demo" / "catalog"
    if args.catalog is None and not (args.folder / "demo" / "report.json").exists():
        run_demo(args.folder / "demo")
    tunings = Tunings(args.folder / "tunings.jsonl")
    targets = [Target(task, Catalog.load(catalog), tunings, plan) for task in plan.tasks]
    searches: dict[str, list[list[Array]]] = {}
    whole = np.zeros((args.seeds, len(targets)))
    for seed in range(args.seeds):
        for number, target in enumerate(targets):
            found: dict[str, list[Array]] = {}
            for repeat in range(args.repeats):
                draw = (seed * len(targets) + number) * args.repeats + repeat
                for name, ranking in rankings(target, draw).items():
                    curve = search(name, ranking, target, seed=seed, draw=draw, n_trials=args.trials)
                    found.setdefault(name, []).append(curve)
            for name, curves in found.items():
                searches.setdefault(name, [[] for _ in range(args.seeds)])[seed].append(
                    np.mean(curves, axis=0)
                )
            whole[seed, number] = everything(target, seed)
        print(f"seed {seed}: {tunings.n_new} fine-tunings so far", flush=True)
    n_points = len(targets[0].ranking) * len(plan.rates)
    print(
        f"\n{len(targets)} tasks, {args.seeds} seeds, {args.repeats} repeats, {n_points} combinations; {tunings.n_new} new fine-tunings"
    )
    for target in targets:
        print(f"{target.task.name}: {' '.join(Path(id).name for id in target.ranking.ranked)}")
    shown = [n for n in (1, 2, 3, 5, 8, 12, 20, 30) if n < args.trials] + [args.trials]
    report({name: np.array(rows) for name, rows in searches.items()}, whole, shown)


if __name__ == "__main__":
    main()
