import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).with_name("worker_distributed.py")
spec = importlib.util.spec_from_file_location("worker_distributed", PATH)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """Run all cases in two processes, started once."""
    file = tmp_path_factory.mktemp("distributed") / "losses.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, PATH, file], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(file.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("run", worker.RUNS)
def test_two_processes_have_the_losses_of_one(distributed, run):
    want = worker.losses("one", worker.RUNS[run][1], 0, 1)
    assert want[-1] != want[0]
    # fp32: the gradient is the mean of two half batches instead of one sum, over six Adam steps.
    assert distributed[run] == pytest.approx(want, rel=2e-5)


@pytest.mark.slow
def test_a_distributed_trainer_moves_its_chain_as_one_process_does(distributed):
    assert distributed["trainer"] == pytest.approx(worker.trainer_losses(1), rel=2e-5)
