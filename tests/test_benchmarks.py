"""The benchmarks' own checks of correctness; nothing here is timed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_benchmark_of_the_engine_measures_what_is_right():
    """Its quick form compares with autograd; a fast wrong answer would win every comparison."""
    command = [sys.executable, str(ROOT / "benchmarks" / "fisher.py"), "--quick"]
    result = subprocess.run(
        [*command, "--networks", "resnet18", "mobilenetv2_100"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr[-2000:]
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["resnet18", "mobilenetv2_100"]
    assert all("0 slow layers" in line for line in lines)
