"""The judge of ways to select a checkpoint: what each costs against the best candidate, noise apart."""

from t2v_hub.judging import rows
from t2v_hub.judging.entries import Entry, Kind
from t2v_hub.judging.evidence import Evidence, GroupBy, LeftOut, evidence_of
from t2v_hub.judging.judgement import benchmark
from t2v_hub.judging.metrics import Figures, Interval, Judge, Policy, Row
from t2v_hub.judging.report import Benchmark, BenchmarkTable
from t2v_hub.judging.truth import GroundTruth, halvings
from t2v_hub.judging.verdict import Answer, Verdict

__all__ = [
    "Answer",
    "Benchmark",
    "BenchmarkTable",
    "Entry",
    "Evidence",
    "Figures",
    "GroundTruth",
    "GroupBy",
    "Interval",
    "Judge",
    "Kind",
    "LeftOut",
    "Policy",
    "Row",
    "Verdict",
    "benchmark",
    "evidence_of",
    "halvings",
    "rows",
]
