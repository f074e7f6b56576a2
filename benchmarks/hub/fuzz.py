"""``fuzz``: hostile READMEs, entries and listings, against the code that reads strangers' cards.

Inputs are made by chance from a seed (``hostile.py``) and read in child processes, some hundreds in each, so that a
crash of the interpreter or of libyaml is counted and does not end the run. An input fails when it raises anything but
`CardError`, takes longer than ``--slow`` seconds (of the processor) or more memory than ``--much`` MB, when an entry that
was added and removed leaves other metadata behind, or when it keeps a good card out of a catalog. Pages of listings may
take 9 times their size more, and 0.1 s a MB: one emoji makes Python hold 4 bytes for each character of a page.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import hostile
from serving import Served, megabytes, peak_memory, print_machine, print_table, served

from t2v_hub import Catalog
from t2v_hub.card import Readme, read_entries
from t2v_hub.errors import CardError, CardWarning, HubError
from t2v_hub.hub import Connection
from t2v_hub.hub.facts import candidate_of, facts_of
from t2v_hub.hub.listing import _MAX_PAGE_BYTES, card_block
from t2v_hub.testing import LoopbackHub

T = TypeVar("T")

_CHUNK = 300
_SECONDS = 30.0  # a child that says nothing for so long is counted as hanging
_LIMIT = 8 << 30  # address space of a child


@dataclass
class Tally:
    """What was found so far."""

    tried: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    usable: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, tuple[float, str]] = field(default_factory=dict)
    memory: dict[str, tuple[int, str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    peak: int = 0

    def add(self, label: str, kind: str, outcome: str, seconds: float, n_bytes: int) -> None:
        """Take in one input."""
        what = kind.partition("_")[0]
        self.tried[what] += 1
        (self.usable if outcome == "usable" else self.refused)[what] += outcome in ("usable", "refused")
        self.slowest[what] = max(self.slowest.get(what, (0.0, "")), (seconds, f"{label} {kind}"))
        self.memory[what] = max(self.memory.get(what, (0, "")), (n_bytes, f"{label} {kind}"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow", type=float, default=2.0, help="seconds that one input may take")
    parser.add_argument("--much", type=float, default=500.0, help="MB that one input may take")
    parser.add_argument("--only", default=None, help="SEED:NUMBER of one input, to look at it")


def main(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.seconds, options.slow = 2.0, _SECONDS  # any machine may run it: only what hangs is found
    if options.only is not None:
        seed, number = map(int, options.only.split(":"))
        label, kind, value, read = made(seed, number)
        print(label, kind, repr(value)[:2000])
        print(observed(lambda steps: read(value, steps)))
        return {}
    tally = Tally()
    with served() as hub, tempfile.TemporaryDirectory() as scratch:
        end, chunk = time.monotonic() + options.seconds, 0
        while time.monotonic() < end:
            run_chunk(hub, tally, options, chunk, Path(scratch) / str(chunk), end)
            chunk += 1
    rows = []
    for what in sorted(tally.tried):
        slow, much = tally.slowest[what], tally.memory[what]
        counts = [f"{counter[what]:,}" for counter in (tally.tried, tally.usable, tally.refused)]
        rows.append([what, *counts, f"{slow[0]:.2f} ({slow[1]})", f"{megabytes(much[0])} ({much[1]})"])
    print_table(["input", "tried", "read", "refused", "slowest, s", "most memory above the process's"], rows)
    print(
        f"\n{sum(tally.tried.values()):,} inputs in {chunk} processes: {len(tally.crashes)} crashes or hangs, "
        f"{len(tally.failures)} failures; peak memory of a process {megabytes(tally.peak)}."
    )
    print(*tally.crashes, *tally.failures[:20], sep="\n")
    print_machine()
    return {**vars(tally), "failed": bool(tally.crashes or tally.failures)}


def run_chunk(
    hub: Served, tally: Tally, options: argparse.Namespace, chunk: int, folder: Path, end: float
) -> None:
    """Some hundred inputs in a child process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(theirs, options, chunk, hub.endpoint, folder, end))
    child.start()
    theirs.close()
    current = "the first input"
    while True:
        try:
            if not ours.poll(_SECONDS):
                tally.crashes.append(f"{current}: no answer for {_SECONDS:.0f} s")
                child.kill()
                break
            message = ours.recv()
        except EOFError:
            child.join()
            if child.exitcode:
                tally.crashes.append(f"{current}: the process ended with {child.exitcode}")
            break
        if message[0] == "begin":
            current = message[1]
        elif message[0] == "listing":
            hub.call(_lie, message[1])
            ours.send("it is served")
        elif message[0] == "peak":
            tally.peak = max(tally.peak, message[1])
        else:
            label, kind, outcome, seconds, n_bytes, length = message[1:]
            tally.add(label, kind, outcome, seconds, n_bytes)
            if outcome not in ("usable", "refused"):
                tally.failures.append(f"{label} {kind}: {outcome}")
            if seconds > options.slow + length / 1e7 or n_bytes > options.much * 1e6 + 9 * length:
                tally.failures.append(f"{label} {kind}: {seconds:.1f} s, {megabytes(n_bytes)}")
    child.join()


