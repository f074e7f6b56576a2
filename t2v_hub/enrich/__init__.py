"""Bulk enrichment: embeddings of what other people's checkpoints were trained on."""

from t2v_hub.enrich.report import CardOutcome, DataSetOutcome, EnrichReport
from t2v_hub.enrich.run import enrich

__all__ = ["CardOutcome", "DataSetOutcome", "EnrichReport", "enrich"]
