"""SMAC searches for a checkpoint and a learning rate; it draws what the ranking puts first most often.

python configspace_smac.py --data AI-Lab-Makerere/beans --labels labels
"""

import argparse

import torch
from ConfigSpace import Configuration, ConfigurationSpace, Float
from datasets import load_dataset
from smac import HyperparameterOptimizationFacade, Scenario
from smac.acquisition.function import EI, PriorAcquisitionFunction

from t2v_hub import AutoSelector, ProbeNetwork
from t2v_hub_integrations import Candidates
from t2v_hub_integrations.configspace import failed_checkpoints, initial_configurations, ranked_space

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True, metavar="ID", help="data set with images and labels")
parser.add_argument("--labels", default="label", help="the column of the labels")
parser.add_argument("--trials", type=int, default=20)
parser.add_argument("--epochs", type=int, default=5)
args = parser.parse_args()
data = load_dataset(args.data, split="train").train_test_split(0.3, seed=0, stratify_by_column=args.labels)
candidates = Candidates.of(AutoSelector.from_task(data["train"]), top_k=20)


def error(config: Configuration, seed: int = 0) -> float:
    """Share of held-out images that the fine-tuned checkpoint misses."""
    torch.manual_seed(seed)
    network = candidates.load(config["checkpoint"], data["train"])
    recipe = ProbeNetwork.load(config["checkpoint"]).preprocessing
    optimiser = torch.optim.AdamW(network.parameters(), lr=config["rate"])
    for epoch in range(args.epochs + 1):  # the last one only measures
        wrong, part = 0, data["train" if epoch < args.epochs else "test"]
        network.train(epoch < args.epochs)
        for rows in part.shuffle(seed=epoch).iter(32):
            pixels = torch.stack([torch.from_numpy(recipe.prepare(image)) for image in rows["image"]])
            output, labels = network(recipe.normalise(pixels)), torch.tensor(rows[args.labels])
            logits = getattr(output, "logits", output)  # transformers returns an object, timm a tensor
            wrong += int((logits.argmax(dim=1) != labels).sum())
            if network.training:
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(logits, labels).backward()
                optimiser.step()
    return wrong / len(part)


others = ConfigurationSpace(space=[Float("rate", (1e-4, 1e-2), log=True)])
space = ranked_space(candidates, others, top_k=None)
scenario = Scenario(space, n_trials=args.trials, deterministic=True, crash_cost=1.0)
first = initial_configurations(space, candidates, n=min(len(candidates), args.trials // 2))
design = HyperparameterOptimizationFacade.get_initial_design(scenario, n_configs=0, additional_configs=first)
weighted = PriorAcquisitionFunction(EI(), decay_beta=args.trials / 10)
smac = HyperparameterOptimizationFacade(scenario, error, initial_design=design, acquisition_function=weighted)
best = smac.optimize()
print(f"best: {best['checkpoint']} at rate {best['rate']:.1e}, error {smac.runhistory.get_cost(best):.1%}")
for id, why in failed_checkpoints(smac.runhistory).items():
    print(f"never loaded: {id}: {why}")
