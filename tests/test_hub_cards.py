"""`push_embedding`, `pull_embeddings`, `remove_embeddings` with the real client against a loopback Hub."""

import logging
import threading
import warnings

import pytest
from factories import make_embedding, make_space

from t2v_hub.card import Readme, entry_values
from t2v_hub.embedding import TaskEmbedding, TaskInfo
from t2v_hub.errors import (
    CardTextError,
    CardWarning,
    HubAccessError,
    HubConflictError,
    HubError,
    HubNotFoundError,
    HubRejectedError,
    HubUnreachableError,
    OptedOutError,
    RateLimitError,
    SettingsError,
)
from t2v_hub.hub import Connection, pull_embeddings, push_embedding, remove_embeddings
from t2v_hub.testing import LoopbackHub

CARD = "---\nlicense: mit  # ours\ntags:\n- vision\n---\n# A model\n"
EMBEDDING = make_embedding(task="org/data", distance_standard_error=0.004, standard_error=0.02)


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


def connection(hub, token=None, **changes):
    """A connection that waits for nothing."""
    waits: list[float] = []
    token = hub.token if token is None else token
    settings = {
        "endpoint": hub.endpoint,
        "token": token,
        "sleep": waits.append,
        "progress": False,
    }
    link = Connection(**{**settings, **changes})
    link.waits = waits  # type: ignore[attr-defined]
    return link


def push(hub, repo="owner/a", embedding=EMBEDDING, token=None, **options):
    options.setdefault("role", "finetune")
    return push_embedding(repo, embedding, connection=connection(hub, token), **options)


def test_what_is_pushed_is_pulled_and_nothing_else_changes(hub):
    hub.add_repo("owner/a", {"README.md": CARD})

    done = push(hub)

    assert done.changed
    assert done.commit == hub.head("owner/a")
    text = hub.read("owner/a").decode()
    assert text.startswith('---\nlicense: mit  # ours\ntags:\n- vision\n- task2vec\n- "t2v-space:')
    assert text.endswith("---\n# A model\n")
    found = pull_embeddings("owner/a", connection=connection(hub))
    assert [entry.role for entry in found.entries] == ["finetune"]
    assert found.entries[0].embedding.task.id == "org/data"
    assert hub.history("owner/a")[0].title == "Add Task2Vec embedding of org/data"


def test_the_same_again_is_no_commit(hub):
    hub.add_repo("owner/a", {"README.md": CARD})
    first = push(hub)

    again = push(hub)

    assert (again.changed, again.commit) == (False, None)
    assert hub.head("owner/a") == first.commit


def test_a_new_measurement_replaces_the_old_and_others_stay(hub):
    hub.add_repo("owner/a", {"README.md": CARD})
    other = make_embedding(seed=4, task="org/other")
    push(hub)
    push(hub, embedding=other)
    push(hub, role="pretrain")

    push(hub, embedding=make_embedding(seed=9, task="org/data"))

    entries = pull_embeddings("owner/a", connection=connection(hub)).entries
    assert [(e.embedding.task.id, e.role) for e in entries] == [
        ("org/data", "finetune"), ("org/other", "finetune"), ("org/data", "pretrain")
    ]  # fmt: skip
    assert entries[0].embedding.measurement.seed == 9


def test_a_card_is_made_where_there_is_none(hub):
    hub.add_repo("owner/a", {"config.json": "{}"})

    push(hub)

    assert hub.read("owner/a").startswith(b"---\ntags:")


def test_a_dry_run_changes_nothing(hub):
    hub.add_repo("owner/a", {"README.md": CARD})

    done = push(hub, dry_run=True)

    assert hub.read("owner/a").decode() == CARD
    assert done.changed
    assert done.commit is None
    assert "+task2vec:" in done.diff
    assert push(hub).content == done.content == hub.read("owner/a")


def test_a_reader_opens_one_pull_request(hub):
    """And goes on with it, rather than opening a second."""
    hub.add_repo("owner/a", {"README.md": CARD})
    reader = hub.user("reader")

    first = push(hub, token=reader)
    again = push(hub, token=reader)
    newer = push(hub, embedding=make_embedding(seed=9, task="org/data"), token=reader)

    assert hub.read("owner/a").decode() == CARD
    assert first.pull_request == again.pull_request == newer.pull_request
    assert (first.changed, again.changed, newer.changed) == (True, False, True)
    [request] = hub.pull_requests("owner/a")
    assert request.author == "reader"
    branch = f"refs/pr/{request.number}"
    found = pull_embeddings("owner/a", revision=branch, connection=connection(hub))
    assert [entry.embedding.measurement.seed for entry in found.entries] == [9]


