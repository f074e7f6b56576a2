"""What a user of a Hub does, in a process of its own: ``python hub_user.py publish|search|offline FOLDER``.

Only real clients and public names; what came of it is printed as JSON in the last line.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import concatenate_datasets, load_dataset
from huggingface_hub import HfApi

from t2v_hub import AutoSelector, Ranking, Task2Vec
from t2v_hub.data import load
from t2v_hub.demo.networks import new_network, save
from t2v_hub.errors import CheckpointError, EmptyCatalogError
from t2v_hub.hub import pull_embeddings, push_embedding
from t2v_hub.testing import tiny_task

WIDTHS = (4, 4, 4, 4)
READER = os.environ["READER_TOKEN"]
SHIFTS = {"owner/near": 0.1, "owner/far": 1.5, "owner/gated": 1.0, "owner/secret": 0.7, "owner/plain": 0.4}
LIBRARIES = {"owner/near": "transformers", "owner/far": "timm"}
SETTINGS: dict[str, Any] = {"progress": False, "device": "cpu"}


def mark(step: str) -> None:
    """Leave a trace among the Hub's requests."""
    HfApi().repo_exists(f"mark/{step}")


def outputs(network: torch.nn.Module) -> list[int]:
    """Shape of what the network says of two images."""
    said = network(torch.zeros(2, 3, 32, 32))
    return list(getattr(said, "logits", said).shape)


def loaded(ranking: Ranking, data: object, **options: Any) -> dict[str, object]:
    """What becomes of every candidate that is loaded for the data: outputs, or why not."""
    found: dict[str, object] = {}
    for item in ranking:
        try:
            found[item.candidate.id] = outputs(item.load(data, **options))
        except CheckpointError as error:
            found[item.candidate.id] = str(error)
    return found


def publish(folder: Path) -> dict[str, object]:
    """A user finds nothing, and publishes: checkpoints, a data set, embeddings of both."""
    api, said, probe = HfApi(), dict[str, object](), folder / "probe"
    save(new_network("timm", 3, widths=WIDTHS, seed=9), probe, class_names=["a", "b", "c"], widths=WIDTHS)
    mark("nothing")
    try:
        AutoSelector.from_task(tiny_task(), probe=probe, **SETTINGS)
    except EmptyCatalogError as error:
        said["nothing"] = str(error)

    mark("publish")
    task2vec = Task2Vec(probe=probe, **SETTINGS)
    for number, (id, shift) in enumerate(SHIFTS.items()):
        place = folder / id
        network = new_network(LIBRARIES.get(id, "timm"), 3, widths=WIDTHS, seed=number)  # type: ignore[arg-type]
        save(network, place, class_names=["a", "b", "c"], widths=WIDTHS)
        api.create_repo(id, private=id == "owner/secret")
        api.upload_folder(repo_id=id, folder_path=place)
        shutil.rmtree(place)
        source = task2vec.embed(tiny_task(seed=number + 1, shift=shift))
        if id != "owner/plain":
            push_embedding(id, source, role="finetune")
            continue
        proposed = push_embedding(id, source, role="finetune", token=READER)
        said["proposed"] = [proposed.pull_request, len(pull_embeddings(id).entries)]
    api.update_repo_settings("owner/gated", gated="manual")

    tiny_task(seed=20).push_to_hub("owner/data")
    measured = task2vec.embed("owner/data")
    push_embedding("owner/data", measured, role="self")
    mark("published")
    return said | {"norm": measured.norm, "revision": measured.task.revision}


def search(folder: Path) -> dict[str, object]:
    """Another one searches, ranks and loads."""
    said, probe = dict[str, object](), folder / "probe"
    mark("stored")
    selector = AutoSelector.from_task("owner/data", probe=probe, **SETTINGS)
    assert selector.task is not None
    said["norm"], said["stored"] = selector.task.norm, list(selector.rank().ranked)

    mark("search")
    data = load_dataset("owner/data", split="train")
    ranking = AutoSelector.from_task(data, probe=probe).rank()
    said["table"], said["origin"] = str(ranking), ranking.to_dict()["origin"]
    parts = [data, data.select(range(30)), data.filter(lambda row: row["label"] < 2), data.shuffle(seed=0)]
    parts += [data.map(lambda row: {"label": (row["label"] + 1) % 3}), concatenate_datasets([data, data])]
    said["provenance"] = [[load(part).info.id, load(part).info.revision] for part in parts]
    said["again"] = list(AutoSelector.from_task(data).rank().ranked)  # by now the probe is known
    said["loaded"] = loaded(ranking, data)
    HfApi().merge_pull_request("owner/plain", 1)
    said["merged"] = list(AutoSelector.from_task(data, probe=probe).rank().ranked)

    mark("reader")
    theirs = AutoSelector.from_task(data, probe=probe, token=READER).rank()
    cache = folder / "reader"
    said["reader"] = loaded(theirs, data, token=READER, cache_dir=cache)
    mark("end")
    return said


def offline(folder: Path) -> dict[str, object]:
    """The same without a connection."""
    ranking = AutoSelector.from_task("owner/data", probe=folder / "probe", **SETTINGS).rank()
    return {"table": str(ranking), "ranked": list(ranking.ranked), "loaded": loaded(ranking, None)}


if __name__ == "__main__":
    step = {"publish": publish, "search": search, "offline": offline}
    steps = sys.argv[1].split(",")
    results = {name: step[name](Path(sys.argv[2])) for name in steps}
    sys.stdout.write(json.dumps(results))
