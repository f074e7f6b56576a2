"""The commands of the Hub: what they write, what they keep to themselves, and what they say."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from cli_data import t2v, t2v_json
from factories import make_embedding, make_space

from t2v_hub import __version__
from t2v_hub.card import Readme, entry_values, space_tag
from t2v_hub.card.readme import MANY_BYTES
from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.cli.checking import LARGE_CARD
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.testing import LoopbackHub

CARD = b"---\r\nlicense: mit  # ours\r\n---\r\n# A net\r\nNo newline at the end"
OTHER_SPACE = make_space(5, probe_digest="sha256:" + "cd" * 32)


def embedding(seed=0, task="org/pets", **more):
    return make_embedding(seed=seed, task=task, standard_error=0.031, **more)


def other_embedding(seed=1, task="org/pets"):
    fisher = np.exp(np.random.default_rng(seed).normal(size=5))
    return make_embedding(fisher, task=task, space=OTHER_SPACE, prior=[1e-3])


def card_with(*entries, tags=None, body=b"# A net\n"):
    """A README with these entries, and the tags that they need or other ones."""
    values = [entry_values(e, role="finetune") if isinstance(e, TaskEmbedding) else e for e in entries]
    spaces = dict.fromkeys(space_tag(str(item.get("space"))) for item in values)
    wanted = ["task2vec", *spaces] if tags is None else tags
    return Readme.parse(b"---\nlicense: mit\n---\n" + body).changed(append=values, add_tags=wanted)


@pytest.fixture(autouse=True)
def _no_token(tmp_path, monkeypatch):
    """The token of whoever runs the tests is not used."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def hub(monkeypatch):
    with LoopbackHub() as running:
        monkeypatch.setenv("HF_TOKEN", running.token)
        yield running


@pytest.fixture
def file(tmp_path):
    return embedding().save(tmp_path / "pets.safetensors")


@pytest.fixture
def at(hub):
    return ("--endpoint", hub.endpoint)


# push


def test_a_dry_run_prints_the_card_to_the_byte_and_writes_nothing(hub, at, file):
    """It is what people look at before they publish, and what they pipe into a file."""
    sha = hub.add_repo("owner/net", {"README.md": CARD})

    rehearsed = t2v("push", "owner/net", file, "--dry-run", *at)
    before = hub.head("owner/net")
    t2v_json("push", "owner/net", file, *at)

    assert rehearsed.exit_code == 0
    assert before == sha
    assert rehearsed.stdout_bytes == hub.read("owner/net")
    assert rehearsed.stdout_bytes.startswith(b"---\r\nlicense: mit  # ours\r\n")
    assert rehearsed.stdout_bytes.endswith(b"# A net\r\nNo newline at the end")
    assert "Nothing was written (--dry-run)." in rehearsed.stderr


def test_a_dry_run_as_a_difference_and_as_json(hub, at, file):
    """A card of thousands of lines changes in a few."""
    hub.add_repo("owner/net", {"README.md": CARD})

    diff = t2v("push", "owner/net", file, "--dry-run", "--diff", *at).stdout
    values = t2v_json("push", "owner/net", file, "--dry-run", *at)

    assert diff.startswith("--- README.md\n+++ README.md (new)\n")
    assert "+  role: finetune" in diff
    assert " # A net" in diff
    assert values["diff"].replace("\r\n", "\n") == diff.replace("\r\n", "\n")
    assert Readme.parse(values["content"].encode()).tags == ("task2vec", space_tag(embedding().space.id))
    assert values["dry_run"] and values["changed"]
    assert values["commit"] is None


def test_a_card_that_is_not_utf_8_is_exact_in_a_dry_run(hub, at, file):
    """Its other bytes are the owner's."""
    hub.add_repo("owner/net", {"README.md": b"---\nlicense: mit\n---\nnaturfotos aus k\xf6ln\n"})

    raw = t2v("push", "owner/net", file, "--dry-run", *at)
    as_json = t2v("push", "owner/net", file, "--dry-run", "--json", *at)

    assert raw.stdout_bytes.endswith(b"aus k\xf6ln\n")
    assert "README.md is not UTF-8 throughout" in as_json.stderr
    assert json.loads(as_json.stdout)["content"].endswith("aus k�ln\n")


