"""The best timm checkpoint for a data set, fine-tuned with its own transforms.

python timm_create_model.py --data AI-Lab-Makerere/beans
"""

import argparse

import torch
from datasets import load_dataset
from torch.utils.data import DataLoader

from t2v_hub_integrations.timm import create_model_for, rank_timm_models

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", required=True, metavar="ID", help="data set with images and labels")
parser.add_argument("--image-column", default="image")
parser.add_argument("--label-column", default="label")
parser.add_argument("--test-split", default="test")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--rate", type=float, default=1e-3)
parser.add_argument("--drop-rate", type=float, default=0.0)
args = parser.parse_args()

train, test = (load_dataset(args.data, split=split) for split in ("train", args.test_split))
created = create_model_for(train, drop_rate=args.drop_rate)
print(created.ranking[:5])
print("names for timm.create_model:", *rank_timm_models(created.ranking, filter="*").ranked[:5])
print(f"created: {created.checkpoint} for {len(created.class_names)} classes")


def batches(data, transform, *, shuffle: bool) -> DataLoader:
    """Inputs and labels."""

    def collate(rows: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
        images = [transform(row[args.image_column].convert("RGB")) for row in rows]
        return torch.stack(images), torch.tensor([created.codes[row[args.label_column]] for row in rows])

    return DataLoader(data, batch_size=32, shuffle=shuffle, collate_fn=collate)


torch.manual_seed(0)
model = created.model
optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate)
for _ in range(args.epochs):
    for inputs, labels in batches(train, created.train_transform, shuffle=True):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimiser.step()

model.eval()
with torch.inference_mode():
    right = [
        model(inputs).argmax(dim=1) == labels
        for inputs, labels in batches(test, created.eval_transform, shuffle=False)
    ]
print(f"accuracy {torch.cat(right).float().mean():.1%} after {args.epochs} epochs")
