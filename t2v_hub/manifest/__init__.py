"""Many tasks from one table: `Manifest`, `Shard` and `embed_manifest`, for clusters that share a folder."""

from t2v_hub.manifest.failures import Failure
from t2v_hub.manifest.manifest import Manifest, ManifestRow, load_manifest
from t2v_hub.manifest.run import ManifestReport, RowOutcome, embed_manifest
from t2v_hub.manifest.shard import Shard
from t2v_hub.manifest.status import ManifestStatus, manifest_status

__all__ = [
    "Failure",
    "Manifest",
    "ManifestReport",
    "ManifestRow",
    "ManifestStatus",
    "RowOutcome",
    "Shard",
    "embed_manifest",
    "load_manifest",
    "manifest_status",
]
