"""`Model2Vec`: distances to candidates, learned from how these did on other tasks; needs no torch."""

from t2v_hub.model2vec.learning import Bias
from t2v_hub.model2vec.model import Model2Vec

__all__ = ["Bias", "Model2Vec"]
