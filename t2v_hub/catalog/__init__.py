"""`Candidate`, a checkpoint with its facts; `Result`, how one did on a task; `Catalog`, a folder of both."""

from t2v_hub.catalog.candidate import Candidate, Library
from t2v_hub.catalog.catalog import Catalog
from t2v_hub.catalog.matrix import Matrices, Matrix
from t2v_hub.catalog.merging import MergeConflict, MergeReport, merge_catalogs
from t2v_hub.catalog.results import Result, ResultOrigin
from t2v_hub.catalog.state import SyncReport
from t2v_hub.catalog.tables import ResultTable, load_results

__all__ = [
    "Candidate",
    "Catalog",
    "Library",
    "Matrices",
    "Matrix",
    "MergeConflict",
    "MergeReport",
    "Result",
    "ResultOrigin",
    "ResultTable",
    "SyncReport",
    "load_results",
    "merge_catalogs",
]
