"""One small finished run of the bundled digits, with snapshots before its end."""

import pytest
import torch

from analysis.runs import RunConfig, load_run, run


@pytest.fixture(scope="package")
def finished(model_cache, tmp_path_factory):
    """The folder of a run of r-c3LA with two links and a snapshot between start and end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finished")
    config = RunConfig(method="r-c3la", rank=2, links=2, seed=0, epochs=0.3, save_adapter=True, save_checkpoints=2)
    made = folder / run(config, folder=folder)["key"]
    torch.set_num_threads(threads)
    return made


@pytest.fixture
def loaded(finished, one_thread):
    """The run, back in memory."""
    return load_run(finished)
