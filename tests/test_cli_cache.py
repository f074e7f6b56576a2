"""``t2v cache``: what is counted, what goes, and what never does."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_data import SIZE, t2v, t2v_json
from factories import make_embedding

from t2v_hub import housekeeping
from t2v_hub.blocks import BlockStore
from t2v_hub.cache import EmbeddingCache
from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.cli.cache import n_bytes, seconds, size_in_words
from t2v_hub.errors import SettingsError
from t2v_hub.features.store import Features, FeatureStore
from t2v_hub.housekeeping import kept_items, prune, sizes

DAY = 86_400.0


def key(number):
    return f"{number:032x}"


def put(path, n=1000, *, days):
    """A file that was used last so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * n)
    used = time.time() - days * DAY
    os.utime(path, (used, used))
    if path.parent.suffix == ".blocks":
        os.utime(path.parent, (used, used))
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with something of every kind, and of what is nobody's business."""
    folder = tmp_path / "home"
    monkeypatch.setenv("T2V_HOME", str(folder))
    for number, days in enumerate((1, 10, 100), start=1):
        put(folder / "embeddings" / f"{key(number)}.safetensors", days=days)
        put(folder / "features" / f"{key(number)}.safetensors", 2000, days=days)
    for number in range(3):
        put(folder / "embeddings" / f"{key(7)}.blocks" / f"block-{number:06d}.safetensors", 500, days=50)
    put(folder / "catalog" / "candidates.parquet", 10_000, days=500)
    put(folder / "enrich" / "hub" / "s1" / "cards.jsonl", 10_000, days=500)
    put(folder / "embeddings" / "my-pets.safetensors", 10_000, days=500)
    put(folder / "thesis.tex", 10_000, days=500)
    return folder


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_size_counts_every_kind(home):
    """A full disk is where this is first read."""
    values = t2v_json("cache", "size")
    text = t2v("cache", "size").stdout

    kinds = {item["kind"]: item for item in values["kinds"]}
    assert {name: (item["n_items"], item["n_bytes"]) for name, item in kinds.items()} == {
        "embeddings": (3, 3000), "blocks": (1, 1500), "features": (3, 6000),
        "catalog": (1, 10_000), "enrich": (1, 10_000), "other": (2, 20_000),
    }  # fmt: skip
    assert values["n_bytes"] == 50_500
    assert [name for name, item in kinds.items() if item["can_be_pruned"]] == [
        "embeddings",
        "blocks",
        "features",
    ]
    assert kinds["embeddings"]["oldest"] < kinds["embeddings"]["newest"]
    assert f"50.5 kB in {home}" in text
    assert "never pruned" in text


def test_size_of_nothing(tmp_path, monkeypatch):
    """A new user has no such folder."""
    monkeypatch.setenv("T2V_HOME", str(tmp_path / "none"))

    assert t2v_json("cache", "size")["n_bytes"] == 0
    assert t2v_json("cache", "prune", "--max-size", "0", "--yes")["n_removed"] == 0
    assert not (tmp_path / "none").exists()


def test_what_was_measured_is_what_is_counted(tmp_path, pets, probe, monkeypatch):
    """The names in this room and those of the rooms that write must not drift apart."""
    monkeypatch.setenv("T2V_HOME", str(tmp_path))
    t2v_json("embed", pets, "-o", tmp_path.parent / f"{tmp_path.name}.safetensors", "--probe", probe, *SIZE)
    EmbeddingCache(tmp_path / "embeddings").blocks(key(1)).put(0, make_embedding().fisher.astype("f8")[None])
    FeatureStore(tmp_path / "features").save(key(2), Features(make_embedding().fisher[None]))
    Catalog().add(Candidate("org/a", embeddings=[make_embedding()]))

    counts = {item.kind: item.n_items for item in sizes(kept_items())}

    assert {kind: counts.get(kind) for kind in ("embeddings", "blocks", "features", "other")} == {
        "embeddings": 1, "blocks": 1, "features": 1, "other": None
    }  # fmt: skip
    assert counts["catalog"] >= 2


