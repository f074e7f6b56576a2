"""Frozen backbones to measure with, and checkpoints to fine-tune.

The only room that knows timm and transformers.
"""

from t2v_hub.probe.loading import load_checkpoint
from t2v_hub.probe.network import DEFAULT_PROBE, ProbeNetwork
from t2v_hub.probe.preprocessing import Preprocessing

__all__ = ["DEFAULT_PROBE", "Preprocessing", "ProbeNetwork", "load_checkpoint"]