def test_a_pull_request_may_be_wanted_or_ruled_out(hub):
    hub.add_repo("owner/a", {"README.md": CARD})

    asked = push(hub, create_pr=True)

    assert asked.pull_request is not None
    assert hub.read("owner/a").decode() == CARD
    with pytest.raises(HubAccessError, match="your token may not do that. Use one with the right to write"):
        push(hub, token=hub.user("reader"), create_pr=False)
    assert len(hub.pull_requests("owner/a")) == 1


def test_a_lost_answer_opens_no_second_pull_request(hub):
    """The connection may break after the Hub did what was asked."""
    hub.add_repo("owner/a", {"README.md": CARD})
    hub.faults.cut(path="/commit/", method="POST")

    done = push(hub, token=hub.user("reader"), create_pr=True)

    assert len(hub.pull_requests("owner/a")) == 1
    assert done.pull_request is not None


def test_a_lost_answer_to_a_commit_is_found_out(hub):
    hub.add_repo("owner/a", {"README.md": CARD})
    hub.faults.cut(path="/commit/", method="POST")

    push(hub)

    assert len(pull_embeddings("owner/a", connection=connection(hub)).entries) == 1
    assert len(hub.history("owner/a")) == 2


def test_writers_who_race_all_get_through(hub):
    """Each reads the card again when another was first; nobody's entry is lost."""
    hub.add_repo("owner/a", {"README.md": CARD})
    failures = []

    def write(number: int) -> None:
        try:
            push(hub, embedding=make_embedding(seed=number, task=f"org/data{number}"))
        except HubError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    found = pull_embeddings("owner/a", connection=connection(hub)).entries
    assert {entry.embedding.task.id for entry in found} == {f"org/data{n}" for n in range(8)}
    cleared = remove_embeddings("owner/a", connection=connection(hub))
    assert cleared.content.decode() == CARD


def test_a_change_in_between_is_kept(hub):
    """Somebody edits the card between our reading and our commit."""
    hub.add_repo("owner/a", {"README.md": CARD})
    edited = CARD.replace("# A model", "# A better model")
    hub.faults.before_commit(lambda: hub.commit("owner/a", {"README.md": edited}))

    push(hub)

    text = hub.read("owner/a").decode()
    assert "# A better model" in text
    assert "task2vec:" in text


def test_a_card_that_never_rests_ends_in_an_error(hub, monkeypatch):
    monkeypatch.setattr("t2v_hub.hub.changes._CONFLICTS", 3)
    hub.add_repo("owner/a", {"README.md": CARD})
    hub.faults.fail(412, times=3, path="/commit/")

    with pytest.raises(HubConflictError, match="changed by others each of 3 times"):
        push(hub)


def test_an_owner_can_opt_out(hub):
    hub.add_repo("owner/a", {"README.md": "---\ntask2vec: false\n---\n"})

    with pytest.raises(OptedOutError, match="its owner wants no embeddings there"):
        push(hub)
    assert pull_embeddings("owner/a", connection=connection(hub)).opted_out


def test_removing_the_last_gives_back_the_card(hub):
    hub.add_repo("owner/a", {"README.md": CARD})
    push(hub)
    elsewhere = make_embedding(seed=2, n_filters=5, task="org/data")
    push(hub, embedding=elsewhere)

    one = remove_embeddings("owner/a", space=elsewhere.space, connection=connection(hub))
    assert f"t2v-space:{elsewhere.space.id}" not in one.content.decode()
    assert f"t2v-space:{EMBEDDING.space.id}" in one.content.decode()
    assert remove_embeddings("owner/a", dataset="org/none", connection=connection(hub)).changed is False
    hub.add_repo("owner/paper", {"README.md": "---\ntags: [task2vec, vision]\n---\n"})
    assert remove_embeddings("owner/paper", connection=connection(hub)).changed is False  # not our tag

    remove_embeddings("owner/a", connection=connection(hub))

    assert hub.read("owner/a").decode() == CARD


def test_a_body_that_is_not_utf8_survives(hub):
    """The Hub's client refuses to send it; we do not."""
    card = b"---\nlicense: mit\n---\n# Caf\xe9\n"
    hub.add_repo("owner/a", {"README.md": card})

    push(hub)
    assert b"# Caf\xe9\n" in hub.read("owner/a")

    push(hub, embedding=make_embedding(seed=3, task="org/other"), token=hub.user("reader"))
    remove_embeddings("owner/a", connection=connection(hub))
    assert hub.read("owner/a") == card
    assert len(hub.pull_requests("owner/a")) == 1


