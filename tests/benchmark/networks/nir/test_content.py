"""NIR files of strangers: what is not in the file itself, declares too much or has no sense is refused by name."""

import resource

import h5py
import nir
import numpy as np
import pytest

from benchmark.networks.nir.content import NIRError, read_content
from tests.benchmark.networks.nir.nir_graphs import CLASSES, full, neuron_graph

NODE = nir.IF(r=full(1.0), v_threshold=full(1.5), metadata={"reset": "value"})


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "graph.nir"
    nir.write(path, neuron_graph(NODE))
    return path


def external_link(file):
    del file["node/nodes/2/weight"]
    file["node/nodes/2/weight"] = h5py.ExternalLink("other.nir", "/node/nodes/2/weight")


def soft_link(file):
    del file["node/nodes/2/weight"]
    file["node/nodes/2/weight"] = h5py.SoftLink("/node/nodes/2/weight")


def hard_loop(file):
    file["node/nodes/2/again"] = file["node"]


def external_data(file):
    del file["node/nodes/2/weight"]
    file["node/nodes/2"].create_dataset("weight", (CLASSES, 72), "f4", external=[("/etc/passwd", 0, 864)])


def virtual_data(file):
    del file["node/nodes/2/weight"]
    layout = h5py.VirtualLayout((CLASSES, 72), "f4")
    layout[:] = h5py.VirtualSource("other.nir", "weight", (CLASSES, 72))
    file["node/nodes/2"].create_virtual_dataset("weight", layout)


def nothing_in_much(file):
    del file["node/nodes/2/weight"]
    file["node/nodes/2"].create_dataset("weight", (2**15, 2**15), "f4", compression="gzip")


def many_small(file):
    for number in range(100):
        file["node/nodes/2"].create_dataset(f"part {number}", (2**20,), "f4", chunks=(1024,))


def wide_chunk(file):
    del file["node/nodes/2/weight"]
    file["node/nodes/2"].create_dataset("weight", (CLASSES, 72), "f4", chunks=(2**15, 2**14), maxshape=(None, None))


def compound(file):
    del file["node/nodes/2/weight"]
    file["node/nodes/2/weight"] = np.zeros(3, [("a", "f4"), ("b", "f4")])


def variable(file):
    del file["node/nodes/2/weight"]
    file["node/nodes/2"].create_dataset("weight", (3,), h5py.vlen_dtype(np.float32))


def unknown_filter(file):
    del file["node/nodes/2/weight"]
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((CLASSES, 72))
    settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((CLASSES, 72))
    h5py.h5d.create(file["node/nodes/2"].id, b"weight", h5py.h5t.NATIVE_FLOAT, space, settings)


def deep(file):
    group = file["node/nodes"]
    for _ in range(100):
        group = group.create_group("nodes")
    group["type"] = "NIRGraph"


def replaced(name, value):
    def change(file):
        del file[name]
        if value is not None:
            file[name] = value

    return change


EDGES = np.array([["input", "1"], ["1", "2"], ["2", "lost"]], dtype=h5py.string_dtype())
CHANGES = {
    external_link: "'/node/nodes/2/weight' is a link to elsewhere .ExternalLink.",
    soft_link: "'/node/nodes/2/weight' is a link to elsewhere .SoftLink.",
    hard_loop: "'/node/nodes/2/again' is no group of its own",
    external_data: "the content of '/node/nodes/2/weight' is in another file",
    virtual_data: "the content of '/node/nodes/2/weight' is in another file",
    nothing_in_much: "it declares 4,294,.* bytes of arrays",
    many_small: "it declares 419,.* bytes of arrays",
    wide_chunk: "it declares 2,147,.* bytes of arrays",
    compound: "'/node/nodes/2/weight' holds .* instead of numbers or text",
    variable: "'/node/nodes/2/weight' holds object instead of numbers or text",
    unknown_filter: "'/node/nodes/2/weight' is compressed by a filter",
    deep: "one of more than 6 within each other",
    replaced("node/nodes/2/type", "NIRGraph"): "node '2' is a 'NIRGraph', which cannot be imported",
    replaced("node/nodes/2/type", np.array([1.0])): r"node '2' is a array\(\[1.\]\), which cannot be imported",
    replaced("node/nodes/2/weight", "many"): r"node '2' \(Linear\): its weight is 'many' instead of numbers",
    replaced("node/nodes/2/weight", None): r"node '2' \(Linear\): it has no weight",
    replaced("node/nodes/2/weight", np.full((3, 72), np.nan)): r"node '2' \(Linear\): its weight is not finite",
    replaced("node/nodes/2/weight", np.float32(1)): r"node '2' \(Linear\): Weight must be at least 2D",
    replaced("node/nodes/2", np.zeros(3)): "'2' is an array or a text, where a group is expected",
    replaced("node/nodes/3/r", np.zeros(7)): r"node '3' \(IF\): All parameters must have the same shape",
    replaced("node/nodes", None): "there is no node 'input'",
    replaced("node/edges", EDGES): "an edge from '2' to 'lost': there is no node 'lost'",
    replaced("node/edges", np.zeros((2, 2))): "its edges are no pairs of names",
    replaced(
        "node/edges", np.array([["1", "2"]] * 2, dtype=h5py.string_dtype())
    ): "there are two edges from '1' to '2'",
    replaced("node/type", "IF"): "it holds no graph, but 'IF'",
    replaced("node", None): "it holds no graph, but None",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_is_elsewhere_or_senseless_is_refused_by_name(graph, change):
    with h5py.File(graph, "a") as file:
        change(file)
    assert graph.stat().st_size < 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(NIRError, match=f"graph.nir: .*{CHANGES[change]}") as caught:
        read_content(graph)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_a_whole_file_is_read_as_nir_reads_it(graph):
    content = read_content(graph)
    expected = nir.read(graph)
    assert list(content.edges) == expected.edges
    assert content.nodes.keys() == expected.nodes.keys()
    assert content.nodes["3"].metadata == {"reset": "value"}
    assert content.has_reset_potentials
    assert content.timestep is None
    for name, node in expected.nodes.items():
        assert type(content.nodes[name]) is type(node)
        for field, value in vars(node).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(vars(content.nodes[name])[field], value)


def test_no_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(NIRError, match=r"lost.nir: cannot be read"):
        read_content(tmp_path / "lost.nir")
    with pytest.raises(NIRError, match="cannot be read"):
        read_content(tmp_path)
