"""What every test run shares: an order that can be drawn at random, and a short walk for the garbage collector."""

import gc
import itertools
import random

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--shuffle SEED``."""
    parser.addoption(
        "--shuffle", type=int, metavar="SEED", help="draw the order of the modules, and of the tests in each, by SEED"
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
