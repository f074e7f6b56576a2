"""Does the selector choose well? A pool of real checkpoints and experts, judged on real tasks.

    python -m benchmarks.selection experts --data ../shared/kit/data --weights ../shared/kit/weights --out zoo
    python -m benchmarks.selection errors  --data … --weights … --out zoo
    python -m benchmarks.selection embed   --data … --weights … --out zoo
    python -m benchmarks.selection table   --data … --weights … --out zoo

``experts`` fine-tunes checkpoints on the sources, ``errors`` measures test errors and second-stage scores of
every checkpoint on every task, ``embed`` the tasks' embeddings, ``table`` judges. All may be interrupted and
go on where they stopped; ``--shard i/n`` divides the work among processes.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.selection import experts as expert_room
from benchmarks.selection.experts import Checkpoint
from benchmarks.selection.tasks import N_SPLITS, SIZES, Task, decoded, read_tasks, splits

CAP = 300
FINE_TUNING = 15  # epochs
Item = TypeVar("Item")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--data", type=Path, help="folder with tasks.json and parquet files")
    parser.add_argument("--weights", type=Path, help="folder of pretrained checkpoints")
    parser.add_argument("--out", type=Path, help="where to keep what was measured")
    parser.add_argument("--cap", type=int, default=CAP, help="images of a target, at most")
    parser.add_argument(
        "--tasks", type=int, default=None, help="so many targets only, of all sources in turn"
    )
    parser.add_argument("--free", action="store_true", help="leave out what may not be passed on")
    parser.add_argument("--shard", default="0/1", help="i/n: the part of one of n processes")
    parser.add_argument("--recipe", default="default", help="how to embed: see RECIPES in embedding.py")
    parser.add_argument("--splits", type=int, default=N_SPLITS, help="splits to embed")
    parser.add_argument("--size", choices=SIZES, help="of the table; all by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--probe", default="mobilenetv2_035.tm_in1k", help="name of a pretrained checkpoint")
    parser.add_argument("--keep", type=Path, help="table: write what it needs to this file")
    parser.add_argument("--kept", type=Path, help="table, settle: judge by what such a file holds")
    args = parser.parse_args()
    if args.kept is None and None in (args.data, args.weights, args.out):
        parser.error("--data, --weights and --out are needed, or --kept FILE (with --out for settle)")
    return args


def pool(args: argparse.Namespace) -> tuple[list[Task], list[Checkpoint]]:
    """The targets, and every candidate."""
    tasks = read_tasks(args.data)
    bases = expert_room.pretrained(args.weights)
    found = bases + expert_room.planned(tasks, args.out / "experts", bases)
    if args.free:
        tasks, found = [task for task in tasks if task.free], [one for one in found if one.free]
    return tasks[: args.tasks], found


def shard(items: Sequence[Item], args: argparse.Namespace) -> Iterator[Item]:
    """This process's part of the items."""
    part, n = map(int, args.shard.split("/"))
    mixed = random.Random(0).sample(list(items), len(items)) if n > 1 else list(items)  # large and small ones
    mine = mixed[part::n]
    return iter(tqdm(mine, desc=args.stage, unit="item", mininterval=10))


def experts(args: argparse.Namespace) -> None:
    """Fine-tune every expert that is not there yet."""
    _, found = pool(args)
    by_name = {one.name: one for one in found}
    tasks = {task.name: task for task in read_tasks(args.data)}
    for expert in shard([one for one in found if one.base], args):
        if not expert.path.exists():
            start = time.perf_counter()
            union = [tasks[name] for name in expert.tasks]
            images, labels = expert_room.union_of(union, args.out / "images")
            base = by_name[expert.base or ""]
            expert_room.fine_tune(expert, base, images, labels)
            print(f"{expert.name}: {len(images)} images, {time.perf_counter() - start:.0f} s", flush=True)


def errors(args: argparse.Namespace) -> None:
    """Measure every checkpoint on every task."""
    from benchmarks.selection.measuring import Reader, measure

    tasks, found = pool(args)
    readers = {one.name: Reader(one) for one in found}
    for task in shard(tasks, args):
        images, labels = decoded(task, args.cap, args.out / "images")
        for one in found:
            measure(readers[one.name], task, images, labels, args.out / "measured")


def embed(args: argparse.Namespace) -> None:
    """Embed the experts' training sets and, split by split, every target."""
    from benchmarks.selection import embedding as room

    tasks, found = pool(args)
    probe = next(one for one in expert_room.pretrained(args.weights) if one.name == args.probe)
    name = probe.name if args.recipe == "default" else f"{probe.name}--{args.recipe}"
    task2vec, folder = room.embedder(probe, args.recipe), args.out / "embeddings" / name
    sizes = SIZES if args.size is None else (args.size,)
    every = read_tasks(args.data)
    if args.shard.startswith("0/"):
        experts = [one for one in found if one.base]
        of_sources = room.embedder(probe, args.recipe, of_sources=True)
        room.embed_sources(of_sources, experts, every, args.out / "images", folder)
    for task in shard(tasks, args):
        images, labels = decoded(task, args.cap, args.out / "images")
        chosen = list(room.parts(labels, sizes, args.splits))
        room.mean_features(probe, task, images, chosen, folder)
        room.embed_task(task2vec, task, room.Pairs(images, labels), chosen, folder)