def test_a_commit_is_named_and_the_second_push_has_nothing_to_do(hub, at, file):
    """What happened, and where to look at it."""
    hub.add_repo("owner/net", {"README.md": CARD})

    first = t2v("push", "owner/net", file, *at)
    again = t2v("push", "owner/net", file, *at)
    rehearsed = t2v("push", "owner/net", file, *at, "--dry-run", "--diff")

    commit = hub.head("owner/net")
    assert first.stdout.splitlines() == [
        f"Wrote the embedding of org/pets to the card of owner/net, commit {commit}",
        f"{hub.endpoint}/owner/net/commit/{commit}",
    ]
    assert again.stdout == "The embedding is there already, in the card of owner/net; nothing to change\n"
    assert (rehearsed.stdout, rehearsed.exit_code) == ("", 0)
    assert "The embedding is there already, in the card of owner/net" in rehearsed.stderr
    assert hub.history("owner/net")[0].title == "Add Task2Vec embedding of org/pets"
    assert len(hub.history("owner/net")) == 2


def test_the_subject_of_the_commit(hub, at, file):
    """Teams have rules for them."""
    hub.add_repo("owner/net", {"README.md": CARD})

    t2v_json("push", "owner/net", file, *at, "-m", "docs: embed pets")

    assert hub.history("owner/net")[0].title == "docs: embed pets"


def test_a_pull_request_where_one_may_not_write_and_where_it_is_wanted(hub, at, file):
    """The owner decides; the same push again opens no second one."""
    hub.add_repo("birds/net", {"README.md": CARD})
    hub.add_repo("owner/net", {"README.md": CARD})

    theirs = t2v("push", "birds/net", file, *at)
    again = t2v("push", "birds/net", file, *at, "--create-pr")
    ours = t2v_json("push", "owner/net", file, *at, "--create-pr")

    address = f"{hub.endpoint}/birds/net/discussions/1"
    assert theirs.stdout.splitlines() == [
        "The embedding of org/pets waits in a pull request for birds/net",
        address,
    ]
    assert again.stdout.splitlines() == [
        "The embedding is there already, in a pull request for birds/net; nothing to change",
        address,
    ]
    assert ours["pull_request"] == f"{hub.endpoint}/owner/net/discussions/1"
    assert len(hub.pull_requests("birds/net")) == len(hub.pull_requests("owner/net")) == 1
    assert hub.read("birds/net") == hub.read("owner/net") == CARD


def test_never_a_pull_request_where_that_is_not_wanted(hub, at, file):
    """A script that must commit fails instead."""
    hub.add_repo("birds/net", {"README.md": CARD})

    result = t2v("push", "birds/net", file, *at, "--no-create-pr")

    assert result.exit_code == 1
    assert "error: The card of 'birds/net': your token may not do that" in result.stderr
    assert hub.pull_requests("birds/net") == []


@pytest.mark.parametrize(
    ("options", "kind", "role"),
    [
        ((), "model", "finetune"),
        (("--role", "pretrain"), "model", "pretrain"),
        (("--repo-type", "dataset"), "dataset", "self"),
        (("--role", "self"), "dataset", "self"),
    ],
)
def test_role_and_kind_of_repository_follow_from_each_other(hub, at, file, options, kind, role):
    """One of the two says enough."""
    hub.add_repo("owner/pets", {}, kind=kind)

    values = t2v_json("push", "owner/pets", file, *at, *options)

    (item,) = Readme.parse(hub.read("owner/pets", kind=kind)).items
    prefix = "datasets/" if kind == "dataset" else ""
    assert (values["role"], values["repo_type"], item["role"]) == (role, kind, role)
    assert values["commit_url"] == f"{hub.endpoint}/{prefix}owner/pets/commit/{values['commit']}"


def test_another_data_sets_embedding_in_a_data_set_card_is_warned_of(hub, at, file):
    """A slip with the file's name would publish wrong numbers under the owner's name."""
    hub.add_repo("owner/pets", {}, kind="dataset")

    result = t2v("push", "owner/pets", file, "--role", "self", *at)

    assert "warning: The file is the embedding of 'org/pets'; the card of 'owner/pets'" in result.stderr


