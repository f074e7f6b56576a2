"""Which checkpoint to fine-tune: `ModelSelector` ranks a catalog's candidates for a task."""

from t2v_hub.selector.auto import AutoSelector
from t2v_hub.selector.expectation import Expectation
from t2v_hub.selector.experience import Experience
from t2v_hub.selector.loading import Loading, checkpoint_of
from t2v_hub.selector.origin import Origin
from t2v_hub.selector.ranked import RankedCandidate
from t2v_hub.selector.ranking import Ranking
from t2v_hub.selector.second_stage import AgainstPrior, Refinement
from t2v_hub.selector.selector import ModelSelector
from t2v_hub.selector.shortlist import shortlist
from t2v_hub.selector.where import Where, condition

__all__ = [
    "AgainstPrior",
    "AutoSelector",
    "Expectation",
    "Experience",
    "Loading",
    "ModelSelector",
    "Origin",
    "RankedCandidate",
    "Ranking",
    "Refinement",
    "Where",
    "checkpoint_of",
    "condition",
    "shortlist",
]
