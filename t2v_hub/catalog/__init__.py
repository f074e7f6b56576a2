"""Candidates on disk: `Candidate`, a checkpoint with its facts, and `Catalog`, a folder of them."""

from t2v_hub.catalog.candidate import Candidate, Library
from t2v_hub.catalog.catalog import Catalog
from t2v_hub.catalog.matrix import Matrices, Matrix
from t2v_hub.catalog.state import SyncReport

__all__ = ["Candidate", "Catalog", "Library", "Matrices", "Matrix", "SyncReport"]
