"""Does what stands on the Hub hold: speed, races, kill -9, hostile cards, and what float16 costs?

All parts but the last talk to a loopback Hub in another process.

    python benchmarks/hub search --cards 1000          # what a searcher waits for
    python benchmarks/hub search --cards 20000
    python benchmarks/hub race --writers 20 --rounds 50    # many writers of one card
    python benchmarks/hub kill --moments 20            # enrichment, killed again and again
    python benchmarks/hub fuzz --seconds 60            # hostile cards and listings
    python benchmarks/hub precision --kit ../shared/kit    # float16 against full precision, real embeddings

``--quick`` is a small form that checks and times nothing to be quoted. Tables go to standard output, and as
JSON to ``--out``.
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

PARTS = ("search", "race", "kill", "fuzz", "precision")


def main() -> int:
    # Before any import of the client: nothing here asks the Hub itself.
    os.environ.update(HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")
    parser = argparse.ArgumentParser(
        prog="hub", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="part", required=True)
    asked = next((name for name in sys.argv[1:] if name in PARTS), None)
    for name in PARTS:
        command = commands.add_parser(name)
        command.add_argument("--quick", action="store_true", help="small, for correctness")
        command.add_argument("--out", type=Path, default=None, help="JSON file")
        if name == asked:  # the others' imports are not needed
            importlib.import_module(name).add_arguments(command)
    options = parser.parse_args()
    result = importlib.import_module(options.part).main(options)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        settings = {key: str(value) for key, value in vars(options).items()}
        options.out.write_text(json.dumps({"settings": settings, **result}, indent=1))
    return 1 if result.get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
