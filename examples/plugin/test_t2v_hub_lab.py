"""What t2v_hub expects of a plug-in, checked: ``pytest`` in this folder."""

from safetensors.torch import save_file
from t2v_hub_lab import CENTROID_ACCURACY, load_probe, open_catalog
from torch import nn

from t2v_hub import Task2Vec
from t2v_hub.testing import check_catalog, check_probe, check_score, tiny_probe, tiny_task


def test_score():
    """It ranks as the library's own do."""
    check_score(CENTROID_ACCURACY)


def test_probe(tmp_path):
    """It measures the same each time."""
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    save_file(network.state_dict(), tmp_path / "weights.safetensors")

    check_probe(load_probe, str(tmp_path / "weights.safetensors"))


def test_catalog(tmp_path):
    """It ranks the same each time."""
    Task2Vec(tiny_probe(), cache=False).embed(tiny_task()).save(tmp_path / "colours.safetensors")
    rows = ["id,parameters,embedding", "lab/a,1000,colours.safetensors", "lab/b,2000,"]
    (tmp_path / "checkpoints.csv").write_text("\n".join(rows))

    check_catalog(open_catalog, str(tmp_path / "checkpoints.csv"))
