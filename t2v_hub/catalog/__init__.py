"""Candidates on disk: `Candidate`, a checkpoint with its facts, and `Catalog`, a folder of them."""

from t2v_hub.catalog.candidate import Candidate, Library
from t2v_hub.catalog.catalog import Catalog
from t2v_hub.catalog.matrix import Matrix

__all__ = ["Candidate", "Catalog", "Library", "Matrix"]
