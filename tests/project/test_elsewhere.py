"""The imitated processors are imitated, and a check that fails on one fails the command."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import elsewhere
import pytest

_SEEN = """
import json, math
import numpy, torch
from numpy._core import _multiarray_umath as core
torch.manual_seed(0)
numbers = torch.randn(1000)
print(json.dumps({
    "torch": torch.backends.cpu.get_cpu_capability(),
    "numpy": [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]],
    "threads": torch.get_num_threads(),
    "numbers": numbers.double().sum().item(),
}))
"""


def _seen(processor):
    environment = os.environ | elsewhere.processors()[processor]
    done = subprocess.run([sys.executable, "-c", _SEEN], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="imitates older x86-64 processors")
def test_the_libraries_use_what_the_imitated_processor_has():
    old, two = _seen("old"), _seen("threads")
    assert (old["torch"], old["numpy"]) == ("DEFAULT", [])
    assert two["threads"] == 2
    if two["torch"] == "AVX2":  # why heads and factors are not drawn by torch
        assert old["numbers"] != two["numbers"]


def test_every_axis_is_part_of_the_old_processor_or_of_the_threads():
    axes = elsewhere.processors()
    assert axes["here"] == {}
    assert axes["torch"] | axes["onednn"] | axes["arrays"] == axes["old"]
    assert all(axes[name] for name in ("torch", "arrays", "threads"))


def test_the_marked_files_hold_every_marked_test():
    names = {Path(name).relative_to("tests").as_posix() for name in elsewhere.marked()}
    assert names >= {
        "analysis/certificates/test_committed.py",
        "analysis/studies/test_export.py",
        "analysis/tasks/test_digits.py",
        "theory/test_draws.py",
    }


@pytest.mark.parametrize(
    ("lines", "passed"),
    [
        ("1 failed, 3 passed in 2.1s", False),
        ("3 passed, 1 warning in 2.1s", True),
        ("no tests ran in 0.1s", False),
        ("3 passed, 2000 deselected in 62.10s (0:01:02)", True),
    ],
)
def test_a_run_passes_only_if_tests_ran_and_none_failed(monkeypatch, capsys, lines, passed):
    status = 0 if "failed" not in lines and "no tests" not in lines else 1
    monkeypatch.setattr(
        elsewhere.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], status, stdout=f"..\n{lines}\n")
    )
    assert elsewhere.main(["--processors", "threads", "--checks", "committed"]) == (0 if passed else 1)
    printed = capsys.readouterr().out
    assert ("ok  " if passed else "FAIL") in printed
    assert ("committed on threads" in printed) != passed
