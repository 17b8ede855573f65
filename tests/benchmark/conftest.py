"""What tests of the benchmark share."""

import nir
import pytest

from benchmark.networks.nir.reading import nir_network
from tests.benchmark.networks.nir.nir_graphs import CLASSES, SHAPE


@pytest.fixture
def load(tmp_path):
    """Writes a NIR graph, and reads it as a network, its neurons reset to a value where nothing else is said."""

    def load(graph, reset="value", **options):
        path = tmp_path / "graph.nir"
        nir.write(path, graph)
        return nir_network(SHAPE, CLASSES, path=str(path), reset=reset, **options).eval()

    return load
