"""The benchmarks' own checks of correctness; nothing here is timed."""

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            "search",
            ["| empty folder to ranking | 1 |", "| sync, 10 changed | 11 |", "| folder to ranking | 0 |"],
        ),
        ("race", ["| 4 threads | 2 | 8 | 8 |", "| 4 processes | 2 | 8 | 8 |"]),
        ("kill", ["| 0 | 3 |"]),
        ("fuzz", [": 0 crashes or hangs, 0 failures"]),
    ],
)
def test_the_benchmarks_of_the_hub_find_nothing_wrong(part, words):
    """Their quick forms check rankings, races, kills and hostile cards against a loopback Hub."""
    command = [sys.executable, str(ROOT / "benchmarks" / "hub"), part, "--quick"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    for text in words:
        assert text in result.stdout


def test_the_benchmark_of_ranking_ranks_rightly():
    """It compares what it times with plain NumPy, and drops the file from the cache."""
    sizes = ["--rows", "300", "--filters", "256", "--tasks", "12", "--sample", "20", "--repeats", "1"]
    command = [sys.executable, str(ROOT / "benchmarks" / "ranking.py"), *sizes]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    rows = [line.split("|")[1].strip() for line in result.stdout.splitlines() if line.startswith("| ")]
    assert {"read, cold", "symmetric, cold", "asymmetric, warm", "loop, symmetric (scaled)"} <= set(rows)
    assert {"relative, cold", "relative again, cold", "asymmetric again, warm"} <= set(rows)
    assert rows[-3:] == ["symmetric", "asymmetric", "relative"]
