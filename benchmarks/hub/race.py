"""``race``: many clients write embeddings of their own into one card at the same moment.

Round after round, with a card of another shape each time; as threads of one process, and as processes. After
each round all entries must be there, each once, and removing them must give back the card byte for byte.
"""

import argparse
import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serving import Served, embedding, print_machine, print_table, served, space

from t2v_hub.card import Readme
from t2v_hub.errors import CardWarning, T2VError
from t2v_hub.hub import Connection, pull_embeddings, push_embedding, remove_embeddings
from t2v_hub.testing import LoopbackHub

CARDS = (
    "---\nlicense: mit  # ours\ntags:\n- vision\n---\n# A model\n",
    "# No metadata at all\n",
    "---\r\nlicense: mit\r\ntags:\r\n  - vision # kept\r\n# a comment\r\n---\r\n# CRLF\r\n",
    "---\nmodel-index:\n- name: x\n  results:\n  - task: {type: image-classification}\n    metrics: [{type: accuracy, value: 0.9}]\nlicense: other\n---\n",
    "\ufeff---\ndescription: >\n  folded text\n  of two lines\nlanguage: [en, 'no']\n---\n\nBody --- with dashes\n---\n",
)
_SECONDS = 300.0


@dataclass
class Tally:
    """What happened in all rounds of one kind."""

    seconds: list[float] = field(default_factory=list)
    conflicts: int = 0
    commits: int = 0
    failures: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--writers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--entries", type=int, default=600, help="length of each vector")


def main(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.writers, options.rounds, options.entries = 4, 2, 40
    rows, results = [], {}
    with served() as hub:
        for kind, race in (("threads", by_threads), ("processes", by_processes)):
            tally = race(hub, options)
            results[kind] = vars(tally)
            n = options.rounds * options.writers
            rows.append(
                [
                    f"{options.writers} {kind}",
                    options.rounds,
                    f"{n:,}",
                    f"{tally.commits:,}",
                    f"{tally.conflicts:,}",
                    f"{tally.conflicts / n:.1f}",
                    f"{sorted(tally.seconds)[len(tally.seconds) // 2]:.2f}",
                    f"{max(tally.seconds):.2f}",
                    len(tally.failures),
                ]
            )
            for text in tally.failures[:5]:
                print(text)
    print_table(
        ["writers of one card", "rounds", "entries", "commits", "refused as out of date (412)", "of these per entry", "seconds a round", "longest", "failures"],
        rows,
    )  # fmt: skip
    print_machine()
    return {**results, "failed": any(result["failures"] for result in results.values())}


def by_threads(hub: Served, options: argparse.Namespace) -> Tally:
    """Each writer is a thread with a connection of its own."""
    links = [Connection(endpoint=hub.endpoint, token=hub.token) for _ in range(options.writers)]

    def race(repo: str, number: int) -> list[str]:
        failures: list[str] = []
        start = threading.Barrier(options.writers)

        def write(writer: int) -> None:
            start.wait(_SECONDS)
            failures.extend(attempt(repo, number, writer, options.entries, links[writer]))

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(options.writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return failures

    return rounds(hub, options, "threads", race)


def by_processes(hub: Served, options: argparse.Namespace) -> Tally:
    """Each writer is a process."""
    context = multiprocessing.get_context("spawn")
    tasks = [context.Queue() for _ in range(options.writers)]
    answers, start = context.Queue(), context.Barrier(options.writers)
    arguments = (answers, start, hub.endpoint, hub.token, options.entries)
    processes = [
        context.Process(target=_writer, args=(writer, tasks[writer], *arguments), daemon=True)
        for writer in range(options.writers)
    ]
    for process in processes:
        process.start()
    for _ in processes:  # until all have imported
        answers.get(timeout=_SECONDS)

    def race(repo: str, number: int) -> list[str]:
        for queue in tasks:
            queue.put((repo, number))
        return [failure for _ in processes for failure in answers.get(timeout=_SECONDS)]

    try:
        return rounds(hub, options, "processes", race)
    finally:
        for process in processes:
            process.kill()


def _writer(
    writer: int, tasks: Any, answers: Any, start: Any, endpoint: str, token: str, n_entries: int
) -> None:
    link = Connection(endpoint=endpoint, token=token)
    embedding(writer, space(n_entries))
    answers.put([])
    while True:
        repo, number = tasks.get()
        start.wait(_SECONDS)
        answers.put(attempt(repo, number, writer, n_entries, link))


def attempt(repo: str, number: int, writer: int, n_entries: int, link: Connection) -> list[str]:
    """Push one embedding; what went wrong, in words."""
    own = embedding(1000 * number + writer, space(n_entries), name=f"org/data{writer}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CardWarning)  # that the card grows large
        try:
            push_embedding(repo, own, role="finetune", create_pr=False, connection=link)
        except T2VError as error:
            return [f"{repo}, writer {writer}: {type(error).__name__}: {error}"]
    return []


def rounds(
    hub: Served, options: argparse.Namespace, kind: str, race: Callable[[str, int], list[str]]
) -> Tally:
    """All rounds, and what they left."""
    tally = Tally()
    link = Connection(endpoint=hub.endpoint, token=hub.token)
    for number in range(options.rounds):
        repo, content = f"owner/{kind}{number}", CARDS[number % len(CARDS)].encode()
        hub.call(_add, repo, content)
        start = time.perf_counter()
        tally.failures += race(repo, number)
        tally.seconds.append(time.perf_counter() - start)
        commits, conflicts = hub.call(_count, repo)
        tally.commits += commits
        tally.conflicts += conflicts
        tally.failures += wrong(hub, repo, content, number, options, link, commits)
    return tally


def wrong(
    hub: Served,
    repo: str,
    content: bytes,
    number: int,
    options: argparse.Namespace,
    link: Connection,
    commits: int,
) -> list[str]:
    """What is not as it should be after a round, in words."""
    found = pull_embeddings(repo, connection=link)
    got = sorted(entry.half.values.tobytes() for entry in found.entries)
    sent = (embedding(1000 * number + writer, space(options.entries)) for writer in range(options.writers))
    failures = list(found.skipped)
    if got != sorted(_stored(one) for one in sent):
        failures.append(f"{repo}: {len(got)} entries are there, not the {options.writers} that were written")
    if commits != options.writers:
        failures.append(f"{repo}: {commits} commits, not {options.writers}")
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Warnings while validating metadata"
        )  # by the client: there is none
        remove_embeddings(repo, connection=link)
    left: bytes = hub.call(_read, repo)
    if left != content or Readme.parse(left).items:
        failures.append(f"{repo}: something else of the card has changed")
    return failures


def _stored(one: Any) -> bytes:
    from t2v_hub.embedding import HalfVector

    return HalfVector.encode(one.fisher).values.tobytes()


def _add(hub: LoopbackHub, repo: str, content: bytes) -> None:
    hub.add_repo(repo, {"README.md": content})
    hub.clear_requests()


def _count(hub: LoopbackHub, repo: str) -> tuple[int, int]:
    """Commits after the first, and attempts that came too late."""
    late = [r for r in hub.requests if r.method == "POST" and "/commit/" in r.path and r.status == 412]
    return len(hub.history(repo)) - 1, len(late)


def _read(hub: LoopbackHub, repo: str) -> bytes:
    return hub.read(repo)
