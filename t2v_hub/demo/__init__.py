"""The whole way on real images, without any network: train, embed, rank, share, fine-tune, compare."""

from t2v_hub.demo.report import DemoReport
from t2v_hub.demo.story import run

__all__ = ["DemoReport", "run"]