def test_what_is_old_goes(home):
    """And nothing else: not the catalog, not the journal of enrichment, not what is not ours."""
    before = set(listing(home))

    values = t2v_json("cache", "prune", "--older-than", "30d", "--yes")

    gone = before - set(listing(home))
    assert gone == {
        f"embeddings/{key(3)}.safetensors",
        f"features/{key(3)}.safetensors",
        *(f"embeddings/{key(7)}.blocks/block-{number:06d}.safetensors" for number in range(3)),
    }
    assert not (home / "embeddings" / f"{key(7)}.blocks").exists()
    assert (values["n_removed"], values["n_bytes_removed"], values["n_left"]) == (3, 4500, 4)
    assert values["failed"] == []


def test_what_was_used_longest_ago_goes_first(home):
    """Until the rest is small enough, and no further."""
    values = t2v_json("cache", "prune", "--max-size", "6kB", "--yes")

    assert [Path(item["path"]).name for item in values["removed"]] == [
        f"{key(3)}.safetensors", f"{key(3)}.safetensors", f"{key(7)}.blocks"
    ]  # fmt: skip
    assert values["n_bytes_left"] == 6000
    assert t2v_json("cache", "prune", "--max-size", "6kB", "--yes")["n_removed"] == 0


def test_only_of_one_kind(home):
    """Its size is then the limit, not that of all."""
    values = t2v_json("cache", "prune", "--max-size", "2kB", "--kind", "features", "--yes")
    both = t2v_json(
        *("cache", "prune", "--older-than", "5d", "--kind", "embeddings", "--kind", "blocks", "--yes")
    )

    assert [item["kind"] for item in values["removed"]] == ["features"] * 2
    assert [item["kind"] for item in both["removed"]] == ["embeddings", "blocks", "embeddings"]


def test_a_dry_run_deletes_nothing(home):
    """It needs no --yes, and says just what the real one then does."""
    before = listing(home)

    planned = t2v_json("cache", "prune", "--older-than", "5d", "--dry-run")
    text = t2v("cache", "prune", "--older-than", "5d", "--dry-run").stdout

    assert listing(home) == before
    assert planned["dry_run"]
    assert "Would delete 2 embeddings and 1 unfinished measurement and 2 feature files (7.5 kB)" in text
    done = t2v_json("cache", "prune", "--older-than", "5d", "--yes")
    assert planned["removed"] == done["removed"]


@pytest.mark.parametrize("limit", [("--older-than", "0s"), ("--max-size", "0")])
def test_what_may_be_in_use_stays(home, limit):
    """Another process may be measuring at this moment; its newest block says so for all of its blocks."""
    fresh = put(home / "embeddings" / f"{key(8)}.safetensors", days=0.5 / 24)
    half = put(home / "features" / f".{key(9)}.safetensors.abc.tmp", days=0)
    folder = home / "embeddings" / f"{key(7)}.blocks"
    put(folder / "block-000003.safetensors", days=0)

    result = t2v("cache", "prune", *limit, "--yes", "--json")

    values = json.loads(result.stdout)
    assert set(values["in_use"]) == {str(fresh), str(half), str(folder)}
    assert "3 more (4.5 kB) were used within the last hour and stay." in result.stderr
    assert len(list(folder.iterdir())) == 4
    assert values["n_left"] == 3


def test_what_is_used_again_is_young_again(home):
    """A file's own time says when it was written; what is read every day must not be the first to go."""
    cache, store = EmbeddingCache(home / "embeddings"), FeatureStore(home / "features")
    embedding = make_embedding()
    cache.save(key(20), embedding)
    store.save(key(20), Features(embedding.fisher[None]))
    paths = [home / kind / f"{key(20)}.safetensors" for kind in ("embeddings", "features")]
    for path in paths:
        os.utime(path, (0, 0))

    assert cache.load(key(20)) == embedding
    assert store.load(key(20), n=1) is not None

    assert all(path.stat().st_mtime > time.time() - 60 for path in paths)