def _child(
    pipe: Any, options: argparse.Namespace, chunk: int, endpoint: str, folder: Path, end: float
) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_LIMIT, _LIMIT))
    warnings.simplefilter("ignore", CardWarning)
    rows: list[object] = []
    for number in range(_CHUNK * chunk, _CHUNK * (chunk + 1)):
        if time.monotonic() > end:
            break
        label, kind, value, read = made(options.seed, number)
        pipe.send(("begin", f"{label} {kind}"))
        pipe.send(("done", label, kind, *observed(lambda steps: read(value, steps)), 0))  # noqa: B023  # called at once
        if kind.startswith("row") and len(rows) < 100:
            rows.append(value)
    label = f"listing of chunk {chunk}"
    pipe.send(("begin", label))
    body = listing(random.Random(f"{options.seed}:{chunk}"), rows)
    pipe.send(("listing", body))
    pipe.recv()
    outcome, seconds, n_bytes = observed(lambda steps: steps.take(read_listing, endpoint, folder, body))
    if outcome == "refused" and holds_the_good_card(body):
        outcome = "the good card is not in the catalog"
    pipe.send(("done", label, f"listing_of_{len(body) >> 20}_MiB", outcome, seconds, n_bytes, len(body)))
    pipe.send(("peak", peak_memory()))
    pipe.close()
    os._exit(0)


class Steps:
    """The longest of the steps that an input takes, in seconds of this process."""

    longest = 0.0

    def take(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        start = time.process_time()  # others may be at work on this machine
        try:
            return function(*arguments, **options)
        finally:
            self.longest = max(self.longest, time.process_time() - start)


def observed(work: Callable[[Steps], str]) -> tuple[str, float, int]:
    """What became of an input, how long its longest step took, and how much memory above what there was."""
    before, steps = _reset_peak(), Steps()
    try:
        outcome = work(steps)
    except CardError:
        outcome = "refused"
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is what is looked for
        outcome = f"{type(error).__name__}: {error}"[:300]
    return outcome, steps.longest, max(0, peak_memory() - before)


def made(seed: int, number: int) -> tuple[str, str, Any, Callable[[Any, Steps], str]]:
    """Name, kind and value of an input, and what reads it."""
    rng = random.Random(f"{seed}:{number}")
    label, huge = f"{seed}:{number}", rng.random() < 0.004
    if rng.random() < 0.6:
        return (label, *hostile.readme(rng, huge=huge), read_readme)
    return (label, *hostile.row(rng, huge=huge), read_row)


def read_readme(content: bytes, steps: Steps) -> str:
    """All that is done with a README; raises CardError where it cannot be used."""
    readme = steps.take(Readme.parse, content)
    read_row({"id": "evil/card", "cardData": dict(readme.metadata), "tags": list(readme.tags)}, steps)
    good = hostile.good_entry()
    changed = steps.take(readme.changed, append=[good], add_tags=["task2vec-fuzz"])
    again = Readme.parse(changed)
    if read_entries([again.items[-1]]).skipped:
        return "the entry that was added cannot be read"
    left = {len(again.items) - 1: None}
    back = steps.take(again.changed, replace=left, remove_tags=["task2vec-fuzz"])
    if not _are_like(readme.metadata, Readme.parse(back).metadata):
        return "other metadata has changed"
    return "usable"


def _are_like(before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    """Whether all is equal but that an empty list may be gone, and a lone tag have become a list."""

    def others(values: Mapping[str, object]) -> str:
        return repr({key: value for key, value in values.items() if key not in ("tags", "task2vec")})

    def as_list(value: object) -> str:
        return repr(value if isinstance(value, list) else [] if value is None else [value])

    ours = ("tags", "task2vec")
    return others(before) == others(after) and all(
        as_list(before.get(k)) == as_list(after.get(k)) for k in ours
    )


def read_row(row: Any, steps: Steps) -> str:
    """All that is done with a row of a listing; nothing may be raised."""
    try:
        facts = steps.take(facts_of, row)
        if facts is not None:
            candidate_of(facts)
        found = steps.take(read_entries, card_block(row))
    except CardError as error:
        return f"{type(error).__name__} of a row: {error}"
    return "usable" if found.entries else "refused"


def listing(rng: random.Random, rows: list[object]) -> bytes:
    """A page with such rows and a good one, or a damaged page."""
    good = {"id": "good/card", "sha": "a" * 40, "tags": ["task2vec"], "cardData": {"task2vec": [hostile.good_entry()]}}  # fmt: skip
    pieces, left = [], _MAX_PAGE_BYTES - 10_000 if rng.random() < 0.9 else 10 * _MAX_PAGE_BYTES
    ascii = rng.random() < 0.5
    for row in (good, hostile.odd(rng), *rng.sample(rows, len(rows))):
        piece = json.dumps(row, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
        if len(piece) < left:
            pieces.insert(rng.randrange(len(pieces) + 1), piece)
            left -= len(piece) + 1
    body = b"[%s]" % b",".join(pieces)
    if rng.random() < 0.3:
        place = rng.randrange(len(body))
        body = body[:place] + rng.randbytes(rng.choice((1, 3))) + body[place + rng.choice((0, 1, 40)) :]
    return body


def read_listing(endpoint: str, folder: Path, body: bytes) -> str:
    """A catalog read from that page holds the good card, unless the page as a whole is none, or too large."""
    link = Connection(endpoint=endpoint, token=False, progress=False, sleep=lambda _: None)
    catalog = Catalog(folder)
    try:
        catalog.sync(connection=link)
        found = "good/card" in catalog
    except HubError:
        found = False
    for candidate in Catalog(folder):
        assert all(len(one.fisher) for one in candidate.embeddings)
    return "usable" if found else "refused"


def holds_the_good_card(body: bytes) -> bool:
    """Whether the page is JSON that says so."""
    try:
        rows = json.loads(body) if len(body) <= _MAX_PAGE_BYTES else []
    except (ValueError, RecursionError):
        return False
    good = [row for row in rows if isinstance(row, dict) and row.get("id") == "good/card"]
    return any(read_entries(card_block(row)).entries for row in good[:1])


def _lie(hub: LoopbackHub, body: bytes) -> None:
    hub.faults.lie(r"/api/models$", body, times=1)


def _reset_peak() -> int:
    """Resident memory now, from which the peak is counted anew (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak_memory()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
