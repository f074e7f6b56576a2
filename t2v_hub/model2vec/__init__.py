"""`Model2Vec`: distances to candidates, learned from how these did on other tasks; needs no torch."""

from t2v_hub.model2vec.learning import Bias
from t2v_hub.model2vec.model import Model2Vec
from t2v_hub.model2vec.tables import ErrorTable, error_table, fit_catalog

__all__ = ["Bias", "ErrorTable", "Model2Vec", "error_table", "fit_catalog"]
