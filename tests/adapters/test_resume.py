import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("worker_chain.py")
# Where a killed run resumes: the newest complete checkpoint.
RESUMES = {
    "inside_a_link": "checkpoint-4",
    "after_moving_before_saving": "checkpoint-2",
    "between_links": "checkpoint-4",
    "in_the_middle_of_saving": "checkpoint-4",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run the worker once: every method uninterrupted, then killed at each moment and resumed."""
    folder = tmp_path_factory.mktemp("chains")
    done = subprocess.run(
        [sys.executable, WORKER, folder], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("moment", RESUMES)
@pytest.mark.parametrize("method", ["c3la", "r-c3la", "cola", "rac"])
def test_a_killed_chain_resumes_to_bit_identical_weights(runs, method, moment):
    want, got = (load_file(runs / method / f"{name}.safetensors") for name in ("uninterrupted", moment))
    assert (runs / method / f"{moment}.txt").read_text() == RESUMES[moment]
    assert want.keys() == got.keys()
    assert all(torch.equal(want[key], got[key]) for key in want)
