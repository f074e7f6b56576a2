"""What a user of `Trainer` does on a Hub, in a process: ``python trainer_user.py FOLDER PROBE EXPERT``.

Trains for two steps and pushes, with the real client; what came of it is printed as JSON in the last line.
"""

import json
import sys
import warnings
from pathlib import Path

from datasets import load_from_disk
from huggingface_hub import HfApi, ModelCard
from transformers import AutoConfig, Trainer, TrainingArguments

from t2v_hub import Candidate, Catalog, ModelSelector, Task2Vec
from t2v_hub.hub import pull_embeddings
from t2v_hub_integrations.transformers import ImageCollator, Task2VecCallback, accuracy, load_for_trainer

QUICK = {"max_samples": 50, "standard_error": False, "progress": False}
OPEN, CLOSED = "owner/open", "owner/closed"


def pushed(id: str) -> dict[str, object]:
    """What others find there."""
    card = ModelCard.load(id, ignore_metadata_errors=False)
    entries = pull_embeddings(id)
    [entry] = entries.entries
    return {
        "tags": card.data.tags,
        "accuracy": card.data.eval_results[0].metric_value,
        "text": card.text,
        "data_set_in_index": card.data.eval_results[0].dataset_name,
        "library": card.data.library_name,
        "base": card.data.base_model,
        "space": entry.embedding.space.id,
        "norm": entry.embedding.norm,
        "role": entry.role,
        "data": entry.embedding.task.id,
        "classes": list(entry.embedding.task.class_names),
        "named_by_the_model": list(AutoConfig.from_pretrained(id).id2label.values()),
        "files": sorted(HfApi().list_repo_files(id)),
        "commits": [commit.title for commit in HfApi().list_repo_commits(id)],
        "skipped": list(entries.skipped),
    }


def main(folder: Path, probe: str, expert: str) -> dict[str, object]:
    train, test = (load_from_disk(str(folder / name)) for name in ("train", "test"))
    embedding = Task2Vec(probe, **QUICK).embed(train)
    catalog = Catalog(folder / "catalog")
    catalog.add(Candidate(expert, source="digits"), embedding=embedding)
    found = load_for_trainer(ModelSelector(catalog, task=embedding).rank()[0], train)
    said: dict[str, object] = {"norm": embedding.norm}
    for id, names in ((CLOSED, False), (OPEN, True)):
        trainer = Trainer(
            model=found.model,
            args=TrainingArguments(
                str(folder / id),
                max_steps=2,
                save_steps=1,
                eval_strategy="steps",
                eval_steps=1,
                push_to_hub=True,
                hub_model_id=id,
                hub_always_push=True,
                remove_unused_columns=False,
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
            ),
            data_collator=ImageCollator.of(train, preprocessing=found.preprocessing),
            compute_metrics=accuracy,
            train_dataset=train,
            eval_dataset=test,
            processing_class=found.image_processor,
        )
        callback = Task2VecCallback(trainer, probe=probe, publish_names=names, **QUICK)
        trainer.add_callback(callback)
        trainer.train()
        metrics = trainer.evaluate()
        card = {
            "dataset": "Digits",
            "dataset_tags": "digits",
            "dataset_args": "all",
            "tags": ["vision"],
            "tasks": "image-classification",
        }
        if names:  # in the background
            trainer.push_to_hub(blocking=False, **card).result()
        else:
            trainer.push_to_hub(**card)
        said[id] = {**pushed(id), "measured": metrics["eval_accuracy"]}
    listed = HfApi().list_models(filter=["task2vec", f"t2v-space:{embedding.space.id}"])
    return said | {"listed": sorted(model.id for model in listed)}


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:])))