def table(args: argparse.Namespace) -> None:
    """Judge every row at every size; ``--keep`` writes what that needs, ``--kept`` starts from such a file."""
    from benchmarks.selection import keeping
    from benchmarks.selection.pool import read_embedded, read_measured
    from benchmarks.selection.report import DEFAULT, calibration, everything, first_stages
    from t2v_hub.judging import Judge, rows

    parts = []
    for size in SIZES if args.size is None else (args.size,):
        if args.kept is not None:
            measured, stages = keeping.kept(args.kept, size)
        else:
            tasks, found = pool(args)
            measured = read_measured(tasks, found, args.out / "measured", size)
            embedded = read_embedded(measured, args.out / "embeddings" / args.probe)
            measured = replace(measured, embedding_seconds=embedded.seconds)
            stages = first_stages(measured, embedded)
        parts.append((measured, stages))
        judge = Judge(measured.truth)
        judged = everything(judge, measured, stages)
        print(f"\n## {size}: {len(measured.tasks)} targets, {len(measured.candidates)} candidates\n")
        print(rows.table(judge, list(judged.rows.values()), costs=judged.costs), flush=True)
        if measured.outcomes:
            order = judged.shortlists[DEFAULT]
            for k in (len(measured.candidates), 5):
                print(f"\nties, {k} loaded: {calibration(measured, order, k)}")
    if args.keep is not None:
        command = " ".join(sys.argv[1:])
        keeping.keep(args.keep, parts, {"command": command, "probe": args.probe, "cap": str(args.cap)})


def settle(args: argparse.Namespace) -> None:
    """Which probe, recipe and distance choose the best training set: a table per folder of embeddings."""
    from benchmarks.selection import keeping
    from benchmarks.selection.pool import read_measured
    from benchmarks.selection.settling import embedded, judged
    from t2v_hub.judging import rows

    size = args.size or "half"
    if args.kept is not None:
        measured, _ = keeping.kept(args.kept, size)
    else:
        measured = read_measured(*pool(args), args.out / "measured", size)
    for folder in sorted((args.out / "embeddings").iterdir()):
        judge, lines = None, []
        part = embedded(measured, folder, args.splits)
        if part is None:
            print(f"\n{folder.name}: no target is embedded for {args.splits} splits of {size}")
            continue
        for name, row, one in judged(part, folder, n_splits=args.splits):
            judge = one
            lines.append(replace(row, name=f"{folder.name}: {name}"))
        if judge is not None:
            print(
                f"\n## {folder.name}, {size}, {args.splits} splits, {len(part.tasks)} targets\n\n"
                f"{rows.table(judge, lines)}",
                flush=True,
            )


def finetune(args: argparse.Namespace) -> None:
    """Fine-tune the candidates of the small base on some targets; does their order hold?"""
    from scipy.stats import spearmanr

    tasks, found = pool(args)
    size, lines = args.size or "20", []
    for task in shard(tasks, args):
        images, labels = decoded(task, args.cap, args.out / "images")
        trains = splits(labels, size)[: args.splits]
        own = [
            one for one in found if expert_room.SMALL in (one.base, one.name) and task.name not in one.tasks
        ]
        if not trains:
            continue
        linear, tuned = [], []
        for one in own:
            values = []
            for split, train in enumerate(trains):
                path = args.out / "finetuned" / task.key / f"{one.name}-{size}-{split}.json"
                if not path.exists():
                    error = expert_room.fine_tuned_error(
                        one, images, labels, train, seed=split, epochs=FINE_TUNING
                    )
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(error))
                values.append(json.loads(path.read_text()))
            tuned.append(float(np.mean(values)))
            with np.load(args.out / "measured" / task.key / f"{one.name}.npz") as file:
                linear.append(float(file[f"{size}/error"].mean()))
        pick = tuned[int(np.argmin(linear))]
        lines.append((task.name, spearmanr(linear, tuned).statistic, pick, min(tuned), float(np.mean(tuned))))
    for name, rho, pick, best, mean in lines:
        print(
            f"{name}: Spearman {rho:.2f}; pick by linear error {pick:.3f}, best {best:.3f}, mean {mean:.3f}"
        )


STAGES = {
    "experts": experts,
    "errors": errors,
    "embed": embed,
    "table": table,
    "settle": settle,
    "finetune": finetune,
}


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    STAGES[args.stage](args)


if __name__ == "__main__":
    main()
