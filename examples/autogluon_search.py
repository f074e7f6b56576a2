"""AutoGluon fine-tunes the checkpoints that the ranking puts first, and keeps the best network.

python autogluon_search.py --data AI-Lab-Makerere/beans
"""

import argparse

import pandas as pd
from autogluon.multimodal import MultiModalPredictor
from datasets import Dataset, Image, load_dataset

from t2v_hub import AutoSelector
from t2v_hub_integrations.autogluon import hpo_kwargs

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", required=True, metavar="ID", help="data set with images and labels")
parser.add_argument("--image-column", default="image")
parser.add_argument("--label-column", default="label")
parser.add_argument("--trials", type=int, default=5)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--out", help="folder of the predictor")


def table(data: Dataset, args: argparse.Namespace) -> pd.DataFrame:
    """The files of the images as AutoGluon takes them, and their labels."""
    data = data.cast_column(args.image_column, Image(decode=False))
    images = [bytearray(image["bytes"]) for image in data[args.image_column]]
    return pd.DataFrame({"image": images, "label": data[args.label_column]})


def main(args: argparse.Namespace) -> None:
    """Rank, search, score on the test split."""
    data = load_dataset(args.data)
    selector = AutoSelector.from_task(data["train"])
    print(selector.rank(top_k=5))
    search = hpo_kwargs(selector, n_trials=args.trials, hyperparameters={"optim.max_epochs": args.epochs})
    predictor = MultiModalPredictor(label="label", problem_type="multiclass", path=args.out)
    predictor.fit(table(data["train"], args), **search)
    print(f"best: {predictor._learner._config.model.timm_image.checkpoint_name}")
    print(predictor.evaluate(table(data["test"], args), metrics=["accuracy"]))


if __name__ == "__main__":  # its trials run in other processes
    main(parser.parse_args())
