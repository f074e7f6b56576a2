"""Search for a checkpoint and a learning rate with Optuna, checkpoints in ranked order first.

    python examples/optuna_search.py --data AI-Lab-Makerere/beans --labels labels --trials 40

Started again it goes on; others may help in the same folder once the first has said what it tries first.
"""

import argparse

import optuna
import torch
from datasets import load_dataset
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from t2v_hub import AutoSelector, ProbeNetwork
from t2v_hub_integrations.optuna import enqueue_ranked, failures, load_suggested, suggest_checkpoint

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--labels", default="label", help="the column of the labels")
parser.add_argument("--trials", type=int, default=40)
parser.add_argument("--epochs", type=int, default=3)
args = parser.parse_args()

parts = load_dataset(args.data, split="train").train_test_split(0.3, seed=0, stratify_by_column=args.labels)
storage = JournalStorage(JournalFileBackend("search.log"))  # SQLite loses workers
study = optuna.create_study(study_name=args.data, storage=storage, direction="maximize", load_if_exists=True)
found = enqueue_ranked(study, AutoSelector.from_task(parts["train"]), n_trials=args.trials)
print("Tried first:", *found.enqueued)


def objective(trial: optuna.Trial) -> float:
    """Accuracy on held-out images after a short fine-tuning."""
    checkpoint = suggest_checkpoint(trial, found)
    model = load_suggested(trial, found, parts["train"])  # one that does not load prunes the trial
    rate = trial.suggest_float("rate", 1e-5, 1e-2, log=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    prepare = ProbeNetwork.load(checkpoint).preprocessing
    for epoch in range(args.epochs + 1):
        right, part = 0, parts["train" if epoch < args.epochs else "test"]
        model.train(epoch < args.epochs)
        for batch in part.shuffle(seed=epoch).iter(16):
            pixels = torch.stack([torch.from_numpy(prepare.prepare(image)) for image in batch["image"]])
            output, labels = model(prepare.normalise(pixels)), torch.tensor(batch[args.labels])
            logits = getattr(output, "logits", output)  # transformers returns an object, timm a tensor
            right += int((logits.argmax(dim=1) == labels).sum())
            if model.training:
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(logits, labels).backward()
                optimiser.step()
    return right / len(part)


study.optimize(objective, n_trials=args.trials)
for checkpoint, reason in failures(study).items():
    print(f"Did not load: {checkpoint}: {reason}")
best = study.best_trial
print(f"Best of {len(study.trials)}: {best.params['checkpoint']}, accuracy {best.value:.3f}")
