"""``kill``: enrichment that is killed (SIGKILL) at random moments, and started again.

A stand-in measures each data set in some tenths of a second; listing, cards, pull requests, catalog and journal are the
real ones. After each kill the catalog must be readable and every card whole, and while a run is at work another
process reads the catalog without pause. In the end every card has its entry, no repository has two pull requests, and
no data set was measured again once its embedding was kept.
"""

import argparse
import itertools
import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from serving import Served, embedding, print_machine, print_table, served, space

from t2v_hub import Catalog
from t2v_hub.card import Readme, read_entries
from t2v_hub.embedding import TaskEmbedding, TaskInfo
from t2v_hub.enrich import enrich
from t2v_hub.enrich.journal import Journal
from t2v_hub.errors import CardError
from t2v_hub.hub import Connection
from t2v_hub.hub.cards import without_entries
from t2v_hub.testing import LoopbackHub

SPACE = space(2000)
_SECONDS = 0.3
_LATENCY = 0.004


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--moments", type=int, default=20, help="kills of each seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data-sets", type=int, default=12)
    parser.add_argument("--cards", type=int, default=72)


@dataclass
class Tally:
    """What one seed found."""

    kills: int = 0
    begun: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    readings: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def main(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.moments, options.seeds, options.data_sets, options.cards = 3, 1, 3, 9
    tallies = []
    for seed in range(options.seeds):
        with served() as hub, tempfile.TemporaryDirectory() as scratch:
            tallies.append(one_seed(hub, Path(scratch), seed, options))
    rows = []
    for seed, tally in enumerate(tallies):
        times = Counter(tally.begun.values())
        rows.append(
            [
                seed,
                tally.kills,
                f"{len(tally.begun)}: " + ", ".join(f"{n} × {count}" for count, n in sorted(times.items())),
                sum(tally.again.values()),
                tally.requests,
                f"{tally.readings:,}",
                f"{tally.seconds:.1f}",
                len(tally.wrong),
            ]
        )
    print_table(
        [
            "seed",
            "killed",
            "data sets: times that measuring began",
            "measured again though kept",
            "pull requests",
            "readings of the catalog",
            "seconds of work",
            "anything wrong",
        ],
        rows,
    )
    for text in (text for tally in tallies for text in tally.wrong[:10]):
        print(text)
    print_machine()
    failed = any(tally.wrong or tally.again for tally in tallies)
    return {"seeds": [vars(tally) for tally in tallies], "failed": failed}


def one_seed(hub: Served, folder: Path, seed: int, options: argparse.Namespace) -> Tally:
    """Kill so many runs, then let one end; what was found on the way."""
    cards: dict[str, bytes] = hub.call(fill, options.cards, options.data_sets)
    rng = np.random.default_rng(seed)
    tally = Tally()
    # From how long it takes undisturbed, roughly: the kills shall be spread over all of the work.
    work = options.data_sets * _SECONDS + options.cards * 0.12
    moments = rng.uniform(0.0, 2.0 * work / (options.moments + 2), options.moments)
    (folder / "log").mkdir()
    for wait in moments:
        process = start(hub, folder)
        begun = time.perf_counter()
        deadline = begun + 0.15 + float(wait)  # what a run takes to find where it was
        while time.perf_counter() < deadline and process.is_alive():
            tally.readings += readable(folder, tally.wrong)
            time.sleep(max(0.0, min(0.01, deadline - time.perf_counter())))
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            tally.kills += 1
        process.join()
        tally.seconds += time.perf_counter() - begun
        tally.readings += readable(folder, tally.wrong)
        whole(hub, cards, tally, done=False)
    process = start(hub, folder)
    process.join(120)
    if process.exitcode != 0:
        tally.wrong.append(f"the last run ended with {process.exitcode}")
    whole(hub, cards, tally, done=True)
    for path in (folder / "log").iterdir():
        state, name = path.name.split("--")[:2]
        (tally.begun if state == "begun" else tally.again)[name] += 1
    catalog = Catalog.load(folder / "catalog")
    if sorted(each.id for each in catalog) != sorted(cards) or any(
        len(each.embeddings) != 1 for each in catalog
    ):
        tally.wrong.append("the catalog does not hold all checkpoints with their embeddings")
    return tally


def start(hub: Served, folder: Path) -> multiprocessing.process.BaseProcess:
    """A run of enrichment as a process."""
    context = multiprocessing.get_context("fork")  # what is imported here is imported there: it works at once
    process = context.Process(target=_run, args=(hub.endpoint, hub.token, folder))
    process.start()
    return process


def _run(endpoint: str, token: str, folder: Path) -> None:
    link = Connection(endpoint=endpoint, token=token, progress=False)
    enrich(
        Embedder(folder),  # type: ignore[arg-type]  # what it needs of one
        catalog=Catalog(folder / "catalog"),
        folder=folder / "run",
        connection=link,
        create_pr=True,
        progress=False,
    )


class Embedder:
    """In place of `Task2Vec`: leaves a file when it begins, and another where it should not have had to."""

    max_samples = 1000

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def space(self) -> Any:
        return SPACE

    def embed(self, data: str, *, revision: str, **options: Any) -> TaskEmbedding:
        self._note("begun", data)
        if Journal(self.folder / "run").embedding(data, revision) is not None:
            self._note("again", data)
        time.sleep(_SECONDS)
        made = embedding(int(data.removeprefix("org/set")), SPACE)
        task = TaskInfo(data, 100, 4, revision=revision)
        return TaskEmbedding(made.fisher, made.prior, made.space, task, made.measurement)

    def _note(self, state: str, data: str) -> None:
        (self.folder / "log" / f"{state}--{data.replace('/', '-')}--{time.monotonic_ns()}").touch()


def readable(folder: Path, wrong: list[str]) -> int:
    """Read the catalog and all its embeddings."""
    try:
        for candidate in Catalog(folder / "catalog"):
            for one in candidate.embeddings:
                assert one.space == SPACE
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
        wrong.append(f"catalog: {type(error).__name__}: {error}")
    return 1


def whole(hub: Served, cards: dict[str, bytes], tally: Tally, *, done: bool) -> None:
    """Each card on each branch is as it was, or has just our entry more; one pull request at most."""
    tally.requests = 0
    for name, branches in hub.call(_branches, list(cards)).items():
        n_requests, n_commits = len(branches) - 1, len(branches["main"])
        tally.requests += n_requests
        own = name.startswith("owner")
        if n_requests > (0 if own else 1) or n_commits > (2 if own else 1):
            tally.wrong.append(f"{name}: {n_requests} pull requests, {n_commits} commits")
        for branch, versions in branches.items():
            for content in versions:
                tally.wrong += [f"{name}, {branch}: {problem}" for problem in problems(content, cards[name])]
        last = (
            branches["main"][-1]
            if own or n_requests == 0
            else next(v for b, v in branches.items() if b != "main")[-1]
        )
        if done and len(Readme.parse(last).items) != 1:
            tally.wrong.append(f"{name}: it has no entry in the end")


def problems(content: bytes, before: bytes) -> Iterator[str]:
    """What is wrong with a card."""
    if content == before:
        return
    try:
        readme = Readme.parse(content)
    except CardError as error:
        yield str(error)
        return
    found = read_entries(readme.metadata.get("task2vec"))
    if len(found.entries) != 1 or found.skipped:
        yield f"{len(found.entries)} entries, {found.skipped}"
    if without_entries(readme) != before:
        yield "something else of it has changed"


def fill(hub: LoopbackHub, n_cards: int, n_sets: int) -> dict[str, bytes]:
    """Add data sets and checkpoints, half of which may be written; returns the cards."""
    for number in range(n_sets):
        hub.add_repo(f"org/set{number}", {"README.md": "# data"}, kind="dataset")
    hub.faults.latency_s = _LATENCY
    cards = {}
    for number, owner in zip(range(n_cards), itertools.cycle(("owner", "other"))):
        name = f"{owner}/m{number}"
        text = f"---\nlicense: mit\ndatasets: [org/set{number % n_sets}]\n---\n# {name}\n"
        hub.add_repo(name, {"README.md": text}, pipeline_tag="image-classification", downloads=number)
        cards[name] = text.encode()
    return cards


def _branches(hub: LoopbackHub, names: list[str]) -> dict[str, dict[str, list[bytes]]]:
    """All versions of each card by branch, oldest first."""
    found = {}
    for name in names:
        branches = {"main": [commit.tree["README.md"].data for commit in reversed(hub.history(name))]}
        for request in hub.pull_requests(name):
            branch = f"refs/pr/{request.number}"
            branches[branch] = [hub.read(name, revision=branch)]
        found[name] = branches
    return found
