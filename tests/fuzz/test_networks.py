"""Every reader of networks gives a value or CheckpointError for any bytes."""

import nir
import numpy as np

from benchmark.networks.errors import CheckpointError
from benchmark.networks.nir.content import read_content
from tests.fuzz.mutations import fuzz


def small_graph():
    nodes = {
        "input": nir.Input(np.array([1, 4, 4])),
        "0": nir.Conv2d((4, 4), np.ones((2, 1, 3, 3), np.float32), 1, 1, 1, 1, np.ones(2, np.float32)),
        "1": nir.IF(np.ones((2, 4, 4)), np.ones((2, 4, 4)), metadata={"reset": "subtract"}),
        "output": nir.Output(np.array([2, 4, 4])),
    }
    edges = [("input", "0"), ("0", "1"), ("1", "output")]
    return nir.NIRGraph(nodes, edges, {"timestep": 1.0}, type_check=False)


def test_any_bytes_are_a_nir_graph_or_an_error(tmp_path):
    nir.write(tmp_path / "valid", small_graph())
    fuzz(read_content, CheckpointError, tmp_path / "graph.nir", (tmp_path / "valid").read_bytes())
