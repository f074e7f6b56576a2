"""docs/integrations.md: what it shows runs, as a user runs it, with the real libraries."""

import json
import re
from pathlib import Path

from digits_pool import DATA

PAGE = (Path(__file__).parents[1] / "docs" / "integrations.md").read_text(encoding="utf-8")
FEWER = {
    "n_trials=20": "n_trials=2",
    "n_trials=40": "n_trials=2",
    "num_samples=40": "num_samples=2",
    "n=10": "n=2",
}
OURS = """
import json
import os

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def fine_tuned(model, checkpoint, rate):
    return rate


def train(config):
    from ray import tune

    tune.report({"accuracy": config["rate"]})
"""
SAID = """
print(json.dumps({
    "ranked": selector.rank().ranked,
    "best": best.checkpoint,
    "card": found_for_trainer,
    "created": created.checkpoint,
    "names": names,
    "tried": [trial.params["checkpoint"] for trial in study.trials],
    "tuned": [results[i].config["checkpoint"] for i in range(len(results))],
    "embedded": done.embeddings["beans"].task.n_classes,
    "points": search["hyperparameter_tune_kwargs"]["searcher_init_args"]["points_to_evaluate"],
    "first": [one["checkpoint"] for one in first],
    "accuracy": accuracy,
    "rows": list(matrix.shape),
}))
"""


def blocks() -> dict[str, list[str]]:
    """Python blocks by the heading that they stand under."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    sections = {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}
    return {
        name: re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for name, text in sections.items()
    }


def test_all_that_the_page_shows_runs(digits_hub, tmp_path):
    """Each tool's few lines are what people paste; the recipes need tools that are not installed here."""
    sections = blocks()
    assert len(sections.pop("Recipes, without code of ours")) == 5
    shown = [block for found in sections.values() for block in found]
    assert len(shown) == 10
    shown[2] += "found_for_trainer = found.id\n"
    script = "\n".join([OURS, *shown, SAID])
    for old, new in {**FEWER, "AI-Lab-Makerere/beans": DATA, '"labels"': '"label"'}.items():
        assert old in script, old
        script = script.replace(old, new)
    (tmp_path / "page.py").write_text(script, encoding="utf-8")

    done = digits_hub.run(tmp_path / "page.py", [], tmp_path, timeout=600)

    said = json.loads(done.stdout.splitlines()[-1])
    ranked = said["ranked"]
    assert said["best"] in ranked
    assert said["card"] == ranked[0]
    assert said["created"] in ranked
    assert said["names"][0] == f"hf-hub:{said['created']}"
    assert said["names"] == [f"hf-hub:{id}" for id in ranked if f"hf-hub:{id}" in said["names"]] != []
    assert said["tried"][0] == said["tuned"][0] == said["first"][0] == ranked[0]
    assert said["points"][0]["model.timm_image.checkpoint_name"].startswith(f"hf-hub:{said['created']}")
    assert said["embedded"] == 5
    assert 0.2 < said["accuracy"] <= 1
    assert said["rows"] == [2, said["rows"][1]]
    assert (tmp_path / "beans.safetensors").exists()


def test_all_that_the_page_links_to_is_there():
    """A page that is pasted from leads to what it names."""
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", PAGE)

    assert len(links) > 9
    missing = [link for link in links if not (Path(__file__).parents[1] / "docs" / link).exists()]
    assert not missing
