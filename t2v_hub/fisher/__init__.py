"""The Fisher information of a network's filters; knows modules and tensors, no files and no data sets."""

from t2v_hub.fisher.layers import FilterLayer, filter_layers
from t2v_hub.fisher.squares import SquaredGradients, frozen

__all__ = ["FilterLayer", "SquaredGradients", "filter_layers", "frozen"]