def test_names_that_stay_here_are_said(hub, at, tmp_path):
    """Whoever looks for the name in the card must not think that something broke."""
    own = make_embedding(task="client photos", standard_error=0.1).save(tmp_path / "a.safetensors")
    hub.add_repo("owner/net", {"README.md": CARD})

    silent = t2v("push", "owner/net", own, *at, "--dry-run")
    quiet = t2v("push", "owner/net", own, *at, "--dry-run", "--quiet")
    published = t2v("push", "owner/net", own, *at, "--dry-run", "--publish-names")

    assert (
        "The card calls the data set 'local': its name, 'client photos', and the names of its 4 classes "
        "stayed here. To publish them, add --publish-names."
    ) in silent.stderr
    assert b"client" not in silent.stdout_bytes
    assert quiet.stderr == ""
    assert "--publish-names" not in published.stderr
    assert b"client photos" in published.stdout_bytes
    assert "Wrote the embedding of client photos to the card" in t2v("push", "owner/net", own, *at).stdout
    assert "client" not in hub.history("owner/net")[0].title


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["owner/net", "FILE", "--role", "self", "--repo-type", "model"],
            2,
            "--role self goes with the card",
        ),
        (["./net", "FILE"], 2, "'./net' is no id of a model on the Hub; wanted one such as org/name."),
        (["datasets/org/pets", "FILE"], 2, "write a data set as org/pets --repo-type dataset."),
        (["owner/net", "no-such.safetensors"], 1, "There is no embedding file 'no-such.safetensors'."),
        (["owner/net", "FILE", "--endpoint", "huggingface.co"], 2, "--endpoint must be an address such as"),
    ],
)
def test_slips_are_named_before_anything_is_asked(hub, at, file, arguments, code, message):
    """No request, no trace."""
    result = t2v("push", *at, *(file if part == "FILE" else part for part in arguments))

    assert result.exit_code == code
    assert message in result.stderr
    assert hub.requests == []


def test_failures_of_the_hub_are_named_and_the_token_is_not(hub, at, file, monkeypatch):
    """Messages end in reports of bugs."""
    hub.add_repo("owner/no", {"README.md": "---\ntask2vec: false\n---\n"})
    hub.add_repo("owner/broken", {"README.md": "---\ntask2vec: [\n---\n"})

    results = {
        "The model 'owner/none' is not on": t2v("push", "owner/none", file, *at),
        "says `task2vec: false`: its owner wants no": t2v("push", "owner/no", file, *at),
        "metadata": t2v("push", "owner/broken", file, *at),
        "has no such revision": t2v("push", "owner/no", file, *at, "--revision", "nowhere"),
    }
    monkeypatch.delenv("HF_TOKEN")
    hub.add_repo("owner/net", {"README.md": CARD})
    results["hf auth login"] = t2v("push", "owner/net", file, *at)

    for message, result in results.items():
        assert result.exit_code == 1
        assert message in result.stderr
        assert "Traceback" not in result.output
        assert hub.token not in result.output


