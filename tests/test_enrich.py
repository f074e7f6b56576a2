"""`enrich`: groups, embeds once, writes catalog and cards, and survives whatever single items do."""

import inspect
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cli_data import t2v
from factories import make_embedding, make_space
from huggingface_hub import HfApi
from tqdm.auto import tqdm

from t2v_hub import Candidate, Catalog
from t2v_hub.card import Readme, entry_values, read_entries
from t2v_hub.embedding import TaskEmbedding, TaskInfo
from t2v_hub.enrich import enrich
from t2v_hub.enrich.journal import Journal
from t2v_hub.errors import (
    DataNotFoundError,
    HubUnreachableError,
    RateLimitError,
    SettingsError,
    StorageError,
)
from t2v_hub.hub import Connection, pull_embeddings, push_embedding
from t2v_hub.hub.cards import without_entries
from t2v_hub.storage import home
from t2v_hub.testing import LoopbackHub

SPACE = make_space(20)


class Embedder:
    """In place of `Task2Vec`: writes down what it embeds, one whole line at a time."""

    def __init__(self, folder: Path, *, pause_s: float = 0.0, max_samples: int = 1000):
        self.log = folder / "embedded.jsonl"
        self.kept = folder / "run"
        self.pause_s = pause_s
        self.max_samples = max_samples
        self.missing: dict[str, Exception] = {}
        self.options: dict[str, object] = {}

    def space(self, *, multi_label=False):
        return SPACE

    def embed(self, data, **options):
        self.options = options
        assert options["streaming"] is True
        if data in self.missing:
            raise self.missing[data]
        self._note("begun", data)
        made = make_embedding(seed=len(data), space=SPACE, n_filters=20, task=data)
        time.sleep(self.pause_s)
        task = TaskInfo(data, 100, 4, revision=options["revision"])
        return TaskEmbedding(made.fisher, made.prior, made.space, task, made.measurement)

    def _note(self, event, data):
        line = json.dumps({"event": event, "data": data, "kept": data in self._data_sets_kept()})
        handle = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{line}\n".encode())  # at once: no kill can leave a half
        os.close(handle)

    def _data_sets_kept(self):
        return {TaskEmbedding.load(path).task.id for path in self.kept.glob("[!.]*.safetensors")}

    @property
    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    @property
    def embedded(self):
        return sorted(line["data"] for line in self.lines)


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        for name in ("org/birds", "org/cars"):
            hub.add_repo(name, {"README.md": "# data"}, kind="dataset")
        yield hub


@pytest.fixture
def embedder(tmp_path):
    return Embedder(tmp_path)


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
        connection=link,
        progress=False,
        **{"folder": tmp_path / "run", **options},
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
    embedder.missing = {"org/gated": DataNotFoundError("The data set 'org/gated' is gated.")}

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


def test_two_runs_at_once_do_not_do_the_same_twice(hub, embedder, tmp_path):
    """Two of them opened two pull requests on each card, and measured all data sets twice."""
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    bot = hub.user("bot")

    class Meanwhile(Embedder):
        def embed(self, data, **options):
            with pytest.raises(StorageError, match=r"Another run works in '.*run'; .* Wait for it, or end"):
                run(hub, embedder, tmp_path, token=bot, create_pr=True)
            assert [d.state for d in run(hub, embedder, tmp_path, dry_run=True).data_sets] == ["planned"]
            return super().embed(data, **options)

    first = run(hub, Meanwhile(tmp_path), tmp_path, token=bot, create_pr=True)
    second = run(hub, embedder, tmp_path, token=bot, create_pr=True)

    assert [c.state for c in (*first.cards, *second.cards)] == ["pull request"] * 2
    assert len(hub.pull_requests("owner/a")) == 1
    assert embedder.embedded == ["org/birds"]


def test_a_data_set_has_one_name_however_cards_spell_it(hub, embedder, tmp_path):
    """Each spelling would be another entry, under another title."""
    add(hub, "owner/a", head="datasets: [ORG/Birds]\n")
    hub.rename("org/birds", "ORG/Birds", kind="dataset")
    hub.rename("ORG/Birds", "org/birds", kind="dataset")
    bot = hub.user("bot")

    first = run(hub, embedder, tmp_path, token=bot, create_pr=True)
    hub.commit("owner/a", {"README.md": "---\ndatasets: org/birds\n---\n"})
    again = run(hub, embedder, tmp_path, token=bot, create_pr=True)
    assert [(d.id, d.state) for d in again.data_sets] == [("org/birds", "reused")]
    hub.rename("org/birds", "Org/Birds", kind="dataset")
    shutil.rmtree(tmp_path / "run")
    run(hub, embedder, tmp_path, token=bot, create_pr=True)

    [request] = hub.pull_requests("owner/a")
    assert request.title == "Add Task2Vec embedding of org/birds"
    [entry] = Readme.parse(hub.read("owner/a", revision="refs/pr/1")).items
    assert entry["dataset"]["id"] == "Org/Birds"
    assert [(c.data_set, c.state) for c in first.cards] == [("org/birds", "pull request")]
    assert Catalog(tmp_path / "catalog")["owner/a"].source == "Org/Birds"


