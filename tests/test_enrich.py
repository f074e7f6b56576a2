"""`enrich`: groups, embeds once, writes catalog and cards, and survives whatever single items do."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from factories import make_embedding, make_space

from t2v_hub import Catalog
from t2v_hub.card import Readme, entry_values
from t2v_hub.embedding import TaskEmbedding, TaskInfo
from t2v_hub.enrich import enrich
from t2v_hub.errors import DataNotFoundError, HubUnreachableError, RateLimitError, SettingsError
from t2v_hub.hub import Connection, pull_embeddings, push_embedding
from t2v_hub.storage import write_atomically
from t2v_hub.testing import LoopbackHub

SPACE = make_space(20)


class Embedder:
    """In place of `Task2Vec`: leaves a file for every data set that it embeds."""

    def __init__(self, log: Path, *, pause_s: float = 0.0, missing=()):
        self.log = log
        self.pause_s = pause_s
        self.missing = set(missing)

    def space(self, *, multi_label=False):
        return SPACE

    def embed(self, data, **options):
        assert options["streaming"] is True
        if data in self.missing:
            raise DataNotFoundError(f"The data set {data!r} is gated.")
        time.sleep(self.pause_s)
        made = make_embedding(seed=len(data), space=SPACE, n_filters=20, task=data)
        task = TaskInfo(data, 100, 4, revision=options["revision"])
        write_atomically(self.log / f"{data.replace('/', '--')}-{time.monotonic_ns()}", b"")
        return TaskEmbedding(made.fisher, made.prior, made.space, task, made.measurement)

    @property
    def embedded(self):
        return sorted(path.name.rpartition("-")[0].replace("--", "/") for path in self.log.iterdir())


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        for name in ("org/birds", "org/cars"):
            hub.add_repo(name, {"README.md": "# data"}, kind="dataset")
        yield hub


@pytest.fixture
def embedder(tmp_path):
    (tmp_path / "log").mkdir()
    return Embedder(tmp_path / "log")


def add(hub, name, *, head="", **options):
    options = {"pipeline_tag": "image-classification", **options}
    hub.add_repo(name, {"README.md": f"---\nlicense: mit\n{head}---\n# {name}\n"}, **options)


def run(hub, embedder, tmp_path, *, token=None, **options):
    link = Connection(
        endpoint=hub.endpoint, token=token or hub.token, sleep=lambda _: None, progress=False, patience_s=100
    )
    return enrich(
        embedder,
        catalog=Catalog(tmp_path / "catalog"),
        folder=tmp_path / "run",
        connection=link,
        progress=False,
        **options,
    )


def test_cards_and_catalog_from_one_filter(hub, embedder, tmp_path):
    add(hub, "owner/a", head="datasets: [org/birds]\n", downloads=9)
    add(hub, "owner/b", head="datasets: org/Birds\nbase_model: owner/c\n", downloads=8)
    add(hub, "owner/c", head="datasets: [org/cars]\n", downloads=7)
    add(hub, "owner/d", head="base_model: owner/c\n", downloads=6)
    add(hub, "owner/e", downloads=5)
    add(hub, "owner/text", head="datasets: [org/words]\n", pipeline_tag="text-classification")

    report = run(hub, embedder, tmp_path)

    assert embedder.embedded == ["org/birds", "org/cars"]
    assert report.n_listed == 5
    assert report.n_through_base == 1
    assert {(d.id, d.n_checkpoints, d.state) for d in report.data_sets} == {
        ("org/birds", 2, "embedded"), ("org/cars", 2, "embedded")
    }  # fmt: skip
    assert {card.state for card in report.cards} == {"committed"}
    assert "names neither a data set nor a base model" in report.without["owner/e"]
    roles = {}
    for name in "abcd":
        [entry] = pull_embeddings(f"owner/{name}", endpoint=hub.endpoint, token=hub.token).entries
        roles[name] = (entry.embedding.task.id, entry.role)
    assert roles == {
        "a": ("org/birds", "pretrain"), "b": ("org/birds", "finetune"), "c": ("org/cars", "pretrain"),
        "d": ("org/cars", "pretrain"),
    }  # fmt: skip
    catalog = Catalog.load(tmp_path / "catalog")
    assert [c.id for c in catalog] == [f"owner/{name}" for name in "abcde"]
    assert [len(c.embeddings) for c in catalog] == [1, 1, 1, 1, 0]
    assert catalog["owner/e"].downloads == 5
    text = str(report)
    assert "5 listed; 4 with a data set (1 through a base model), 1 without" in text
    assert json.loads(json.dumps(report.to_dict()))["schema"] == "t2v-enrich/1"


def test_the_same_again_does_nothing_again(hub, embedder, tmp_path):
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    run(hub, embedder, tmp_path)
    head = hub.head("owner/a")
    hub.clear_requests()

    report = run(hub, embedder, tmp_path)

    assert embedder.embedded == ["org/birds"]
    assert [d.state for d in report.data_sets] == ["reused"]
    assert [c.state for c in report.cards] == ["committed"]
    assert hub.head("owner/a") == head
    assert all(r.method == "GET" for r in hub.requests)


def test_data_that_changed_is_embedded_again(hub, embedder, tmp_path):
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    run(hub, embedder, tmp_path)
    hub.commit("org/birds", {"more.txt": "x"}, kind="dataset")

    run(hub, embedder, tmp_path)

    assert embedder.embedded == ["org/birds"] * 2


def test_a_data_set_that_carries_its_embedding_is_not_measured(hub, embedder, tmp_path):
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    made = make_embedding(seed=3, space=SPACE, n_filters=20)
    task = TaskInfo("org/birds", 100, 4, split="train", revision=hub.head("org/birds", kind="dataset"))
    measured = TaskEmbedding(made.fisher, made.prior, SPACE, task, made.measurement)
    owner = hub.user("org")
    push_embedding("org/birds", measured, role="self", endpoint=hub.endpoint, token=owner)

    report = run(hub, embedder, tmp_path)

    assert embedder.embedded == []
    assert [d.state for d in report.data_sets] == ["from its card"]
    assert b"org/birds" in hub.read("owner/a")


def test_what_is_not_ours_gets_one_pull_request_ever(hub, embedder, tmp_path):
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    bot = hub.user("bot")

    first = run(hub, embedder, tmp_path, token=bot)
    assert [c.state for c in first.cards] == ["refused"]
    assert "would need --create-pr" in first.cards[0].reason
    assert hub.pull_requests("owner/a") == []

    second = run(hub, embedder, tmp_path, token=bot, create_pr=True)
    assert [c.state for c in second.cards] == ["pull request"]
    (tmp_path / "run" / "cards.jsonl").unlink()  # another machine, or a lost disk
    third = run(hub, embedder, tmp_path, token=bot, create_pr=True)
    assert third.cards[0].url == second.cards[0].url
    assert len(hub.pull_requests("owner/a")) == 1

    close(hub, "owner/a", 1)
    (tmp_path / "run" / "cards.jsonl").unlink()
    fourth = run(hub, embedder, tmp_path, token=bot, create_pr=True)
    assert [c.state for c in fourth.cards] == ["declined"]
    assert len(hub.pull_requests("owner/a")) == 1


def close(hub, name, number):
    from huggingface_hub import HfApi

    HfApi(endpoint=hub.endpoint, token=hub.token).change_discussion_status(name, number, "closed")


def test_an_owner_who_opted_out_is_left_alone(hub, embedder, tmp_path):
    add(hub, "owner/a", head="datasets: [org/birds]\ntask2vec: false\n")
    before = hub.read("owner/a")

    report = run(hub, embedder, tmp_path, create_pr=True)

    assert [c.state for c in report.cards] == ["opted out"]
    assert hub.read("owner/a") == before
    assert not [r for r in hub.requests if r.method == "POST"]


def test_catalog_only_leaves_all_cards_alone(hub, embedder, tmp_path):
    add(hub, "owner/a", head="datasets: [org/birds]\n")

    report = run(hub, embedder, tmp_path, catalog_only=True)

    assert [c.state for c in report.cards] == ["catalog only"]
    assert len(Catalog.load(tmp_path / "catalog")["owner/a"].embeddings) == 1
    assert not [r for r in hub.requests if r.method == "POST"]
    with pytest.raises(SettingsError, match="create_pr and catalog_only exclude each other"):
        run(hub, embedder, tmp_path, catalog_only=True, create_pr=True)
    with pytest.raises(SettingsError, match="limit must be a whole number >= 1"):
        run(hub, embedder, tmp_path, limit=0)


def test_a_dry_run_only_says_what_it_would_do(hub, embedder, tmp_path):
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    add(hub, "owner/b", head="datasets: [org/birds]\ntask2vec: false\n")

    report = run(hub, embedder, tmp_path, dry_run=True)

    assert [(d.id, d.n_checkpoints, d.state) for d in report.data_sets] == [("org/birds", 2, "planned")]
    assert {(c.id, c.state) for c in report.cards} == {("owner/a", "planned"), ("owner/b", "opted out")}
    assert embedder.embedded == []
    assert not (tmp_path / "catalog").exists()
    assert not (tmp_path / "run").exists()


def test_one_bad_item_never_ends_the_run(hub, embedder, tmp_path):
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    add(hub, "owner/b", head="datasets: [org/nowhere]\n")
    add(hub, "owner/c", head="datasets: [org/gated]\n")
    add(hub, "owner/d", head="base_model: org/gone\n")
    hub.add_repo("org/gated", {"README.md": "x"}, kind="dataset", gated="manual")
    hub.add_repo(
        "owner/odd",
        {"README.md": "---\ndatasets: &d [org/birds]\ntags: *d\n---\n"},
        pipeline_tag="image-classification",
    )
    hub.add_repo(
        "owner/closed", {"README.md": "---\ndatasets: [org/birds]\n---\n"}, disabled=True,
        pipeline_tag="image-classification",
    )  # fmt: skip
    embedder.missing = {"org/gated"}

    report = run(hub, embedder, tmp_path)

    states = {card.id: card.state for card in report.cards}
    assert states == {"owner/a": "committed", "owner/odd": "failed"}
    failed = {d.id: d.reason for d in report.data_sets if d.state == "failed"}
    assert "may not see it" in failed["org/nowhere"]
    assert "gated" in failed["org/gated"]
    assert "nothing is known of the base model 'org/gone'" in report.without["owner/d"]
    assert report.n_failed == 3
    catalog = Catalog.load(tmp_path / "catalog")
    assert {c.id: len(c.embeddings) for c in catalog} == {
        "owner/a": 1, "owner/b": 0, "owner/c": 0, "owner/d": 0, "owner/odd": 1
    }  # fmt: skip
    assert catalog["owner/b"].source == "org/nowhere"


def test_chains_of_base_models_are_followed(hub, embedder, tmp_path):
    """The base models are not in the listing, and one of them was renamed."""
    hub.add_repo("base/one", {"README.md": "---\nbase_model: base/old\n---\n"})
    hub.add_repo("base/old", {"README.md": "---\ndatasets: [org/cars]\n---\n"})
    hub.rename("base/old", "base/two")
    add(hub, "owner/a", head="base_model: base/one\n")

    report = run(hub, embedder, tmp_path)

    assert [(c.id, c.data_set, c.state) for c in report.cards] == [("owner/a", "org/cars", "committed")]


def test_a_hub_that_is_down_ends_the_run_and_the_next_goes_on(hub, embedder, tmp_path):
    for number in range(8):
        add(hub, f"owner/m{number}", head="datasets: [org/birds]\n")
    hub.faults.fail(500, times=10_000, path=r"owner/m[3-7]")

    with pytest.raises(HubUnreachableError):
        run(hub, embedder, tmp_path)
    hub.faults.clear()
    report = run(hub, embedder, tmp_path)

    assert {card.state for card in report.cards} == {"committed"}
    assert embedder.embedded == ["org/birds"]


def test_a_limit_that_lasts_too_long_ends_the_run(hub, embedder, tmp_path):
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    hub.faults.fail(429, times=10_000, path="/api/models/owner/a", retry_after_s=99)

    with pytest.raises(RateLimitError, match="what was finished is kept"):
        run(hub, embedder, tmp_path)
    hub.faults.clear()

    assert [c.state for c in run(hub, embedder, tmp_path).cards] == ["committed"]
    assert embedder.embedded == ["org/birds"]


def _run_in_process(endpoint, token, folder):
    embedder = Embedder(Path(folder) / "log", pause_s=0.06)
    link = Connection(endpoint=endpoint, token=token, progress=False)
    enrich(
        embedder, catalog=Catalog(Path(folder) / "catalog"), folder=Path(folder) / "run", connection=link,
        progress=False, create_pr=True,
    )  # fmt: skip


def test_kill_9_at_any_moment(hub, tmp_path):
    """No card half written, no data set embedded twice, no second pull request."""
    (tmp_path / "log").mkdir()
    sets = [f"org/set{number}" for number in range(6)]
    for name in sets:
        hub.add_repo(name, {"README.md": "# data"}, kind="dataset")
    cards = {}
    for number in range(18):
        name = f"{'owner' if number % 2 else 'other'}/m{number}"
        add(hub, name, head=f"datasets: [{sets[number % 6]}]\n")
        cards[name] = hub.read(name)
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(1)
    kills = 0
    hub.faults.latency_s = 0.004

    for _ in range(100):
        process = context.Process(target=_run_in_process, args=(hub.endpoint, hub.token, str(tmp_path)))
        process.start()
        process.join(float(rng.uniform(0.05, 0.25)))
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    hub.faults.clear()
    process = context.Process(target=_run_in_process, args=(hub.endpoint, hub.token, str(tmp_path)))
    process.start()
    process.join(60)

    assert process.exitcode == 0
    assert kills >= 5
    # What was cut off between measuring and keeping is the one thing that is done again.
    assert set(Embedder(tmp_path / "log").embedded) == set(sets)
    for name, before in cards.items():
        own = name.startswith("owner")
        text = hub.read(name) if own else hub.read(name, revision="refs/pr/1")
        readme = Readme.parse(text)
        assert len(readme.items) == 1
        assert readme.changed(replace={0: None}, remove_tags=readme.tags) == before
        assert len(hub.pull_requests(name)) == (0 if own else 1)
        assert len(hub.history(name)) == (2 if own else 1)
    assert all(len(candidate.embeddings) == 1 for candidate in Catalog.load(tmp_path / "catalog"))


def test_entries_of_one_data_set_are_equal(hub, embedder, tmp_path):
    """Hundreds of checkpoints share a data set: a reader keeps its vector once."""
    for name in ("owner/a", "owner/b"):
        add(hub, name, head="datasets: [org/birds]\n")
    run(hub, embedder, tmp_path)

    texts = [
        entry_values(pull_embeddings(n, endpoint=hub.endpoint).entries[0].embedding, role="finetune")
        for n in ("owner/a", "owner/b")
    ]

    assert texts[0] == texts[1]