def test_a_data_set_card_describes_itself(hub):
    hub.add_repo("owner/photos", {"README.md": ""}, kind="dataset")

    push(hub, "owner/photos", role="self")

    [entry] = pull_embeddings("owner/photos", repo_type="dataset", connection=connection(hub)).entries
    assert entry.role == "self"
    assert entry.embedding.task.id == "owner/photos"
    with pytest.raises(SettingsError, match="goes with the card of a dataset, not of a model"):
        push(hub, role="self", repo_type="model")
    with pytest.raises(SettingsError, match="goes with the card of a model, not of a dataset"):
        push(hub, repo_type="dataset")
    with pytest.raises(SettingsError, match="needs a TaskEmbedding, not dict"):
        push(hub, embedding={})


def test_gated_private_renamed_and_old_cards(hub):
    reader = hub.user("reader")
    hub.add_repo("owner/gated", {"README.md": CARD}, gated="manual")
    hub.add_repo("owner/secret", {"README.md": CARD}, private=True)
    hub.add_repo("owner/old", {"README.md": CARD})
    hub.rename("owner/old", "owner/new")

    push(hub, "owner/gated")
    push(hub, "owner/secret")
    renamed = push(hub, "owner/old")

    assert renamed.repo_id == "owner/new"
    assert b"task2vec" in hub.read("owner/new")
    assert pull_embeddings("owner/gated", connection=connection(hub, reader)).entries
    with pytest.raises(HubNotFoundError, match="'owner/secret' is not on http.*, or you may not see it"):
        pull_embeddings("owner/secret", connection=connection(hub, reader))


@pytest.mark.parametrize(
    ("repo", "kind", "words"),
    [
        ("owner/none", HubNotFoundError, "'owner/none' is not on http"),
        ("owner/closed", HubAccessError, "disabled"),
        ("not a name", HubError, "not a name"),
    ],
)
def test_what_is_not_there_is_named(hub, repo, kind, words):
    hub.add_repo("owner/closed", {"README.md": CARD}, disabled=True)

    with pytest.raises(kind, match=words):
        push(hub, repo)


def test_a_revision_that_is_not_there_is_named(hub):
    hub.add_repo("owner/a", {"README.md": CARD})

    with pytest.raises(HubNotFoundError, match="no such revision"):
        pull_embeddings("owner/a", revision="v9", connection=connection(hub))


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, HubRejectedError, "rejects it"),
        (401, HubAccessError, "token is missing or not valid|may not see it"),
        (403, HubAccessError, "your token may not do that"),
        (404, HubNotFoundError, "is not on http"),
        (413, HubRejectedError, "does not take so much metadata"),
        (422, HubRejectedError, "rejects it"),
        (500, HubUnreachableError, "cannot be reached, or fails"),
        (503, HubUnreachableError, "cannot be reached, or fails"),
    ],
)
def test_each_refusal_has_a_name(hub, status, kind, words):
    hub.add_repo("owner/a", {"README.md": CARD})
    hub.faults.fail(status, times=50, path="/commit/|/preupload/|/validate-yaml")

    with pytest.raises((kind, HubNotFoundError) if status == 401 else kind, match=words) as caught:
        push(hub, create_pr=False)

    assert "Traceback" not in str(caught.value)
    assert hub.read("owner/a").decode() == CARD


def test_server_errors_and_broken_connections_are_tried_again(hub):
    hub.add_repo("owner/a", {"README.md": CARD})
    hub.faults.fail(502, times=2, path="/api/models/owner/a")
    hub.faults.cut(path="README.md", after_bytes=10)

    assert push(hub).changed


def test_a_pause_that_the_hub_asks_for_is_kept(hub, capsys):
    hub.add_repo("owner/a", {"README.md": CARD})
    hub.faults.fail(429, times=2, path="/api/models/owner/a", retry_after_s=55)
    link = connection(hub, progress=True)

    push_embedding("owner/a", EMBEDDING, role="finetune", connection=link)

    assert [wait for wait in link.waits if wait >= 1] == [56, 56]
    assert "the Hub asks for a pause (429, too many requests); waiting 56 s" in capsys.readouterr().err


def test_patience_ends(hub):
    hub.add_repo("owner/a", {"README.md": CARD})
    hub.faults.fail(429, times=50, path="/api/models/owner/a", retry_after_s=300)

    with pytest.raises(RateLimitError, match="asks to wait 301 s .*at most 500 s were waited. Log in"):
        push_embedding("owner/a", EMBEDDING, role="finetune", connection=connection(hub, patience_s=500.0))


