"""Puts the digits' pool on a Hub, in a process of its own: ``python digits_publishing.py POOL FOLDER``."""

import json
import sys
from pathlib import Path

from datasets import DatasetDict, load_from_disk
from digits_pool import DATA, OWNER, PROBE
from huggingface_hub import HfApi

from t2v_hub import TaskEmbedding
from t2v_hub.hub import push_embedding


def main(pool: Path, folder: Path) -> None:
    api = HfApi()
    experts = {f"{OWNER}/{path.name}": path for path in sorted((pool / "experts").iterdir())}
    for id, path in {PROBE: pool / "probe", **experts}.items():
        api.create_repo(id, exist_ok=True)
        api.upload_folder(repo_id=id, folder_path=path)
    for id, path in experts.items():
        # As each library's own push_to_hub writes it.
        library = (
            "timm" if "architecture" in json.loads((path / "config.json").read_text()) else "transformers"
        )
        api.upload_file(
            repo_id=id,
            path_in_repo="README.md",
            path_or_fileobj=f"---\nlibrary_name: {library}\n---\n".encode(),
        )
        source = TaskEmbedding.load(folder / f"{path.name}.safetensors")
        push_embedding(id, source, role="finetune", publish_names=True)
    splits = {name: load_from_disk(str(folder / name)) for name in ("train", "test")}
    DatasetDict(splits).push_to_hub(DATA)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
