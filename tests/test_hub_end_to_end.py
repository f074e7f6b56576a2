"""The whole way on a Hub, with real clients in processes of their own: push, list, rank, load."""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from t2v_hub.testing import LoopbackHub

USER = Path(__file__).parent / "hub_user.py"


def run(hub, folder, steps, **more):
    """What the user's steps say, in a process that knows no other Hub."""
    environment = {
        **os.environ,
        **hub.environment(folder / "home"),
        "T2V_HOME": str(folder / "t2v"),
        "READER_TOKEN": hub.user("reader", can_write=False),
        "TQDM_DISABLE": "1",
        **more,
    }
    done = subprocess.run(
        [sys.executable, str(USER), steps, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    """What users said, the Hub, the requests of each step, and the users' folder."""
    folder = tmp_path_factory.mktemp("journey")
    with LoopbackHub() as hub:
        said = run(hub, folder, "publish,search")
        requests, step = {}, ""
        for request in hub.requests:
            if request.path.startswith("/api/models/mark/"):
                step = request.path.rpartition("/")[2]
            requests.setdefault(step, []).append(request)
        hub.clear_requests()
        state = folder / "t2v" / "catalog" / "hub.json"
        values = json.loads(state.read_text())
        past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3, minutes=5)
        for scope in values["scopes"]:
            scope["report"]["synced_at"] = past.isoformat(timespec="seconds")
        state.write_text(json.dumps(values))
        said |= run(hub, folder, "offline", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
        requests["offline"] = hub.requests
        yield said, hub, requests, folder


def test_where_there_is_nothing_it_says_what_to_do(journey):
    """The first user of a probe finds no candidate: that is no fault, and there is a way on."""
    said, hub, *_ = journey
    message = said["publish"]["nothing"]

    assert f"No checkpoint on {hub.endpoint} has an embedding in space s" in message
    assert "`t2v catalog add CHECKPOINT --data IMAGES`" in message
    assert "`t2v enrich --filter image-classification --catalog-only`" in message


def test_the_embedding_in_a_data_set_s_card_saves_its_images(journey):
    """Whoever has only the name of a data set needs no gigabytes to rank for it."""
    said, _, requests, _ = journey

    assert said["search"]["norm"] == pytest.approx(said["publish"]["norm"], rel=1e-3)
    assert said["search"]["norm"] != said["publish"]["norm"], "float16: it is the card's"
    assert not [request.path for request in requests["stored"] if request.path.endswith(".parquet")]
    assert [request.path for request in requests["search"] if request.path.endswith(".parquet")]


def test_candidates_are_found_by_one_listing_and_ranked(journey):
    """Their cards are in the listing, and searching must not count as a download of anything."""
    said, hub, requests, _ = journey
    search = said["search"]

    assert search["stored"][0] == "owner/near"
    assert sorted(search["stored"]) == ["owner/far", "owner/gated", "owner/near", "owner/secret"]
    assert search["stored"] == search["again"]
    assert len([request for request in requests["stored"] if request.path == "/api/models"]) == 1
    fetched = [request.path for request in requests["stored"] if "/resolve/" in request.path]
    assert all(path.startswith("/datasets/owner/data/") and path.endswith("/README.md") for path in fetched)
    assert search["origin"]["endpoint"] == hub.endpoint
    assert f": cards on {hub.endpoint}, read just now (" in search["table"]


def test_checkpoints_of_both_libraries_load_with_a_head_for_the_data(journey):
    """The owner sees all of them, the gated and the private one among them."""
    said, *_ = journey

    assert said["search"]["loaded"] == {id: [2, 3] for id in said["search"]["stored"]}


def test_what_a_reader_proposes_counts_once_it_is_merged(journey):
    """Anyone may enrich a checkpoint; its owner decides."""
    said, hub, *_ = journey
    address, n_before = said["publish"]["proposed"]

    assert address == f"{hub.endpoint}/owner/plain/discussions/1"
    assert n_before == 0
    [request] = hub.pull_requests("owner/plain")
    assert (request.author, request.status) == ("reader", "merged")
    assert set(said["search"]["merged"]) == {*said["search"]["stored"], "owner/plain"}


def test_who_may_not_see_it_does_not_find_it(journey):
    """A private checkpoint is not listed; the card of a gated one is, its weights are not given away."""
    said, *_ = journey
    reader = said["search"]["reader"]

    assert set(reader) == {"owner/near", "owner/far", "owner/gated", "owner/plain"}
    assert reader["owner/gated"] == (
        "Cannot load checkpoint 'owner/gated': 'owner/gated' is gated: accept its terms on the Hub and log "
        "in with `hf auth login`."
    )
    assert [reader[id] for id in ("owner/near", "owner/far", "owner/plain")] == [[2, 3]] * 3


def test_without_a_connection_what_was_read_is_ranked(journey):
    """It says how old that is; what was loaded before is loaded again, and nothing is asked."""
    said, hub, requests, _ = journey
    offline = said["offline"]

    assert requests["offline"] == []
    merged = [id for id in said["search"]["merged"] if id != "owner/secret"]  # the reader asked last
    assert offline["ranked"] == merged
    assert f": cards on {hub.endpoint}, read 3 days ago (" in offline["table"]
    assert "not brought up to date now: " in offline["table"]
    assert "HF_HUB_OFFLINE forbids to ask the Hub" in offline["table"]
    assert offline["loaded"]["owner/near"] == offline["loaded"]["owner/far"] == [2, 3]
    assert (
        "(OfflineModeIsEnabled). Check the connection, unset HF_HUB_OFFLINE"
        in offline["loaded"]["owner/plain"]
    )


def test_no_token_is_written_down(journey):
    """Cards, catalogs and caches travel."""
    _, hub, _, folder = journey
    secrets = [hub.token.encode(), hub.user("reader").encode()]

    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret in content], path


def test_a_data_set_that_the_caller_loaded_keeps_its_name_and_commit(journey):
    """As long as it is the whole split and nothing was changed: a card may then name it."""
    said, hub, _, _ = journey
    whole, *parts = said["search"]["provenance"]

    assert whole == ["owner/data", hub.head("owner/data", kind="dataset")]
    assert all(name == "owner/data" for name, _ in parts)
    assert all(revision.startswith("fingerprint:") for _, revision in parts)
