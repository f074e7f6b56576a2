"""One search, in a process that does nothing else: times and memory are the client's alone.

``search.py`` starts it: ``client.py ACTION FOLDER ENDPOINT TARGET``; it prints one line of JSON.

* cold: from an empty folder to a ranking.
* sync: the cards on the Hub are read again, where they changed.
* warm: from the folder to a ranking, without the Hub.
"""

import time

START = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from t2v_hub import Catalog, ModelSelector  # noqa: E402
from t2v_hub.embedding import TaskEmbedding  # noqa: E402

IMPORTED = time.perf_counter()


class Stopwatch:
    """Seconds by what they went into: functions of the package, wrapped."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.n_bytes = 0

    def watch(self, place: Any, name: str, label: str) -> None:
        """Count what a function takes."""
        function = getattr(place, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.perf_counter() - start
                self.seconds[label] = self.seconds.get(label, 0.0) + spent

        setattr(place, name, timed)

    def watch_sync(self) -> None:
        """Count waiting, parsing, reading and writing of a sync."""
        from t2v_hub.catalog import catalog, reading
        from t2v_hub.hub import connection

        read: Any = connection.Connection._read

        def counted(*arguments: Any) -> connection.Answer:
            answer: connection.Answer = read(*arguments)
            self.n_bytes += len(answer.content or b"")
            return answer

        setattr(connection.Connection, "_read", counted)  # noqa: B010  # mypy would not let a method be replaced
        self.watch(connection.Connection, "get", "server and transfer")
        self.watch(json, "loads", "JSON")
        self.watch(reading, "read_entries", "entries")
        self.watch(reading, "write_pack", "packs")
        self.watch(catalog, "write_index", "index")


def main() -> None:
    action, folder, endpoint, target_path = sys.argv[1:]
    target = TaskEmbedding.load(target_path)
    watch = Stopwatch()
    if action == "cold-plain":  # nothing wrapped
        action = "cold"
    elif action != "warm":
        import huggingface_hub

        _ = huggingface_hub.HfApi  # loaded when it is first asked for; its own row
        watch.watch_sync()
    loaded, cpu = time.perf_counter(), time.process_time()
    result: dict[str, Any] = {}
    if action == "cold":
        catalog = Catalog.from_hub(folder, endpoint=endpoint, token=False)
    else:
        catalog = Catalog(folder)
    if action == "sync":
        report = catalog.sync(endpoint=endpoint, token=False)
        result |= {"n_read": report.n_read, "skipped": list(report.skipped)}
    synced = time.perf_counter()
    if action != "sync":
        ranking = ModelSelector(catalog).rank(target, top_k=10)
        result["ranked"] = list(ranking.ranked)
        result["skipped"] = list(ranking.skipped)
    done, cpu = time.perf_counter(), time.process_time() - cpu
    from serving import peak_memory

    [report] = catalog.synced()
    result |= {
        "n_requests": report.n_requests,
        "n_bytes": watch.n_bytes,
        "n_listed": report.n_listed,
        "import_s": IMPORTED - START,
        "catalog_s": synced - loaded,
        "ranking_s": done - synced,
        "whole_s": done - loaded,
        "cpu_s": cpu,
        "parts": watch.seconds,
        "peak": peak_memory(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
