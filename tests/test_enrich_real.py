"""``t2v enrich`` as users run it: a real probe, real streams, the real clients, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from t2v_hub.hub import pull_embeddings
from t2v_hub.testing import LoopbackHub, tiny_task

USER = Path(__file__).parent / "cli_user.py"


@pytest.fixture(scope="module")
def probe(tmp_path_factory) -> Path:
    """A tiny network on disk."""
    from t2v_hub.demo.networks import EXPERT_WIDTHS, new_network, save

    folder = tmp_path_factory.mktemp("probe") / "probe"
    save(
        new_network("timm", 3, widths=EXPERT_WIDTHS, seed=0), folder, class_names=list("abc"),
        widths=EXPERT_WIDTHS,
    )  # fmt: skip
    return folder


def add_data(hub: LoopbackHub, name: str, folder: Path, *, shift: float = 0.0) -> None:
    """Images in two Parquet files, as `datasets.push_to_hub` leaves them."""
    data = tiny_task(20, shift=shift)
    files: dict[str, bytes | str] = {"README.md": "---\nlicense: mit\n---\n# Colours\n"}
    for shard in range(2):
        path = folder / f"{shard}.parquet"
        data.shard(2, shard, contiguous=True).to_parquet(path)
        files[f"data/train-0000{shard}-of-00002.parquet"] = path.read_bytes()
    hub.add_repo(name, files, kind="dataset")


@pytest.fixture(scope="module")
def journey(probe, tmp_path_factory):
    """The Hub, and what four commands said: rank where nothing is, enrich, rank elsewhere, enrich again."""
    folder = tmp_path_factory.mktemp("user")
    home, other = str(folder / "home"), str(folder / "other")
    enrich = [home, ["enrich", "--probe", str(probe), "--json"]]
    rank = ["rank", "org/colours", "--probe", str(probe)]
    with LoopbackHub() as hub:
        add_data(hub, "org/colours", folder)
        add_data(hub, "org/shifted", folder, shift=1.0)
        hub.add_repo("org/damaged", {"README.md": "# Data", "data.zip": b"garbage" * 99}, kind="dataset")
        for name, data in zip("abcd", ("colours", "shifted", "none", "damaged"), strict=True):
            card = f"---\nlicense: mit\ndatasets: [org/{data}]\n---\n# {name}\n"
            hub.add_repo(
                f"owner/{name}", {"README.md": card}, pipeline_tag="image-classification", library_name="timm"
            )
        commands = [[home, rank], enrich, [other, [*rank, "--json"]], enrich]
        own = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        said, errors = [], folder / "errors"
        with errors.open("w") as file, subprocess.Popen(
            [sys.executable, USER, json.dumps(commands)],
            env=os.environ | hub.environment(folder / "hf") | own,
            stdout=subprocess.PIPE, stderr=file, text=True,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            for line in child.stdout:
                said.append({**json.loads(line), "requests": hub.requests})
                hub.clear_requests()
        assert len(said) == len(commands), errors.read_text()
        assert [each["crash"] for each in said] == [None] * len(commands)
        yield hub, said


def states(said):
    """What became of each data set."""
    return {item["id"]: item["state"] for item in json.loads(said["out"])["data_sets"]}


def test_streams_end_as_embeddings_in_cards(journey):
    """Real streams, a real probe and real clients; a data set that cannot be read is named and no more."""
    hub, (_, enriched, *_) = journey

    assert enriched["code"] == 0, enriched["err"]
    assert states(enriched) == {
        "org/colours": "embedded", "org/shifted": "embedded", "org/none": "failed", "org/damaged": "failed"
    }  # fmt: skip
    report = json.loads(enriched["out"])
    reasons = {item["id"]: item["reason"] for item in report["data_sets"]}
    assert "cannot be loaded: File is not a zip file" in reasons["org/damaged"]
    assert {card["id"]: card["state"] for card in report["cards"]} == {
        "owner/a": "committed", "owner/b": "committed"
    }  # fmt: skip
    [entry] = pull_embeddings("owner/a", endpoint=hub.endpoint).entries
    task = entry.embedding.task
    assert (task.id, task.split, task.n_samples, task.n_classes) == ("org/colours", "train", 60, 3)
    assert task.revision == hub.head("org/colours", kind="dataset")
    assert entry.embedding.space.n_filters > 0
    assert "/" not in entry.embedding.space.probe  # a folder's path is nobody's business


def test_what_was_enriched_is_found_by_the_next_one_who_looks(journey):
    """From nothing but the Hub."""
    hub, (_, _, ranked, _) = journey

    assert ranked["code"] == 0, ranked["err"]
    ranking = json.loads(ranked["out"])
    assert [candidate["id"] for candidate in ranking["candidates"]] == ["owner/a", "owner/b"]
    assert ranking["origin"]["endpoint"] == hub.endpoint


def test_a_second_run_streams_and_writes_nothing(journey):
    """What is finished is kept."""
    _, (*_, again) = journey

    assert states(again) == {
        "org/colours": "reused", "org/shifted": "reused", "org/none": "failed", "org/damaged": "failed"
    }  # fmt: skip
    assert again["requests"]
    assert not [r for r in again["requests"] if r.path.endswith(".parquet") or r.method == "POST"]


def test_nothing_enriched_says_what_to_do(journey):
    """The first one who looks finds nothing."""
    hub, (nothing, *_) = journey

    assert nothing["code"] == 1
    assert f"No checkpoint on {hub.endpoint} has an embedding in space s" in nothing["err"]
    assert "t2v enrich --filter image-classification --catalog-only" in nothing["err"]
