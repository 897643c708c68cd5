import pytest
from dora_plugin.measure import WIDE_RISE

from analysis.measures.testing import MeasureChecks
from analysis.runs import RunConfig, load_run, run
from analysis.tasks import DataOptions


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    few = DataOptions(num_train=40, num_heldout=40)
    config = RunConfig(method="dora", rank=2, epochs=0.2, options=few, save_adapter=True)
    run(config, folder=folder)
    return load_run(folder / config.key())


class TestRise(MeasureChecks):
    @pytest.fixture(autouse=True)
    def _finished(self, finished):
        self.finished = finished

    def measure(self):
        return WIDE_RISE

    def run(self):
        return self.finished
