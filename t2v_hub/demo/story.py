"""`run`: the demo from its first image to its last figure."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t2v_hub.catalog import Candidate, Catalog, Library
from t2v_hub.demo import words
from t2v_hub.demo.digits import RENDERINGS, TARGETS, Digits, DigitTask, Rendering, expert_tasks
from t2v_hub.demo.folder import DemoFolder
from t2v_hub.demo.networks import (
    EXPERT_WIDTHS,
    PREPROCESSING,
    PROBE_WIDTHS,
    accuracy,
    fit,
    joined,
    n_parameters,
    new_network,
    save,
    seeded,
    tensors,
)
from t2v_hub.demo.report import PICTURED, DemoReport, Expert, HubFindings, Trial, sum_up
from t2v_hub.demo.sharing import share
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError
from t2v_hub.plot import plot_distances, plot_ranking
from t2v_hub.probe import DEFAULT_PROBE, ProbeNetwork
from t2v_hub.selector import AutoSelector, Ranking
from t2v_hub.storage import storage_error, write_atomically
from t2v_hub.task2vec import Task2Vec

if TYPE_CHECKING:
    from datasets import Dataset

_HUB_SIDE = 64  # pixels; the digits have 8, so larger inputs would only take longer
_LIBRARIES: tuple[Library, ...] = ("transformers", "timm", "timm", "transformers")
"""Of the experts in turn: each rendering and each half of the digits gets both alike."""


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        renderings: Of the experts' tasks.
        probe_renderings: Of what the probe is trained on.
        targets: The new tasks.
        probe_epochs: Of the probe's training.
        expert_epochs: Of an expert's.
        n_measured: Images of a source task that are measured, at most.
        n_seeds: How often each expert is fine-tuned on each target.
    """

    renderings: tuple[Rendering, ...]
    probe_renderings: tuple[Rendering, ...]
    targets: tuple[DigitTask, ...]
    probe_epochs: int
    expert_epochs: int
    n_measured: int
    n_seeds: int


FULL = Plan(("paper", "chalk", "striped", "colour"), RENDERINGS, TARGETS, 8, 15, 150, 3)
QUICK = Plan(("paper", "colour"), ("paper", "colour"), TARGETS[2:], 2, 3, 30, 1)