def test_files_that_vanish_or_are_used_meanwhile(home, monkeypatch):
    """Two people prune a shared folder, and a third one measures."""
    items = kept_items()
    monkeypatch.setattr(housekeeping, "kept_items", lambda folder: items)
    (home / "embeddings" / f"{key(2)}.safetensors").unlink()
    shutil.rmtree(home / "embeddings" / f"{key(7)}.blocks")
    used = home / "features" / f"{key(3)}.safetensors"
    os.utime(used)

    report = prune(older_than_s=5 * DAY)

    assert [item.path for item in report.in_use] == [used]
    assert used.exists()
    assert report.failed == ()
    assert not (home / "embeddings" / f"{key(3)}.safetensors").exists()


def test_no_link_is_followed(home, tmp_path):
    """Whoever can write into a shared cache could have others delete their own files."""
    outside = tmp_path / "outside"
    precious = put(outside / f"{key(30)}.safetensors", days=900)
    put(outside / "block-000000.safetensors", days=900)
    (home / "embeddings" / f"{key(31)}.blocks").symlink_to(outside)
    (home / "embeddings" / f"{key(32)}.safetensors").symlink_to(precious)
    (home / "features" / "deep").symlink_to(outside)
    (home / "linked").symlink_to(outside)

    values = t2v_json("cache", "prune", "--max-size", "0", "--yes")
    size = t2v_json("cache", "size")

    assert sorted(path.name for path in outside.iterdir()) == [
        f"{key(30)}.safetensors",
        "block-000000.safetensors",
    ]
    assert values["n_removed"] == 7
    others = next(item for item in size["kinds"] if item["kind"] == "other")
    assert others["n_items"] == 6
    assert others["n_bytes"] < 25_000


def test_a_folder_of_the_cache_that_is_a_link_is_left_alone(tmp_path, monkeypatch):
    """It leads out of the folder, too."""
    outside = tmp_path / "outside"
    put(outside / f"{key(1)}.safetensors", days=900)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "embeddings").symlink_to(outside)
    monkeypatch.setenv("T2V_HOME", str(tmp_path / "home"))

    values = t2v_json("cache", "prune", "--max-size", "0", "--yes")

    assert values["n_removed"] == 0
    assert len(list(outside.iterdir())) == 1


def test_what_cannot_be_deleted_is_named(home, monkeypatch):
    """The rest goes all the same."""

    def unlink(self, missing_ok=False):
        if self.name.startswith(key(3)):
            raise PermissionError(13, "Permission denied")
        self.rename(self.with_suffix(".gone"))

    monkeypatch.setattr(Path, "unlink", unlink)
    result = t2v("cache", "prune", "--older-than", "5d", "--kind", "embeddings", "--yes")

    assert result.exit_code == 1
    assert f"{key(3)}.safetensors could not be deleted: Permission denied" in result.stderr
    assert "Deleted 1 embedding (1.0 kB)" in result.stdout


def test_nobody_to_ask(home):
    """A script that waits for an answer hangs; one that deletes without is worse."""
    before = listing(home)

    result = t2v("cache", "prune", "--older-than", "30d")

    assert result.exit_code == 2
    assert "Nobody is here to be asked whether 1 embedding and 1 unfinished measurement" in result.stderr
    assert "(4.5 kB) may go. Give --yes to delete, or --dry-run to see what." in result.stderr
    assert listing(home) == before