def test_a_pull_request_that_was_merged_is_not_called_declined(hub, embedder, tmp_path):
    """Its author would take the owner's yes for a no."""
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    bot = hub.user("bot")
    run(hub, embedder, tmp_path, token=bot, create_pr=True)
    HfApi(endpoint=hub.endpoint, token=hub.token).merge_pull_request("owner/a", 1)
    (tmp_path / "run" / "cards.jsonl").unlink()

    merged = run(hub, embedder, tmp_path, token=bot, create_pr=True)
    hub.commit("org/birds", {"more.txt": "x"}, kind="dataset")
    later = run(hub, embedder, tmp_path, token=bot, create_pr=True)

    assert [c.state for c in merged.cards] == ["unchanged"]
    assert [(c.state, c.url) for c in later.cards] == [("merged", f"{hub.endpoint}/owner/a/discussions/1")]
    assert len(hub.pull_requests("owner/a")) == 1


def test_a_public_card_does_not_tell_of_private_data(hub, embedder, tmp_path):
    """Whoever enriches sees more than those who read the cards."""
    hub.add_repo("owner/secret", {"README.md": "# data"}, kind="dataset", private=True)
    hub.add_repo("owner/hidden", {"README.md": "---\ndatasets: [org/cars]\n---\n"}, private=True)
    add(hub, "owner/a", head="datasets: [owner/secret]\n")
    add(hub, "owner/b", head="base_model: owner/hidden\n")
    add(hub, "owner/c", head="datasets: [owner/secret]\n", private=True)
    add(hub, "owner/d", head="base_model: owner/hidden\n", private=True)
    before = {name: hub.read(name) for name in ("owner/a", "owner/b")}

    planned = run(hub, embedder, tmp_path, dry_run=True)
    report = run(hub, embedder, tmp_path, create_pr=True)

    assert {c.id for c in planned.cards if c.state == "refused"} == {"owner/b"}
    states = {c.id: (c.state, c.reason) for c in report.cards}
    assert states["owner/a"] == ("refused", "its card is public, and the data set 'owner/secret' is private")
    assert states["owner/b"][0] == "refused"
    assert "is known from that of a private base model" in states["owner/b"][1]
    assert states["owner/c"][0] == states["owner/d"][0] == "committed"
    for name, content in before.items():
        assert hub.read(name) == content
        assert not [r for r in hub.requests if name in r.path and r.method == "POST"]
    found = Catalog.load(tmp_path / "catalog")
    assert all(len(candidate.embeddings) == 1 for candidate in found)
    assert found["owner/a"].source == "owner/secret"


def test_a_base_model_out_of_reach_is_not_one_that_is_unknown(hub, embedder, tmp_path):
    """What is reported as being without a data set is not looked at again."""
    hub.add_repo("base/one", {"README.md": "---\ndatasets: [org/cars]\n---\n"})
    hub.add_repo("base/two", {"README.md": "---\ndatasets: [org/birds]\n---\n"})
    add(hub, "owner/a", head="base_model: base/one\n")
    add(hub, "owner/b", head="base_model: [base/one, base/two]\nbase_model_relation: finetune\n")
    add(hub, "owner/c", head="datasets: [org/birds]\n")
    hub.faults.fail(502, times=10_000, path="/api/models/base/one")

    report = run(hub, embedder, tmp_path)

    assert report.without == {}
    failed = {card.id: (card.data_set, card.state, card.reason) for card in report.cards if card.reason}
    assert set(failed) == {"owner/a", "owner/b"}  # the data set of b could be that of either
    assert {card[:2] for card in failed.values()} == {("", "failed")}
    assert failed["owner/a"][2].startswith("its base model 'base/one' could not be asked: ")
    assert report.n_failed == 2
    assert "3 listed; 1 with a data set (0 through a base model), 0 without, 2 to be asked again" in str(
        report
    )
    assert [c.id for c in Catalog.load(tmp_path / "catalog")] == ["owner/a", "owner/b", "owner/c"]
    hub.faults.clear()
    sets = {card.id: card.data_set for card in run(hub, embedder, tmp_path).cards}
    assert sets == {"owner/a": "org/cars", "owner/b": "org/cars", "owner/c": "org/birds"}


