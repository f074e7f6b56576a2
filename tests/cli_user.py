"""What users type, in one process of its own: ``python cli_user.py '[["T2V_HOME", ["enrich", ...]], ...]'``.

Importing torch takes longer than most commands, so they share a process; what became of each is printed as
one line of JSON when it ended.
"""

import json
import sys

from typer.testing import CliRunner

from t2v_hub.cli import app


def main() -> None:
    """Run the commands one after the other, each with its home."""
    for home, arguments in json.loads(sys.argv[1]):
        done = CliRunner().invoke(app, arguments, env={"T2V_HOME": home})
        crash = None if isinstance(done.exception, SystemExit | None) else repr(done.exception)
        said = {"code": done.exit_code, "out": done.stdout, "err": done.stderr, "crash": crash}
        sys.stdout.write(f"{json.dumps(said)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
