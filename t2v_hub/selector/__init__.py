"""Which checkpoint to fine-tune: `ModelSelector` ranks a catalog's candidates for a task."""

from t2v_hub.selector.auto import AutoSelector
from t2v_hub.selector.origin import Origin
from t2v_hub.selector.ranking import RankedCandidate, Ranking
from t2v_hub.selector.selector import ModelSelector
from t2v_hub.selector.where import Where

__all__ = ["AutoSelector", "ModelSelector", "Origin", "RankedCandidate", "Ranking", "Where"]
