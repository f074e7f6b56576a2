"""``search``: what a searcher waits for, with thousands of cards on the Hub.

Cards hold vectors of their own, the worst case, unless ``--data-sets`` says how many they share. The Hub is
another process that has read its cards before, and each row is a fresh client process.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from serving import (
    Served,
    card,
    embedding,
    folder_size,
    megabytes,
    print_machine,
    print_table,
    served,
    space,
)

from t2v_hub.hub.listing import FACTS, PAGE
from t2v_hub.testing import LoopbackHub


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cards", type=int, default=1000)
    parser.add_argument("--entries", type=int, default=8512, help="length of each vector")
    parser.add_argument("--data-sets", type=int, default=None, help="how many vectors the cards share")
    parser.add_argument("--repeats", type=int, default=3, help="client processes of each kind")


def main(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.cards, options.entries, options.repeats = 30, 200, 1
    with served() as hub, tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        n_bytes = hub.call(fill, options.cards, options.entries, options.data_sets)
        hub.call(warm_up)
        print(
            f"{options.cards:,} cards of {n_bytes / options.cards / 1e3:.1f} kB, {options.entries:,} entries, "
            f"{options.data_sets or options.cards:,} distinct vectors; the Hub took {time.perf_counter() - start:.0f} s "
            "to read them"
        )
        return measure(hub, Path(scratch), options)


def measure(hub: Served, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Times and sizes of all kinds of searches; printed, too."""
    target = embedding(1 << 20, space(options.entries), name="org/target", target=True)
    where = target.save(scratch / "target.safetensors")
    runs: dict[str, list[dict[str, Any]]] = {}

    def run(label: str, action: str, folder: str, count: int) -> None:
        for number in range(count):
            place = scratch / (f"{folder}{number}" if action.startswith("cold") else folder)
            runs.setdefault(label, []).append(client(action, place, hub.endpoint, where))

    run("plain", "cold-plain", "plain", options.repeats)
    run("cold", "cold", "catalog", options.repeats)
    run("unchanged", "sync", "catalog0", options.repeats)
    for changed in (10,) if options.quick else (10, 100):
        changed = min(changed, options.cards)
        hub.call(change, changed, options.entries)
        hub.call(warm_up)
        run(f"{changed} changed", "sync", "catalog0", 1)
        assert runs[f"{changed} changed"][-1]["n_read"] == changed
    run("warm", "warm", "catalog1" if options.repeats > 1 else "catalog0", options.repeats)
    check(runs, options)
    report(runs, folder_size(scratch / "catalog0"))
    return {"runs": runs, "on_disk": folder_size(scratch / "catalog0")}


def client(action: str, folder: Path, endpoint: str, target: Path) -> dict[str, Any]:
    """What a fresh process measured of itself, and how long it took as a whole."""
    command = [sys.executable, str(Path(__file__).with_name("client.py")), action]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, str(folder), endpoint, str(target)], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    return {**result, "process_s": seconds}


def check(runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """All clients must have found all cards, and the same ranking."""
    for run in (run for each in runs.values() for run in each):
        assert run["n_listed"] == options.cards, run
        assert not run["skipped"], run["skipped"][:3]
    if options.repeats > 1:  # the other catalog was changed in between
        rankings = {tuple(run["ranked"]) for label in ("plain", "cold", "warm") for run in runs[label]}
        assert len(rankings) == 1, rankings


def report(runs: dict[str, list[dict[str, Any]]], on_disk: int) -> None:
    """Print the tables."""

    def best(label: str) -> dict[str, Any]:
        return sorted(runs[label], key=lambda run: run["whole_s"])[len(runs[label]) // 2]

    rows = []
    for label, name in (
        ("plain", "empty folder to ranking"),
        ("unchanged", "sync, nothing changed"),
        *((label, f"sync, {label}") for label in runs if label.endswith(" changed")),
        ("warm", "folder to ranking"),
    ):
        run = best(label)
        requests = "0" if label == "warm" else f"{run['n_requests']}"
        rows.append(
            [
                name,
                requests,
                f"{run['whole_s']:.2f}",
                f"{run['cpu_s']:.2f}",
                f"{run['process_s']:.2f}",
                f"{run['ranking_s']:.2f}" if "ranked" in run else "–",
                megabytes(max(each["peak"] for each in runs[label])),
            ]
        )
    header = ["a fresh process", "requests", "seconds", "of the processor", "with its start and imports"]
    print_table([*header, "the ranking alone", "peak memory"], rows)
    cold = best("cold")
    parts = {**cold["parts"], "ranking": cold["ranking_s"]}
    parts["the rest"] = cold["whole_s"] - sum(parts.values())
    print_table(
        ["empty folder to ranking, in parts", *parts],
        [["seconds", *(f"{seconds:.2f}" for seconds in parts.values())]],
    )
    print(f"\n{megabytes(cold['n_bytes'])} were transferred; the catalog has {megabytes(on_disk)} on disk.")
    print_machine()


def fill(hub: LoopbackHub, n_cards: int, n_entries: int, n_sets: int | None) -> int:
    """Add cards; returns how many bytes they have."""
    where = space(n_entries)
    total = 0
    texts: dict[int, str] = {}
    for number in range(n_cards):
        which = number % (n_sets or n_cards)
        text = texts.get(which) or card(embedding(which, where))
        if n_sets is not None:
            texts[which] = text
        total += len(text)
        hub.add_repo(
            f"org{number % 97}/model{number}",
            {"README.md": text},
            downloads=number,
            likes=number % 50,
            library_name="timm",
            pipeline_tag="image-classification",
            parameters=21_800_000 + number,
        )
    return total


def warm_up(hub: LoopbackHub) -> None:
    """Have the Hub read all cards, and make the pieces of all answers."""
    for fields in (FACTS, ("sha",)):
        expand = "".join(f"&expand={name}" for name in fields)
        address: str | None = f"{hub.endpoint}/api/models?filter=task2vec&limit={PAGE}&sort=createdAt{expand}"
        while address:
            with urllib.request.urlopen(address) as answer:
                answer.read()
                following = re.match(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
                address = following[1] if following else None


def change(hub: LoopbackHub, count: int, n_entries: int) -> None:
    """Commit other vectors to some cards."""
    where = space(n_entries)
    stamp = len(hub.history("org0/model0"))
    for number in range(count):
        new = card(embedding(10**6 * stamp + number, where))
        hub.commit(f"org{number % 97}/model{number}", {"README.md": new})
