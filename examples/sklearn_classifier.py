"""A classifier that chooses its checkpoint, beside the same head on raw pixels and on other candidates.

python sklearn_classifier.py --data AI-Lab-Makerere/beans
"""

import argparse
import random

import numpy as np
from datasets import load_dataset
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from t2v_hub_integrations.sklearn import CheckpointClassifier

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", required=True, metavar="ID", help="data set with images and labels")
parser.add_argument("--image-column", default="image")
parser.add_argument("--label-column", default="label")
parser.add_argument("--test-split", default="test")
parser.add_argument("--refine", type=int, default=0, help="candidates to load and compare on the images")
parser.add_argument("--others", type=int, default=3, help="candidates drawn at random, for comparison")
args = parser.parse_args()

train, test = (load_dataset(args.data, split=split) for split in ("train", args.test_split))
X, X_test = (list(split[args.image_column]) for split in (train, test))
y, y_test = (np.array(split[args.label_column]) for split in (train, test))

chosen = CheckpointClassifier(refine=args.refine).fit(X, y)
print(chosen.ranking_[:5])
print(f"chosen: {chosen.checkpoint_}, accuracy {chosen.score(X_test, y_test):.1%}")

ranked = chosen.ranking_.ranked
drawn = random.Random(0).sample(ranked, min(args.others, len(ranked)))
scores = [CheckpointClassifier(checkpoint=id).fit(X, y).score(X_test, y_test) for id in drawn]
for id, score in zip(drawn, scores, strict=True):
    print(f"random: {id}, accuracy {score:.1%}")
print(f"random, on average: accuracy {np.mean(scores):.1%}")


def pixels(images: list) -> np.ndarray:
    """One row per image."""
    return np.stack([np.asarray(image.convert("RGB").resize((32, 32))).ravel() / 255 for image in images])


head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
print(f"raw pixels: accuracy {head.fit(pixels(X), y).score(pixels(X_test), y_test):.1%}")
