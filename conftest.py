"""What every test run shares: no test sees the one before, in any order; a short walk for the garbage collector."""

import gc
import itertools
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

collect_ignore = ["tests/plugin"]  # a package outside: tests/project/test_plugin.py installs it and runs its tests

_READ = ("BEYOND_LORA_CACHE", "HF_HUB_OFFLINE", "PROFILE", "RANK", "TQDM_DISABLE", "WORLD_SIZE")  # what the code reads


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--shuffle SEED`` and ``--pretrained FOLDER``."""
    parser.addoption(
        "--shuffle", type=int, metavar="SEED", help="draw the order of the modules, and of the tests in each, by SEED"
    )
    parser.addoption(
        "--pretrained", metavar="FOLDER", help="a small causal language model, for the tests that need one"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle modules, and tests within their module, so that a module's fixtures are still made once."""
    seed = config.getoption("shuffle")
    if seed is None:
        return
    draw = random.Random(seed)
    modules = [list(group) for _, group in itertools.groupby(items, key=lambda item: item.nodeid.partition("::")[0])]
    draw.shuffle(modules)
    for module in modules:
        draw.shuffle(module)
    items[:] = itertools.chain.from_iterable(modules)


def pytest_collection_finish() -> None:
    """Leave the modules imported so far, half a million objects, to themselves: each Trainer collects garbage."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the seed, with which a failure comes back."""
    seed = config.getoption("shuffle")
    if seed is not None:
        terminalreporter.write_line(f"order drawn by --shuffle {seed}")


def _state() -> dict[str, Any]:
    """What a test may change for itself but must not leave to the next one."""
    found: dict[str, Any] = {"folder": os.getcwd(), **{name: os.environ.get(name) for name in _READ}}
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        found |= {"type": torch.get_default_dtype(), "gradients": torch.is_grad_enabled()}
        found |= {"threads": torch.get_num_threads(), "deterministic": torch.are_deterministic_algorithms_enabled()}
    return found


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Start every test, doctests too, with the same random numbers and no figures; let it leave nothing behind."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (libraries draw from it)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    before = _state()
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    after = _state()
    assert {name: after[name] for name in before} == before, "the test left the process changed"