@pytest.mark.parametrize(("answer", "code", "n_left"), [("y\n", 0, 1), ("n\n", 1, 3), ("", 1, 3)])
def test_somebody_is_asked(home, answer, code, n_left):
    """On stderr, since stdout may be kept."""
    from typer.testing import CliRunner

    from t2v_hub.cli import app

    class Terminal(CliRunner):
        def isolation(self, *arguments, **more):
            entered = super().isolation(*arguments, **more)

            class Isolated:
                def __enter__(self):
                    streams = entered.__enter__()
                    sys.stdin.isatty = lambda: True
                    return streams

                def __exit__(self, *error):
                    return entered.__exit__(*error)

            return Isolated()

    arguments = ["cache", "prune", "--older-than", "5d", "--kind", "embeddings"]
    result = Terminal().invoke(app, arguments, input=answer)

    assert result.exit_code == code
    assert "Delete 2 embeddings (2.0 kB)?" in result.stderr
    assert len(list((home / "embeddings").glob("0*.safetensors"))) == n_left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Nothing says what to delete: give --older-than, --max-size, or both."),
        (["--kind", "blocks"], "Nothing says what to delete"),
        (["--older-than", "30"], "--older-than '30' is no age; wanted a number and s, m, h, d or w"),
        (["--older-than", "-3d"], "is no age"),
        (["--older-than", "٣d"], "is no age"),
        (["--max-size", "much"], "--max-size 'much' is no size; wanted a number of bytes, or 500MB"),
        (["--max-size", "-1"], "is no size"),
        (["--max-size", "1", "--kind", "catalog"], "'catalog' is none of embeddings, blocks, features."),
    ],
)  # fmt: skip
def test_wrong_usage_of_prune(home, arguments, message):
    """Nothing is deleted by a slip."""
    before = listing(home)

    result = t2v("cache", "prune", *arguments, "--yes")

    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert listing(home) == before


def test_limits_in_python(home):
    """The command checks words, the library values."""
    with pytest.raises(SettingsError, match="give older_than_s, max_bytes, or both"):
        prune()
    with pytest.raises(
        SettingsError, match="There is no kind 'catalog' to delete; choose embeddings, blocks"
    ):
        prune(kinds=["catalog"], max_bytes=0)
    with pytest.raises(SettingsError, match="older_than_s must be a finite number >= 0, not nan"):
        prune(older_than_s=float("nan"))
    with pytest.raises(SettingsError, match="max_bytes must be a finite number >= 0, not -1"):
        prune(max_bytes=-1)


def test_ages_and_sizes_in_words():
    """As people write them."""
    assert [seconds(text) for text in ("90s", "2m", "1.5h", "30d", "2W")] == [
        90,
        120,
        5400,
        30 * DAY,
        14 * DAY,
    ]
    assert [n_bytes(text) for text in ("0", "12", "5kB", "1.5MB", "10GB", "2GiB", "1T", "3 mb")] == [
        0, 12, 5000, 1_500_000, 10**10, 2 * 2**30, 10**12, 3_000_000
    ]  # fmt: skip
    assert [size_in_words(n) for n in (0, 999, 1000, 123_456_789, 5e15)] == [
        "0 B", "999 B", "1.0 kB", "123.5 MB", "5000.0 TB"
    ]  # fmt: skip


def test_somebody_s_own_file_among_blocks_stays(home):
    """The blocks go, and are not reported as failed; what is not ours is not deleted with them."""
    folder = home / "embeddings" / f"{key(7)}.blocks"
    notes = put(folder / "notes.txt", days=50)
    (folder / "more").mkdir()
    for path in (folder / "more", folder):
        os.utime(path, (time.time() - 50 * DAY,) * 2)

    report = prune(kinds=["blocks"], older_than_s=DAY)

    assert report.failed == ()
    assert [item.path for item in report.removed] == [folder]
    assert listing(folder) == ["notes.txt"]
    assert notes.exists()
    again = prune(kinds=["blocks"], older_than_s=DAY)
    assert (again.removed, again.n_left) == ((), 0)
    assert notes in [item.path for item in kept_items() if item.kind == "other"]


def test_blocks_that_are_read_are_in_use(home):
    """A process that goes on with an old measurement reads for minutes before it writes a block."""
    folder = home / "embeddings" / f"{key(7)}.blocks"
    store = BlockStore(folder)
    store.put(0, np.ones((2, 3)))
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - 50 * DAY,) * 2)

    assert BlockStore(folder).get(0, (2, 3)) is not None
    report = prune(kinds=["blocks"], older_than_s=DAY)

    assert report.removed == ()
    assert folder.exists()
