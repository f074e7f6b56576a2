"""Search for a checkpoint and a learning rate with Ray Tune, checkpoints in ranked order first.

python examples/ray_tune_search.py --data AI-Lab-Makerere/beans --labels labels --trials 40
"""

import argparse

import torch
from datasets import DatasetDict, load_dataset
from ray import tune

from t2v_hub import AutoSelector, ProbeNetwork
from t2v_hub_integrations import Candidates
from t2v_hub_integrations.ray import failures, ranked_search_alg, ranked_space

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--labels", default="label", help="the column of the labels")
parser.add_argument("--trials", type=int, default=40)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--backend", choices=["random", "optuna"], default="random")
args = parser.parse_args()

parts = load_dataset(args.data, split="train").train_test_split(0.3, seed=0, stratify_by_column=args.labels)
candidates = Candidates.of(AutoSelector.from_task(parts["train"]).rank(top_k=20))


def train(config: dict, candidates: Candidates, parts: DatasetDict) -> None:
    """Report the accuracy on held-out images after each epoch of fine-tuning."""
    model = candidates.load(config["checkpoint"], parts["train"])  # one that does not load ends the trial
    optimiser = torch.optim.AdamW(model.parameters(), lr=config["rate"])
    prepare = ProbeNetwork.load(config["checkpoint"]).preprocessing
    for step in range(2 * args.epochs):  # train, test, train, test, ...
        right, part = 0, parts["test" if step % 2 else "train"]
        model.train(step % 2 == 0)
        for batch in part.shuffle(seed=step).iter(16):
            pixels = torch.stack([torch.from_numpy(prepare.prepare(image)) for image in batch["image"]])
            output, labels = model(prepare.normalise(pixels)), torch.tensor(batch[args.labels])
            logits = getattr(output, "logits", output)  # transformers returns an object, timm a tensor
            right += int((logits.argmax(dim=1) == labels).sum())
            if model.training:
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(logits, labels).backward()
                optimiser.step()
        if not model.training:
            tune.report({"accuracy": right / len(part)})


search = ranked_search_alg(candidates, n_trials=args.trials, backend=args.backend, seed=0)
results = tune.Tuner(
    tune.with_parameters(train, candidates=candidates, parts=parts),
    param_space={**ranked_space(candidates), "rate": tune.loguniform(1e-5, 1e-2)},
    tune_config=tune.TuneConfig(metric="accuracy", mode="max", num_samples=args.trials, search_alg=search),
).fit()
for checkpoint, reason in failures(results).items():
    print(f"Failed: {checkpoint}: {reason}")
best = results.get_best_result()
print(f"Best of {len(results)}: {best.config['checkpoint']}, accuracy {best.metrics['accuracy']:.3f}")
