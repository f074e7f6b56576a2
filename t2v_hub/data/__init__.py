"""Any labelled image data, as one kind of task to draw images from."""

from t2v_hub.data.images import DECODE_FAILURES, open_image
from t2v_hub.data.loading import load
from t2v_hub.data.task import DecodedSample, ImageTask, Sample

__all__ = ["DECODE_FAILURES", "DecodedSample", "ImageTask", "Sample", "load", "open_image"]