def test_an_interrupt_leaves_no_trace(hub, at, file, monkeypatch):
    """Whoever pauses for the Hub may lose patience."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("t2v_hub.hub.push_embedding", interrupted)
    result = t2v("push", "owner/net", file, *at)

    assert result.exit_code == 130
    assert result.stderr == "interrupted: the command did not finish.\n"


def test_an_error_is_json_too(hub, at, file):
    """A script reads one kind of thing."""
    result = t2v("push", "owner/none", file, *at, "--json")

    assert json.loads(result.stdout)["error"]["type"] == "HubNotFoundError"


# pull


def test_the_embeddings_of_a_card_are_listed(hub, at):
    """What it is about, before anything is written."""
    hub.add_repo("org/net", {"README.md": card_with(embedding(), other_embedding())})

    result = t2v("pull", "org/net", *at)
    values = t2v_json("pull", "org/net", *at)
    one = t2v_json("pull", "org/net", *at, "--space", space_tag(OTHER_SPACE.id))

    lines = result.stdout.splitlines()
    assert lines[0] == "2 embeddings in the card of org/net"
    assert lines[2].split()[:4] == ["task", "split", "role", "images"]
    assert lines[3].split() == ["org/pets", "–", "finetune", "500", "4", "3.1", "%", embedding().space.id]
    assert [item["space"] for item in values["embeddings"]] == [embedding().space.id, OTHER_SPACE.id]
    assert [item["file"] for item in values["embeddings"]] == [None, None]
    assert [item["space"] for item in one["embeddings"]] == [OTHER_SPACE.id]


def test_a_pulled_embedding_is_a_file_like_any_other(hub, at, tmp_path):
    """It is ranked against, compared and kept."""
    hub.add_repo("org/net", {"README.md": card_with(embedding())})
    path = tmp_path / "pulled.safetensors"

    values = t2v_json("pull", "org/net", *at, "-o", path)
    again = t2v("pull", "org/net", *at, "-o", path)

    pulled = TaskEmbedding.load(path)
    assert values["embeddings"][0]["file"] == str(path)
    assert (pulled.space, pulled.task.id) == (embedding().space, "org/pets")
    np.testing.assert_allclose(pulled.fisher, embedding().fisher, rtol=2e-3)
    assert again.exit_code == 0
    assert again.stdout.splitlines()[-1].endswith(str(path))


def test_several_go_into_a_folder_under_names_of_their_own(hub, at, tmp_path):
    """Data sets without a name are called for the repository, or two of them would share a file."""
    hub.add_repo("org/net", {"README.md": card_with(embedding(), other_embedding(), embedding(2, "secret"))})
    hub.add_repo("org/other", {"README.md": card_with(embedding(3, "secret"))})

    t2v_json("pull", "org/net", *at, "-o", tmp_path)
    t2v_json("pull", "org/other", *at, "-o", tmp_path)
    single = t2v("pull", "org/net", *at, "-o", tmp_path / "a.safetensors")

    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "org--net-local.safetensors",
        "org--other-local.safetensors",
        "org--pets-2.safetensors",
        "org--pets.safetensors",
    ]
    assert single.exit_code == 1
    assert "Cannot write 3 embeddings into the one file" in single.stderr


def test_the_splits_of_a_data_set_go_into_files_of_their_own(hub, at, tmp_path):
    """They are other tasks."""
    values = entry_values(embedding(), role="finetune")
    entries = [{**values, "dataset": {**values["dataset"], "split": name}} for name in ("train", "test")]
    hub.add_repo("org/net", {"README.md": card_with(*entries)})

    t2v_json("pull", "org/net", *at, "-o", tmp_path)

    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert names == ["org--pets-test.safetensors", "org--pets-train.safetensors"]


def test_what_was_measured_here_is_not_replaced(hub, at, tmp_path):
    """A card has float16 and no deviations; the other embeddings are written all the same."""
    hub.add_repo("org/net", {"README.md": card_with(embedding(), other_embedding(task="org/birds"))})
    mine = embedding(n_groups=4).save(tmp_path / "org--pets.safetensors")
    other = embedding(5, "org/plants").save(tmp_path / "plants.safetensors")
    before = mine.read_bytes()

    kept = t2v("pull", "org/net", *at, "-o", tmp_path)
    wrong = t2v("pull", "org/net", *at, "-o", other, "--space", embedding().space.id)
    replaced = t2v_json("pull", "org/net", *at, "-o", mine, "--space", embedding().space.id, "--overwrite")

    assert kept.exit_code == wrong.exit_code == 1
    assert "holds another measurement of 'org/pets', perhaps a more exact one. Pass another -o" in kept.stderr
    assert (tmp_path / "org--birds.safetensors").exists()
    assert "holds the embedding of another task, 'org/plants' instead of 'org/pets'" in wrong.stderr
    assert replaced["embeddings"][0]["file"] == str(mine)
    assert mine.read_bytes() != before


def test_entries_that_cannot_be_used_are_named(hub, at, tmp_path):
    """One damaged entry does not cost the others."""
    damaged = {**entry_values(embedding(2, "org/birds"), role="finetune"), "digest": "sha256:00"}
    hub.add_repo("org/net", {"README.md": card_with(damaged, embedding())})

    result = t2v("pull", "org/net", *at, "-o", tmp_path, "--json")

    values = json.loads(result.stdout)
    reason = "entry 1: its digest is not that of its data, which was damaged or changed"
    assert result.exit_code == 0
    assert values["skipped"] == [reason]
    assert [item["task"] for item in values["embeddings"]] == ["org/pets"]
    assert f"warning: Card of 'org/net': skipped {reason}." in result.stderr


def test_nothing_to_write_is_a_failure_nothing_to_list_is_none(hub, at, tmp_path):
    """The next command of a script would miss the file."""
    hub.add_repo("org/bare", {})
    hub.add_repo("org/no", {"README.md": "---\ntask2vec: false\n---\n"})
    hub.add_repo("org/net", {"README.md": card_with(embedding())})
    out = tmp_path / "a.safetensors"

    listed = t2v("pull", "org/bare", *at)
    written = t2v("pull", "org/bare", *at, "-o", out)
    refused = t2v("pull", "org/no", *at)
    elsewhere = t2v("pull", "org/net", *at, "--space", OTHER_SPACE.id)

    assert (listed.exit_code, listed.stdout) == (0, "No embeddings in the card of org/bare\n")
    assert written.exit_code == 1
    assert f"error: There is nothing to write to {str(out)!r}." in written.stderr
    assert "The owner of org/no wants no embeddings in its card" in refused.stderr
    assert (
        f"It has embeddings in other spaces than {OTHER_SPACE.id}: {embedding().space.id}."
        in elsewhere.stderr
    )


def test_a_folder_that_does_not_exist_is_named_before_anything_is_asked(hub, at, tmp_path):
    """As `t2v embed` does."""
    result = t2v("pull", "org/net", *at, "-o", tmp_path / "otu" / "a.safetensors")

    assert result.exit_code == 1
    assert f"the folder {str(tmp_path / 'otu')!r} does not exist." in result.stderr
    assert hub.requests == []


# card check


def test_a_card_in_order(tmp_path):
    """No network is needed for a file."""
    path = tmp_path / "README.md"
    path.write_bytes(card_with(embedding(), other_embedding()))

    result = t2v("card", "check", path)
    values = t2v_json("card", "check", tmp_path)

    first, entry, *_ = result.stdout.splitlines()
    assert result.exit_code == 0
    assert first.startswith(f"{path}: OK; 2 entries, 1.")
    assert entry.startswith("  entry 1: OK, org/pets (finetune), 500 images, std. error 3.1 %, space s")
    assert values["cards"][0]["ok"]
    assert [item["task"] for item in values["cards"][0]["entries"]] == ["org/pets", "org/pets"]


def entry(seed=0, task="org/pets", **changes):
    return {**entry_values(embedding(seed, task), role="finetune"), **changes}


TAG = space_tag(embedding().space.id)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (card_with(entry(spec="t2v/9")), "entry 1: cannot be used: its spec is 't2v/9'"),
        (card_with(entry(role="owner")), "entry 1: cannot be used: its role is 'owner'"),
        (card_with(entry(digest="sha256:00")), "its digest is not that of its data"),
        (card_with(entry(), tags=["task2vec"]), f"wrong: the tag {TAG} is missing, so no listing finds it"),
        (card_with(entry(), tags=[TAG]), "wrong: the tag task2vec is missing"),
        (
            card_with(entry(), tags=["task2vec", TAG, "t2v-space:s000000000000000"]),
            "wrong: the tag 't2v-space:s000000000000000' is stale: no entry is of that space",
        ),
        (card_with(entry(), entry(1, "org/birds"), entry(2)), "entries 1 and 3 are of one data set, space"),
        (b"---\ntask2vec: yes\n---\n", "wrong: task2vec is of type bool, not a list of entries"),
        (b"---\ntask2vec: [\n---\n", "README.md: 1 thing wrong; no embeddings"),
        (b"---\ntask2vec:\n" + b"- 1\n" * 70 + b"---\n", "wrong: 6 entries beyond the first 64"),
    ],
)
def test_what_is_wrong_with_a_card_is_named(tmp_path, card, message):
    """The owner must find it before a reader does."""
    (tmp_path / "README.md").write_bytes(card)

    result = t2v("card", "check", tmp_path / "README.md")

    assert result.exit_code == 1
    assert message in result.stdout


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (b"---\ntask2vec: false\n---\n", "OK; task2vec: false, its owner wants no embeddings"),
        (b"# A net\n", "OK; no embeddings"),
        (b"", "OK; no embeddings"),
        (b"---\ntags: [task2vec]\n---\n", "note: it has the tag task2vec, but no entry"),
        (card_with(entry(extra="x" * 70_000)), "note: entry 1 has 70.8 kB, more than 64 kB"),
    ],
)
def test_what_is_not_wrong_with_a_card(tmp_path, card, message):
    """Strangers may write keys of their own, and nobody must have embeddings."""
    (tmp_path / "README.md").write_bytes(card)

    result = t2v("card", "check", tmp_path / "README.md")

    assert result.exit_code == 0
    assert message in result.stdout


@pytest.mark.filterwarnings("ignore::t2v_hub.errors.CardWarning")
def test_a_card_that_grows_large(tmp_path):
    """The page grows slow long before the Hub refuses it."""
    path = tmp_path / "README.md"
    path.write_bytes(card_with(*(entry(i, f"org/pets{i}", extra="x" * 55_000) for i in range(5))))

    assert LARGE_CARD == MANY_BYTES  # written twice so that --help imports neither
    result = t2v("card", "check", path)
    path.write_bytes(b"---\ntask2vec:\n- " + b"x" * 1_000_001 + b"\n---\n")
    refused = t2v("card", "check", path)

    assert result.exit_code == 0
    assert "above 256 kB the page grows slow, and above 1 MB the card is refused" in result.stdout
    assert refused.exit_code == 1
    assert "1,000,000" in refused.stdout


def test_several_cards_and_one_that_is_not_there(hub, at, tmp_path):
    """All are looked at; what cannot be read is wrong."""
    (tmp_path / "README.md").write_bytes(card_with(entry()))
    hub.add_repo("org/net", {"README.md": card_with(entry())})
    hub.add_repo("org/pets", {"README.md": card_with(entry())}, kind="dataset")

    result = t2v("card", "check", tmp_path, "org/net", "./no-such.md", "org/none", *at)
    as_data_set = t2v("card", "check", "org/pets", *at, "--repo-type", "dataset")

    assert result.exit_code == as_data_set.exit_code == 1
    assert "org/net: OK; 1 entry" in result.stdout
    assert "wrong: There is no README.md at './no-such.md'." in result.stdout
    assert "wrong: The model 'org/none' is not on" in result.stdout
    assert "error: 2 of 4 cards are not in order: ./no-such.md, org/none." in result.stderr
    assert (
        "entry 1 has the role finetune, but in the card of a data set it must be self" in as_data_set.stdout
    )


def test_the_role_self_in_the_card_of_a_checkpoint(hub, at):
    """No search reads it there."""
    hub.add_repo("org/net", {"README.md": card_with(entry(role="self"))})

    result = t2v("card", "check", "org/net", *at)

    assert result.exit_code == 1
    assert "wrong: entry 1 has the role self, which only the card of a data set can have" in result.stdout


def test_the_card_of_a_dry_run_is_in_order(hub, at, tmp_path, file):
    """What we write we find right."""
    hub.add_repo("owner/net", {"README.md": CARD})
    (tmp_path / "README.md").write_bytes(t2v("push", "owner/net", file, "--dry-run", *at).stdout_bytes)

    assert t2v("card", "check", tmp_path / "README.md").exit_code == 0


# card remove


def test_embeddings_are_taken_out_of_a_file_in_place(tmp_path):
    """All else stays, to the byte: with the last embedding the tags go as well."""
    path = tmp_path / "README.md"
    path.write_bytes(card_with(embedding(), embedding(1, "org/birds"), other_embedding()))

    birds = t2v("card", "remove", path, "--dataset", "org/birds")
    after_birds = Readme.parse(path.read_bytes())
    space = t2v_json("card", "remove", path, "--space", OTHER_SPACE.id)
    after_space = Readme.parse(path.read_bytes())
    t2v_json("card", "remove", path)

    assert birds.stdout == f"Removed 1 embedding from {path}, which has 2 now\n"
    assert [item["dataset"]["id"] for item in after_birds.items] == ["org/pets", "org/pets"]
    assert (space["n_removed"], space["n_left"], space["file"]) == (1, 1, str(path))
    assert after_space.tags == ("task2vec", TAG)
    assert path.read_bytes() == b"---\nlicense: mit\n---\n# A net\n"


def test_a_rehearsal_of_removing(tmp_path):
    """The same as that of a push."""
    path = tmp_path / "README.md"
    path.write_bytes(card_with(embedding()))
    before = path.read_bytes()

    whole = t2v("card", "remove", path, "--dry-run")
    diff = t2v("card", "remove", path, "--dry-run", "--diff")

    assert whole.stdout_bytes == b"---\nlicense: mit\n---\n# A net\n"
    assert "-task2vec:" in diff.stdout
    assert "Nothing was written (--dry-run)." in whole.stderr
    assert path.read_bytes() == before


def test_nothing_to_remove(tmp_path):
    """The wish is fulfilled; the file is not touched."""
    path = tmp_path / "README.md"
    path.write_bytes(card_with(embedding()))
    before = path.stat()

    result = t2v("card", "remove", path, "--dataset", "org/none")

    assert (result.exit_code, path.stat().st_mtime_ns) == (0, before.st_mtime_ns)
    assert result.stdout == f"{path} has no such embedding; there is nothing to remove\n"


def test_tags_without_an_embedding_go_too(tmp_path):
    """Somebody took the list out by hand."""
    path = tmp_path / "README.md"
    path.write_text(f"---\ntags: [birds, task2vec, '{TAG}']\n---\n")

    result = t2v("card", "remove", path)

    assert result.stdout == f"Removed tags of embeddings that are no longer there from {path}\n"
    assert path.read_text() == "---\ntags: [birds]\n---\n"


def test_a_link_to_a_readme_stays_a_link(tmp_path):
    """The file that it leads to is the one that is meant."""
    path, link = tmp_path / "card.md", tmp_path / "README.md"
    path.write_bytes(card_with(embedding()))
    link.symlink_to(path)

    t2v_json("card", "remove", link)

    assert link.is_symlink()
    assert path.read_bytes() == b"---\nlicense: mit\n---\n# A net\n"


def test_embeddings_are_taken_out_of_a_repository(hub, at):
    """By a commit, or by a pull request."""
    hub.add_repo("owner/net", {"README.md": card_with(embedding())})
    hub.add_repo("birds/net", {"README.md": card_with(embedding())})

    rehearsed = t2v("card", "remove", "owner/net", *at, "--dry-run")
    ours = t2v("card", "remove", "owner/net", *at)
    again = t2v("card", "remove", "owner/net", *at)
    theirs = t2v("card", "remove", "birds/net", *at)

    assert rehearsed.stdout_bytes == hub.read("owner/net") == b"---\nlicense: mit\n---\n# A net\n"
    assert ours.stdout.splitlines() == [
        "Removed 1 embedding from owner/net, which has 0 now",
        f"{hub.endpoint}/owner/net/commit/{hub.head('owner/net')}",
    ]
    assert again.stdout == "owner/net has no such embedding; there is nothing to remove\n"
    assert theirs.stdout.splitlines() == [
        "A pull request for birds/net removes 1 embedding",
        f"{hub.endpoint}/birds/net/discussions/1",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["FILE", "--create-pr"], 2, "is a file here, and --create-pr is for repositories. Leave it out."),
        (["FILE", "--revision", "main"], 2, "--revision is for repositories"),
        (["no-such/README.md"], 1, "There is no README.md at 'no-such/README.md'. Check the path"),
        (["./net"], 1, "There is no README.md at './net'."),
        (["FOLDER"], 1, "There is no README.md at"),
        (["org/net/more"], 2, "is no id of a model on the Hub"),
    ],
)
def test_slips_of_removing(tmp_path, arguments, code, message):
    """A file that is not there is no repository, and the other way round."""
    path = tmp_path / "README.md"
    path.write_bytes(card_with(embedding()))
    (tmp_path / "folder").mkdir()
    places = {"FILE": path, "FOLDER": tmp_path / "folder"}

    result = t2v("card", "remove", *(places.get(part, part) for part in arguments))

    assert result.exit_code == code
    assert message in result.stderr


def test_a_file_that_may_not_be_written_stays(tmp_path, monkeypatch):
    """Named, and not half written."""
    path = tmp_path / "README.md"
    path.write_bytes(card_with(embedding()))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("t2v_hub.storage.os.fsync", full)
    result = t2v("card", "remove", path)

    assert result.exit_code == 1
    assert "the disk is full" in result.stderr
    assert path.read_bytes() == card_with(embedding())


# catalog sync


def test_the_cards_of_the_hub_become_candidates(hub, at, tmp_path):
    """Counts, requests, and when it was done last."""
    there = (*at, "--catalog", tmp_path / "catalog")
    for name in ("a", "b"):
        hub.add_repo(f"org/{name}", {"README.md": card_with(embedding())})

    first = t2v("catalog", "sync", *there)
    hub.remove("org/b")
    hub.add_repo("org/c", {"README.md": card_with(embedding(1, "org/birds"))})
    second = t2v_json("catalog", "sync", *there)
    again = t2v_json("catalog", "sync", *there, "--again")

    lines = first.stdout.splitlines()
    assert lines[0] == (f"2 checkpoints with an embedding on {hub.endpoint}: 2 read, 0 removed, 0 skipped")
    assert lines[1].startswith("1 request in 0.") and lines[1].endswith("s; last time: never")
    assert lines[2] == f"{tmp_path / 'catalog'} has 2 candidates now"
    assert f"reading the cards on {hub.endpoint}" in first.stderr
    assert [second[key] for key in ("n_listed", "n_read", "n_removed", "n_candidates")] == [2, 1, 1, 2]
    assert second["synced_before"] is not None
    assert (again["n_read"], again["n_requests"]) == (2, 1)
    assert [candidate.id for candidate in Catalog.load(tmp_path / "catalog")] == ["org/a", "org/c"]


def test_only_some_of_the_cards(hub, at, tmp_path):
    """A space, and tags of the Hub; each question has its own last time."""
    there = (*at, "--catalog", tmp_path / "catalog")
    hub.add_repo("org/a", {"README.md": card_with(embedding(), tags=["task2vec", TAG, "birds"])})
    hub.add_repo("org/b", {"README.md": card_with(other_embedding())})

    t2v_json("catalog", "sync", *there)
    tagged = t2v("catalog", "sync", *there, "--filter", "birds", "--filter", "task2vec")
    spaced = t2v_json("catalog", "sync", *there, "--space", OTHER_SPACE.id)
    none = t2v("catalog", "sync", *there, "--filter", "fish")

    assert f"1 checkpoint with an embedding on {hub.endpoint} (birds, task2vec): 1 read" in tagged.stdout
    assert "last time: never" in tagged.stdout
    assert (spaced["n_listed"], spaced["space"]) == (1, OTHER_SPACE.id)
    assert "No checkpoint there has an embedding and all that was asked for." in none.stderr


def test_what_was_skipped_is_named_five_times_and_counted(hub, at, tmp_path):
    """A thousand lines would hide the result."""
    for i in range(7):
        hub.add_repo(f"org/net{i}", {"README.md": card_with(entry(digest="sha256:00"))})

    result = t2v("catalog", "sync", *at, "--catalog", tmp_path / "catalog")
    values = t2v_json("catalog", "sync", *at, "--catalog", tmp_path / "catalog", "--again")

    assert result.exit_code == 0
    assert result.stderr.count("warning: skipped org/net") == 5
    assert "warning: and 2 more were skipped; --json names them all." in result.stderr
    assert len(values["skipped"]) == 7


def test_an_empty_hub(hub, at, tmp_path):
    """Somebody must be the first."""
    result = t2v("catalog", "sync", *at, "--catalog", tmp_path / "catalog")

    assert result.exit_code == 0
    assert "No checkpoint there has an embedding yet; `t2v push` writes one into a card." in result.stderr


def test_a_hub_that_fails_costs_nothing(hub, at, tmp_path):
    """The catalog is as it was, and its age is said."""
    there = (*at, "--catalog", tmp_path / "catalog")
    hub.add_repo("org/a", {"README.md": card_with(embedding())})
    t2v_json("catalog", "sync", *there)

    hub.faults.fail(403, path="/api/models")
    result = t2v("catalog", "sync", *there)

    assert result.exit_code == 1
    assert f"The catalog in {tmp_path / 'catalog'} is as it was just now, and can be used." in result.stderr
    assert "error: Listing of models: your token may not do that." in result.stderr
    assert len(Catalog.load(tmp_path / "catalog")) == 1


def test_from_the_hub_to_a_ranking(hub, at, tmp_path):
    """What it is all for: afterwards no network is needed."""
    there = ("--catalog", tmp_path / "catalog")
    Catalog(tmp_path / "catalog").add(Candidate("here"))
    for seed in (1, 2):
        file = embedding(seed, f"org/task{seed}").save(tmp_path / f"{seed}.safetensors")
        hub.add_repo(f"owner/net{seed}", {"README.md": CARD})
        t2v_json("push", f"owner/net{seed}", file, *at)

    t2v_json("catalog", "sync", *at, *there)
    hub.stop()
    ranking = t2v_json("rank", tmp_path / "2.safetensors", *there)

    assert [item["id"] for item in ranking["candidates"]] == ["owner/net2", "owner/net1", "here"]


# hf t2v


@pytest.fixture
def hf(tmp_path):
    """The real `hf`, with our script as one of its extensions."""
    folder = tmp_path / ".local" / "share" / "hf" / "extensions" / "hf-t2v"
    folder.mkdir(parents=True)
    manifest = {
        "owner": "org",
        "repo": "hf-t2v",
        "repo_id": "org/hf-t2v",
        "short_name": "t2v",
        "executable_path": str(Path(sys.executable).with_name("hf-t2v")),
        "type": "python",
        "installed_at": "2026-01-01T00:00:00+00:00",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "COLUMNS": "200",
    }

    def run(*arguments):
        command = [Path(sys.executable).with_name("hf"), *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_the_script_that_hf_starts_is_installed():
    """`hf extensions install` refuses a package without it."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))

    assert project["project"]["scripts"]["hf-t2v"] == project["project"]["scripts"]["t2v"]
    assert Path(sys.executable).with_name("hf-t2v").exists(), "pip install --no-deps -e . makes it"


