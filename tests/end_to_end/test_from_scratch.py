"""Methods that train from scratch, in a suite: where they start, how long they train, what their records say."""

import pytest
import torch

from benchmark.questions.build import questions_of
from benchmark.questions.suite import load_suite
from benchmark.runs.dense import dense_network, new_network
from benchmark.runs.opening import OpenedData, Setting
from benchmark.runs.run import answer, silent
from compressors import DST
from tests.end_to_end.conftest import TINY

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(tmp_path, cache, monkeypatch):
    """A dense control and a sparse method, both from scratch for as many epochs as the dense network: one."""
    monkeypatch.setenv("SNNBENCH_CACHE", str(cache))
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("[identity, random, magnitude, obc]", "[identity, dst]"))
    setting = Setting(tmp_path / "cache", track=silent)
    data = OpenedData(setting)
    runs = {run.question.label.partition("] ")[2]: run for run in map(data.run, questions_of(load_suite(path)))}
    return setting, data, runs


def test_the_dense_control_is_trained_as_the_dense_network_was(opened):
    """With as many epochs, it is that network: the same first weights, the same batches, the same steps."""
    setting, data, runs = opened
    assert [*runs] == [
        "identity seed 0",
        "identity from scratch seed 0",
        "dst from scratch density 0.5 seed 0",
        "dst from scratch density 0.2 seed 0",
    ]
    dense, anew = (answer(runs[name], "tiny", data, setting) for name in list(runs)[:2])
    assert anew.metrics == dense.metrics
    assert (dense.division, anew.division) == ("post-training", "trained sparse")
    assert anew.question.condition == "from scratch, 1 epochs"
    assert anew.dense == dense.dense  # what it is compared with
    assert anew.id != dense.id


def test_a_sparse_method_starts_from_the_first_weights_and_leaves_the_dense_network_alone(opened, monkeypatch):
    setting, data, runs = opened
    run, seen = runs["dst from scratch density 0.2 seed 0"], {}

    def begin(self, trainer, module):
        seen.update(weights={name: value.clone() for name, value in module.network.state_dict().items()})
        seen.update(rate=trainer.optimizers[0].param_groups[0]["lr"], epochs=trainer.max_epochs)
        begun(self, trainer, module)

    begun = DST.on_fit_start
    monkeypatch.setattr(DST, "on_fit_start", begin)
    record = answer(run, "tiny", data, setting)
    assert record.error is None
    assert record.compression.density == pytest.approx(0.2, abs=1e-3)
    assert (seen["rate"], seen["epochs"]) == (run.question.training.learning_rate, 1)
    first = new_network(run.question, data.of(run.question)).network.state_dict()
    trained = dense_network(run, data, setting.cache).module.network.state_dict()
    assert all(torch.equal(value, first[name]) for name, value in seen["weights"].items())
    assert not all(torch.equal(value, trained[name]) for name, value in seen["weights"].items())