def test_nobody_listens():
    link = Connection(endpoint="http://127.0.0.1:9", token="hf_x", sleep=lambda _: None, tries=2)

    with pytest.raises(HubUnreachableError, match="cannot be reached, or fails. .* last of 2 failures"):
        pull_embeddings("owner/a", connection=link)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"<html>", b'{"id": 5, "sha": []}', b"[" * 100_000, b"\xff\xfe", b'{"a":'],
)
def test_an_answer_that_is_none_of_a_hub(hub, body):
    hub.add_repo("owner/a", {"README.md": CARD})
    hub.faults.lie("/api/models/owner/a", body, times=50)

    with pytest.raises(HubError):
        push(hub, create_pr=False)
    assert hub.read("owner/a").decode() == CARD


def test_tokens_never_show(hub, caplog, capsys):
    """Also where a server echoes them."""
    token = "hf_secretsecretsecretsecret"
    hub.add_repo("owner/a", {"README.md": CARD})
    hub.faults.fail(
        403, times=9, path="/api/models/owner/a", headers={"X-Error-Message": f"token {token} is bad"}
    )
    caplog.set_level(logging.DEBUG, logger="t2v_hub")

    with pytest.raises(HubAccessError) as caught:
        push(hub, token=token, create_pr=False)

    import traceback

    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capsys.readouterr())
    assert "is bad" in shown
    assert token not in shown


def test_a_server_that_leads_elsewhere_is_not_followed(hub):
    """The next page of a listing would get the token."""
    hub.faults.lie(
        r"/api/models$", b"[]", headers={"Link": '<http://127.0.0.1:1/api/models?cursor=x>; rel="next"'}
    )

    with pytest.raises(HubUnreachableError, match="leads to another server"):
        connection(hub).get("/api/models", what="Listing", max_bytes=1000)


def test_a_pull_request_needs_a_token(hub):
    hub.add_repo("owner/a", {"README.md": CARD})

    with pytest.raises(HubAccessError, match="[Ll]og in with `hf auth login`"):
        push_embedding(
            "owner/a", EMBEDDING, role="finetune", create_pr=True, connection=connection(hub, token=False)
        )


def test_entries_that_cannot_be_used_are_named(hub):
    values = entry_values(EMBEDDING, role="finetune")
    readme = Readme.parse(CARD.encode()).changed(append=[values, {**values, "spec": "t2v/9"}])
    hub.add_repo("owner/a", {"README.md": readme})

    with pytest.warns(CardWarning, match="Card of 'owner/a': skipped entry 2: its spec is 't2v/9'"):
        found = pull_embeddings("owner/a", connection=connection(hub))

    assert len(found.entries) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        push(hub, embedding=make_embedding(seed=5, task="org/data"))
    assert b"spec: t2v/9" in hub.read("owner/a")


def test_pulling_one_space(hub):
    hub.add_repo("owner/a", {"README.md": CARD})
    other = make_embedding(n_filters=5, task="org/data")
    push(hub)
    push(hub, embedding=other)

    found = pull_embeddings("owner/a", space=other.space, connection=connection(hub))

    assert [entry.embedding.space for entry in found.entries] == [other.space]
    assert pull_embeddings("owner/a", space=make_space(7), connection=connection(hub)).entries == ()


def test_a_card_that_cannot_be_changed_without_harm_is_left_alone(hub):
    card = "---\nx: &tags [a]\ntags: *tags\n---\n"
    hub.add_repo("owner/a", {"README.md": card})

    with pytest.raises(CardTextError):
        push(hub)

    assert hub.read("owner/a").decode() == card


def test_what_a_private_folder_was_called_stays_here(hub):
    hub.add_repo("owner/a", {"README.md": CARD})
    task = TaskInfo("patients", 10, 2, revision="fingerprint:ab", class_names=("ill", "well"))
    secret = TaskEmbedding(EMBEDDING.fisher, EMBEDDING.prior, EMBEDDING.space, task, EMBEDDING.measurement)

    push(hub, embedding=secret)
    assert b"patients" not in hub.read("owner/a")

    push(hub, embedding=secret, publish_names=True)
    assert b"patients" in hub.read("owner/a")


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://x", "", 5])
def test_an_endpoint_must_be_an_address(endpoint):
    with pytest.raises(SettingsError, match="endpoint must be an address"):
        Connection(endpoint=endpoint)