def run(
    out: Path,
    *,
    hub: bool = False,
    quick: bool = False,
    seed: int = 0,
    echo: Callable[[str], None] = print,
) -> DemoReport:
    """The report of a complete run, 3 to 5 minutes; checkpoints, catalog, pictures, report lie in ``out``.

    Args:
        out: A new or empty folder, or one of an earlier demo, which is overwritten. Ids and paths in what is
            written are whole, so that they hold in any other folder; a folder that was moved needs a new run.
        hub: Whether to measure with the default pretrained probe from the Hub, instead of a small one
            that is trained here.
        quick: Fewer experts, targets, epochs and seeds: to see that everything works.
        seed: What all randomness hangs on; torch's global randomness is left as it was.
        echo: What to do with each piece of the story.

    Raises:
        ProbeNotFoundError: The Hub is out of reach (``hub``); nothing was trained or written.
        SettingsError: ``out`` holds something else, or ``seed`` is no whole number >= 0.
        StorageError: ``out`` cannot be written.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise SettingsError(f"seed must be a whole number >= 0, not {seed!r}.")
    try:
        return _Story(Path(out), hub=hub, plan=QUICK if quick else FULL, seed=seed, echo=echo).told()
    except OSError as error:  # of torch, timm and transformers; ours come through as they are
        raise storage_error(out, error) from error


@dataclass(frozen=True)
class _Target:
    """A new task: its images, its embedding, and the experts ranked for it."""

    task: DigitTask
    train: "Dataset"
    test: "Dataset"
    embedding: TaskEmbedding
    ranking: Ranking


class _Story:
    """One run; the steps are methods in the order in which they are told."""

    def __init__(self, out: Path, *, hub: bool, plan: Plan, seed: int, echo: Callable[[str], None]) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        self.plan, self.seed, self.echo = plan, seed, echo
        echo("Which of several small checkpoints should be fine-tuned on new handwritten digits?\n")
        # The Hub's probe comes first: without it nothing is trained, and an older result stays.
        self.hub_probe = ProbeNetwork.load(DEFAULT_PROBE, image_size=_HUB_SIDE) if hub else None
        self.folder = DemoFolder(out)
        echo(words.promise(self.folder.path, quick=plan is QUICK))
        self.digits = Digits(seed)
        self.settings: dict[str, Any] = {
            "max_samples": plan.n_measured,
            "seed": seed,
            "cache": self.folder.cache,
            "device": "cpu",
            "progress": False,
        }

    def told(self) -> DemoReport:
        """The whole story."""
        self._say("Images", words.images(self.digits))
        task2vec = Task2Vec(self._probe(), **self.settings)
        catalog = Catalog(self.folder.catalog)
        experts: list[Expert] = []
        embeddings: list[TaskEmbedding] = []
        for number, task in enumerate(expert_tasks(self.plan.renderings)):
            expert, data = self._expert(task, _LIBRARIES[number % len(_LIBRARIES)], number)
            embeddings.append(task2vec.embed(data))
            candidate = Candidate(
                expert.location,
                library=expert.library,
                source=task.name,
                parameters=expert.parameters,
                licence="apache-2.0",
                upstream_accuracy=expert.accuracy,
            )
            catalog.add(candidate, embedding=embeddings[-1])
            experts.append(expert)
        self._say("Experts", words.experts(experts))
        self.echo(words.expert_table(experts))
        self._say("Embedding", words.embedded(embeddings, self.folder.catalog))

        targets = [self._target(task, catalog) for task in self.plan.targets]
        tasks = [target.embedding for target in targets]
        rankings = [target.ranking for target in targets]
        self._say("Ranking", words.target(targets[0].task, targets[0].train.num_rows))
        self.echo(f"\n{rankings[0]}\n\nWhy the first one? {rankings[0].explain(0)}\n")
        plot_ranking(rankings[0], self.folder.ranking)
        shared = share(experts, embeddings, tasks, rankings, targets[0].train, self.folder)
        self._say("Hub", words.shared(shared))

        self._say("Truth", words.truth(len(experts), self.plan.n_seeds))
        trials: list[Trial] = []
        for target in targets:
            accuracies = self._tuned(target.ranking, target.train, target.test)
            trials.append(Trial(target.task.name, target.ranking, accuracies))
            self.echo(words.trial_table(trials[-1]))
        embeddings += tasks
        plot_distances(embeddings, self.folder.distances, name=PICTURED)
        return self._summed_up(experts, trials, shared, task2vec)

    def _say(self, step: str, text: str) -> None:
        self.echo(words.step(time.perf_counter() - self.wall, step, text))

    def _probe(self) -> ProbeNetwork | Path:
        if self.hub_probe is not None:
            self._say("Probe", f"{self.hub_probe.name} from the Hub, at {_HUB_SIDE} pixels")
            return self.hub_probe
        names = [f"digit {digit}" for digit in range(10)]
        tasks = [DigitTask(f"all-{way}", tuple(range(10)), way) for way in self.plan.probe_renderings]
        batches = [
            joined([tensors(self.digits.dataset(task, "probe", **part), PREPROCESSING) for task in tasks])
            for part in ({"stop": -6}, {"start": -6})
        ]
        network = new_network("timm", len(names), widths=PROBE_WIDTHS, seed=self._seed(1))
        fit(network, batches[0], epochs=self.plan.probe_epochs, seed=self._seed(1), batch_size=64)
        save(network, self.folder.probe, class_names=names, widths=PROBE_WIDTHS)
        self._say("Probe", words.probe(n_parameters(network), len(tasks), accuracy(network, batches[1])))
        return self.folder.probe

    def _expert(self, task: DigitTask, library: Library, number: int) -> "tuple[Expert, Dataset]":
        """An expert, trained from scratch and saved, and what it was trained on."""
        data = self.digits.dataset(task, "experts", stop=-12)
        held_out = self.digits.dataset(task, "experts", start=-12)
        network = new_network(library, len(task.digits), widths=EXPERT_WIDTHS, seed=self._seed(2, number))
        fit(network, tensors(data, PREPROCESSING), epochs=self.plan.expert_epochs, seed=self._seed(2, number))
        place = self.folder.expert(task.name)
        save(network, place, class_names=data.features["label"].names, widths=EXPERT_WIDTHS)
        right = accuracy(network, tensors(held_out, PREPROCESSING))
        return Expert(task.name, str(place), library, n_parameters(network), right), data

    def _target(self, task: DigitTask, catalog: Catalog) -> "_Target":
        train, test = (self.digits.dataset(task, pool) for pool in ("train", "test"))
        selector = AutoSelector.from_task(train, catalog=catalog, **self.settings)
        assert selector.task is not None
        return _Target(task, train, test, selector.task, selector.rank())

    def _tuned(self, ranking: Ranking, train: "Dataset", test: "Dataset") -> dict[str, tuple[float, ...]]:
        """Test accuracy of every candidate after a short fine-tuning, once per seed."""
        accuracies: dict[str, tuple[float, ...]] = {}
        for item in ranking:
            recipe = ProbeNetwork.load(item.candidate.id).preprocessing
            inputs, judged = tensors(train, recipe), tensors(test, recipe)
            values = []
            for number in range(self.plan.n_seeds):
                seed = self._seed(3, number)  # the same for all experts: one source of noise less
                with seeded(seed):
                    network = item.load(train)
                fit(network, inputs, epochs=10, seed=seed, rate=1e-3, batch_size=16)
                values.append(accuracy(network, judged))
            accuracies[item.candidate.id] = tuple(values)
        return accuracies

    def _summed_up(
        self, experts: list[Expert], trials: list[Trial], shared: HubFindings, task2vec: Task2Vec
    ) -> DemoReport:
        outcome = sum_up(trials, experts, seed=self.seed)
        report = DemoReport(
            seed=self.seed,
            quick=self.plan is QUICK,
            probe=task2vec.probe.name,
            space=task2vec.space().id,
            experts=tuple(experts),
            trials=tuple(trials),
            outcome=outcome,
            hub=shared,
            files={
                "catalog": str(self.folder.catalog),
                "distances": str(self.folder.distances),
                "ranking": str(self.folder.ranking),
                "report": str(self.folder.report),
            },
            wall_s=time.perf_counter() - self.wall,
            cpu_s=time.process_time() - self.cpu,
            peak_bytes=_peak_bytes(),
        )
        content = json.dumps(report.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(self.folder.report, content.encode())
        self._say("Outcome", words.spread(outcome))
        self.echo(words.outcome_table(outcome))
        self.echo(words.verdict(outcome, len(trials), self.plan.n_seeds))
        self.echo(words.closing(report))
        return report

    def _seed(self, *purpose: int) -> int:
        return int(np.random.SeedSequence([self.seed, *purpose]).generate_state(1)[0])


def _peak_bytes() -> int | None:
    if sys.platform == "win32":  # has no resource module
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