def test_a_limit_met_at_a_base_model_ends_the_run(hub, embedder, tmp_path):
    """All that follow would meet it too, and be called unknown."""
    add(hub, "owner/a", head="base_model: base/one\n")
    hub.faults.fail(429, times=10_000, path="/api/models/base/one", retry_after_s=99)

    with pytest.raises(RateLimitError):
        run(hub, embedder, tmp_path)


def test_only_failures_in_a_row_end_the_run(hub, embedder, tmp_path):
    """A refusal is an answer, and so is that there is nothing."""
    for number in range(12):
        add(hub, f"owner/m{number:02}", head="datasets: [org/birds]\n", downloads=100 - number)
        add(hub, f"owner/n{number:02}", head=f"datasets: [org/set{number}]\n", downloads=50 - number)
        add(hub, f"owner/b{number:02}", head=f"base_model: base/m{number:02}\n", downloads=30 - number)
    down = r"(owner/m0[0-357]|base/m0[0-357-9]|datasets/org/set[0-35-8])\b"
    hub.faults.fail(500, times=10_000, path=down)
    hub.faults.fail(403, times=100, path=r"owner/m04/commit")

    report = run(hub, embedder, tmp_path)

    states = [card.state for card in report.cards if card.id.startswith("owner/m")]
    assert states == [*["failed"] * 4, "refused", "failed", "committed", "failed", *["committed"] * 4]
    assert sum(card.state == "failed" for card in report.cards if card.id.startswith("owner/b")) == 8
    assert sum(item.state == "failed" for item in report.data_sets) == 12


def test_a_full_disk_ends_the_run(hub, embedder, tmp_path, monkeypatch):
    """It would be one failure for each data set and card, and none of them would be the reason."""
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    add(hub, "owner/b", head="datasets: [org/cars]\n")
    embedder.missing = {name: StorageError("the disk is full") for name in ("org/birds", "org/cars")}

    with pytest.raises(StorageError, match="the disk is full"):
        run(hub, embedder, tmp_path)
    embedder.missing = {}
    monkeypatch.setattr(Journal, "keep_card", fails := Fails(StorageError("the disk is full")))
    with pytest.raises(StorageError, match="the disk is full"):
        run(hub, embedder, tmp_path)
    assert fails.times == 1


class Fails:
    def __init__(self, error):
        self.error, self.times = error, 0

    def __call__(self, *arguments, **options):
        self.times += 1
        raise self.error


def test_what_is_finished_is_finished_on_one_hub(hub, embedder, tmp_path):
    """Two Hubs may have cards of the same names; a try on a test server must not leave the real one out."""
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    run(hub, embedder, tmp_path)
    with LoopbackHub() as other:
        other.add_repo("org/birds", {"README.md": "# data"}, kind="dataset")
        add(other, "owner/a", head="datasets: [org/birds]\n")

        report = run(other, embedder, tmp_path)

        assert [card.state for card in report.cards] == ["committed"]
        assert b"task2vec" in other.read("owner/a")
        run(other, embedder, tmp_path, folder=None)
        host = other.endpoint.removeprefix("http://").replace(":", "-")
        assert [path.name for path in (home() / "enrich" / host).iterdir()] == [SPACE.id]


def test_a_finished_card_is_finished_with_the_whole_entry(hub, embedder, tmp_path):
    """The vector may stay what it is while the commit that was measured, or the role, changes."""
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    run(hub, embedder, tmp_path)
    hub.commit("org/birds", {"more.txt": "x"}, kind="dataset")

    run(hub, embedder, tmp_path)

    [entry] = Readme.parse(hub.read("owner/a")).items
    assert entry["dataset"]["revision"] == f"sha:{hub.head('org/birds', kind='dataset')}"


def test_the_catalog_keeps_what_cards_told_of_other_commits(hub, embedder, tmp_path):
    """Enrichment itself commits to the card, so that the next run sees another revision."""
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    catalog = Catalog(tmp_path / "catalog")
    told = make_embedding(seed=1, task="org/flowers")
    catalog.add(Candidate("owner/a", revision="0" * 40, embeddings=[told], upstream_accuracy=0.5))

    run(hub, embedder, tmp_path)

    found = Catalog(tmp_path / "catalog")["owner/a"]
    assert {one.task.id for one in found.embeddings} == {"org/flowers", "org/birds"}
    assert found.upstream_accuracy == 0.5


