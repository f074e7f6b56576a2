"""Embed many data sets on the workers of a Ray cluster, or of this machine.

    python examples/ray_embed_many.py --data AI-Lab-Makerere/beans uoft-cs/cifar10

On a cluster (``RAY_ADDRESS``) let T2V_HOME be a folder that all machines share: where a worker dies, another
goes on, and nothing is measured twice. Started again, the script goes on where it stopped.
"""

import argparse
from pathlib import Path

from t2v_hub import Task2Vec, pairwise
from t2v_hub_integrations.ray import RayExecutor

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True, nargs="+", metavar="ID", help="data sets, or their paths")
parser.add_argument("--split", default="train")
parser.add_argument("--images", type=int, default=1000, help="measured of each data set, at most")
parser.add_argument("--cpus", type=float, default=1, help="processors for each data set")
parser.add_argument("--gpus", type=float, default=0, help="accelerators for each data set")
parser.add_argument("--out", type=Path, default=Path("embeddings"))
args = parser.parse_args()

done = Task2Vec(max_samples=args.images).embed_many(
    {id: id for id in args.data},
    executor=RayExecutor(num_cpus=args.cpus, num_gpus=args.gpus),
    split=args.split,
)
for id, embedding in done.embeddings.items():
    path = embedding.save(args.out / f"{id.replace('/', '--')}.safetensors")
    print(f"{id}: {embedding.task.n_classes} classes, standard error {embedding.standard_error:.1%}, {path}")
for id, error in done.failures.items():
    print(f"Failed: {id}: {error}")
distances = pairwise(list(done.embeddings.values()))
for id, row in zip(done.embeddings, distances, strict=True):
    print(f"{id}:", *(f"{distance:.3f}" for distance in row))
