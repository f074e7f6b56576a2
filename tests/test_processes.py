"""Several processes: they share the work, and the vector is to the bit that of one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from t2v_hub.blocks import BlockStore
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import DataError
from t2v_hub.processes import Processes
from t2v_hub.task2vec import Task2Vec
from t2v_hub.testing import tiny_probe, tiny_task


def start(
    count: int, out: Path, cache: Path, tolerance: float | None = None, killed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Several processes of one thread, of which the second may be killed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command += [
        str(Path(__file__).with_name("sharing.py")),
        str(out),
        str(cache),
        str(tolerance or ""),
        killed,
    ]
    root = Path(__file__).parents[1]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def run_together(count: int, out: Path, cache: Path, tolerance: float | None = None) -> list[TaskEmbedding]:
    """What each of ``count`` processes gets."""
    result = start(count, out, cache, tolerance)
    assert result.returncode == 0, result.stderr[-12000:]
    return [TaskEmbedding.load(out / f"{index}-of-{count}.safetensors") for index in range(count)]


def one_process(cache: Path, **settings: object) -> TaskEmbedding:
    return Task2Vec(tiny_probe(), cache=cache, progress=False, **settings).embed(tiny_task(150))  # type: ignore[arg-type]


def test_two_processes_give_the_bits_of_one(tmp_path, monkeypatch):
    """Also where two go on with what one left behind."""
    put = BlockStore.put

    def stopping(self: BlockStore, index: int, sums: np.ndarray) -> None:
        put(self, index, sums)
        if index == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(BlockStore, "put", stopping)
        with pytest.raises(KeyboardInterrupt):
            one_process(tmp_path / "shared")
    assert len(list((tmp_path / "shared").glob("*/block-*"))) == 5

    together = run_together(2, tmp_path, tmp_path / "shared")

    alone = one_process(tmp_path / "alone")
    for embedding in together:
        assert embedding == alone
        assert embedding.deviations is not None
        np.testing.assert_array_equal(embedding.deviations, alone.deviations)
    # So do small tasks in one call.
    small = {str(n): tiny_task(n, seed=n) for n in (3, 4, 5)}
    done = Task2Vec(tiny_probe(), cache=False, progress=False).embed_many(small)
    for name, one in done.embeddings.items():
        for index in range(2):
            assert TaskEmbedding.load(tmp_path / f"small-{name}-{index}-of-2.safetensors") == one
    # What one process runs into, all are told.
    assert [(tmp_path / f"{index}.txt").read_text() for index in range(2)] == ["only here"] * 2
    # One file for each, and no blocks left over.
    assert [path.suffix for path in (tmp_path / "shared").iterdir()] == [".safetensors"] * 4


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_a_process_that_is_killed_costs_one_block_and_no_bit(moment, tmp_path):
    """A kill -9 leaves no time to tidy up; what was finished serves any number of processes."""
    killed = start(2, tmp_path, tmp_path / "shared", killed=moment)

    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr or "exitcode: -9" in killed.stderr or "exitcode  : -9" in killed.stderr
    left = {path.name for path in (tmp_path / "shared").glob("*/block-*")}
    assert len(left) >= (3 if moment == "after" else 2)
    alone = one_process(tmp_path / "alone")
    if moment == "after":
        resumed = [one_process(tmp_path / "shared")]
    else:
        resumed = run_together(2, tmp_path, tmp_path / "shared")
    assert all(embedding == alone for embedding in resumed)


def test_three_processes_stop_where_one_stops(tmp_path):
    alone = one_process(tmp_path / "alone", tolerance=0.2)
    assert alone.measurement.n_samples < 450

    for embedding in run_together(3, tmp_path, tmp_path / "shared", tolerance=0.2):
        assert embedding == alone


def test_one_process_does_its_work_itself():
    processes = Processes()

    assert (processes.index, processes.count, processes.is_main) == (0, 1, True)
    assert processes.share(lambda: 5) == [5]
    with pytest.raises(DataError, match="broken"):
        processes.share(lambda: (_ for _ in ()).throw(DataError("broken")))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_work_is_shared_by_what_it_costs(count):
    """Every piece falls to one process, and none has more to do than the others and one piece."""
    costs = [32.0, 92, 32, 32, 92, 32, 32, 92, 16]
    shares = []
    for index in range(count):
        processes = Processes()
        processes.index, processes.count = index, count
        shares.append(processes._own(range(len(costs)), costs.__getitem__))

    assert sorted(place for share in shares for place in share) == list(range(len(costs)))
    assert all(share == sorted(share) for share in shares)
    loads = [sum(costs[place] for place in share) for share in shares]
    assert max(loads) - min(loads) <= 32