def test_hf_finds_us_as_an_extension(hf, tmp_path):
    """Arguments, output and exit code go through."""
    (tmp_path / "README.md").write_bytes(card_with(embedding()))

    version = hf("t2v", "--version")
    good = hf("t2v", "card", "check", "README.md")
    bad = hf("t2v", "card", "check", "no-such.md")

    assert (version.returncode, version.stdout) == (0, f"t2v_hub {__version__}\n")
    assert good.returncode == 0, good.stderr
    assert good.stdout.startswith("README.md: OK; 1 entry, ")
    assert bad.returncode == 1


def test_help_and_messages_name_the_command_that_was_typed(hf):
    """Where we came as an extension there is no command `t2v`."""
    top, push = hf("t2v", "--help").stdout, hf("t2v", "push", "--help").stdout
    wrong, error = hf("t2v", "fly"), hf("t2v", "catalog", "show", "org/a")

    assert "Usage: hf t2v [OPTIONS] COMMAND" in top
    assert "$ hf t2v catalog add" in top
    assert "--install-completion" not in top
    assert "Usage: hf t2v push [OPTIONS]" in push
    assert "An embedding file of `hf t2v embed`." in push
    assert "$ hf t2v push me/pets-resnet" in push
    assert "Try 'hf t2v -h'" in wrong.stderr
    assert wrong.returncode == 2
    assert "with `hf t2v catalog add`" in error.stderr
