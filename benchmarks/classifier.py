"""`CheckpointClassifier` beside the same head on raw pixels: ``python -m benchmarks.classifier``.

On the tests' drawn digits, with a choice among six hardly trained experts; and, where ``T2V_KIT`` names the
folder of real weights and images, on digits in sign language with single real checkpoints.
"""

import io
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from t2v_hub.demo.digits import TARGETS, Digits

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "tests"), str(ROOT / "integrations")]

from digits_pool import make_pool  # noqa: E402

from t2v_hub_integrations.sklearn import CheckpointClassifier  # noqa: E402

REAL = ("mobilenetv2_035.tm_in1k", "resnet18.pqf_in1k", "mobilenetv2_100.coral_inat_bird")


def pixels(images):
    return np.stack([np.asarray(image.convert("RGB").resize((32, 32))).ravel() / 255 for image in images])


def of_pixels(train, test):
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return head.fit(pixels(train[0]), train[1]).score(pixels(test[0]), test[1])


def drawn(folder, *, seed=0):
    pool = make_pool(folder)
    print("task, chosen, chosen with refine=3, mean of all, best of all, raw pixels")
    rows = []
    for target in TARGETS:
        sets = [Digits(seed).dataset(target, part) for part in ("train", "test")]
        train, test = ((list(some["image"]), np.array(some["label"])) for some in sets)
        choosing = [CheckpointClassifier(pool.catalog, probe=pool.probe, refine=k) for k in (0, 3)]
        each = [
            CheckpointClassifier(checkpoint=path).fit(*train).score(*test) for path in pool.experts.values()
        ]
        scores = [classifier.fit(*train).score(*test) for classifier in choosing]
        rows.append([*scores, np.mean(each), max(each), of_pixels(train, test)])
        print(target.name, *(f"{value:.1%}" for value in rows[-1]))
    print("mean", *(f"{value:.1%}" for value in np.mean(rows, axis=0)))


def real(kit, *, n=150):
    table = pyarrow.parquet.read_table(kit / "data" / "sign_digits" / "digits_0_4.parquet").to_pylist()
    generator = np.random.default_rng(0)
    parts = []
    for split in ("train", "test"):
        some = [row for row in table if row["split"] == split]
        some = [some[place] for place in generator.permutation(len(some))[:n]]
        images = [PIL.Image.open(io.BytesIO(row["image"]["bytes"])) for row in some]
        parts.append((images, np.array([row["label"] for row in some])))
    print(f"sign digits 0-4, {n} to fit on, {n} to test: raw pixels {of_pixels(*parts):.1%}")
    for name in REAL:
        classifier = CheckpointClassifier(checkpoint=kit / "weights" / f"{name}.safetensors").fit(*parts[0])
        print(f"{name} {classifier.score(*parts[1]):.1%}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["T2V_HOME"] = str(Path(folder) / "home")
        if "T2V_KIT" in os.environ:
            real(Path(os.environ["T2V_KIT"]))
        drawn(Path(folder) / "pool")