def test_another_hub_is_named_by_the_environment_alone(hub):
    """Data sets are streamed from HF_ENDPOINT, whatever else is said."""
    assert not {"endpoint", "token"} & set(inspect.signature(enrich).parameters)
    assert "No such option" in t2v("enrich", "--endpoint", hub.endpoint).stderr
    assert "HF_ENDPOINT names another Hub" in " ".join(t2v("enrich", "--help").stdout.split())


@pytest.mark.parametrize(("max_samples", "max_kept"), [(100, 1000), (1000, 2000)])
def test_few_images_of_a_stream_are_kept(hub, tmp_path, max_samples, max_kept):
    """Of 10,000 large photographs, a small machine holds no more than what is drawn from them."""
    add(hub, "owner/a", head="datasets: [org/birds]\n")
    embedder = Embedder(tmp_path, max_samples=max_samples)

    run(hub, embedder, tmp_path, max_scan=5000)

    assert (embedder.options["max_kept"], embedder.options["max_scan"]) == (max_kept, 5000)
    with pytest.raises(SettingsError, match="max_scan must be a whole number of at least 1"):
        run(hub, embedder, tmp_path, max_scan=0)


def _run_in_process(endpoint, token, folder):
    tqdm.set_lock(threading.RLock())  # its own would be shared, and a killed process never gives it back
    link = Connection(endpoint=endpoint, token=token, progress=False)
    enrich(
        Embedder(Path(folder), pause_s=0.06), catalog=Catalog(Path(folder) / "catalog"),
        folder=Path(folder) / "run", connection=link, progress=False, create_pr=True,
    )  # fmt: skip


def _start(hub, tmp_path):
    context = multiprocessing.get_context("fork")  # it has nothing to import and is at work at once
    process = context.Process(target=_run_in_process, args=(hub.endpoint, hub.token, str(tmp_path)))
    process.start()
    return process


def _with_entry(content, before):
    """Whether a card has our entry and is as before in all else; it has it whole or not at all."""
    if content == before:
        return False
    readme = Readme.parse(content)
    found = read_entries(readme.metadata["task2vec"])
    assert (len(found.entries), found.skipped) == (1, ())
    assert without_entries(readme) == before
    return True


def _with_entries(hub, cards):
    """Names of the cards that have an entry, on their one pull request where they are not ours."""
    found = set()
    for name, before in cards.items():
        own = name.startswith("owner")
        requests = hub.pull_requests(name)
        assert len(requests) <= (0 if own else 1)
        assert len(hub.history(name)) <= (2 if own else 1)
        versions = [hub.read(name), *(hub.read(name, revision=f"refs/pr/{r.number}") for r in requests)]
        found |= {name for content in versions if _with_entry(content, before)}
    return found


def test_kill_9_at_any_moment(hub, tmp_path):
    """No card half written, no second pull request, nothing measured again that was kept."""
    rng = np.random.default_rng(1)
    cards, done, n_sets, kills = {}, set(), 0, 0
    catalog, embedder = tmp_path / "catalog", Embedder(tmp_path)
    run(hub, embedder, tmp_path)  # imports what all runs need, so that they are at work at once
    hub.faults.latency_s = 0.002

    while kills < 20 or not done:  # on a busy machine, more of them and later ones
        if len(done) + 6 > len(cards):  # there is always some work left to be killed in
            for number in range(n_sets, n_sets + 3):
                hub.add_repo(f"org/set{number}", {"README.md": "# data"}, kind="dataset")
                for owner in ("owner", "other"):
                    add(hub, f"{owner}/m{number}", head=f"datasets: [org/set{number}]\n", downloads=number)
                    cards[f"{owner}/m{number}"] = hub.read(f"{owner}/m{number}")
            n_sets += 3
        process = _start(hub, tmp_path)
        process.join(float(rng.uniform(0.02, 0.6 + 0.02 * kills)))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
            process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        done = _with_entries(hub, cards)
        for candidate in Catalog(catalog):
            assert [one.space for one in candidate.embeddings] in ([], [SPACE])
    process = _start(hub, tmp_path)
    process.join(60)

    assert process.exitcode == 0
    assert _with_entries(hub, cards) == set(cards)
    assert set(embedder.embedded) == {f"org/set{number}" for number in range(n_sets)}
    # Only what was cut off between measuring and keeping is done again.
    assert [line for line in embedder.lines if line["kept"]] == []
    assert len(embedder.lines) <= n_sets + kills
    found = Catalog.load(catalog)
    assert {one.id for one in found} == set(cards)
    assert all(len(one.embeddings) == 1 for one in found)


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
