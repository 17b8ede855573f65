"""Every reader of networks gives a value or CheckpointError for any bytes."""

import io
import json

import nir
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from benchmark.networks.errors import CheckpointError
from benchmark.networks.nir.content import read_content
from benchmark.networks.weights import checkpoints, packed
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


STATE = {"0.weight": torch.eye(3, 4), "0.bias": torch.ones(3), "1.num_batches_tracked": torch.tensor(2)}


def pickled(content, zipped):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def both(content):
    return [pickled(content, zipped) for zipped in (True, False)]


def packed_weights():
    content = packed.pack_state(STATE, {})
    return safetensors.torch.save(dict(content.tensors), {"snnbench": "{}", packed.KEY: content.contents})


CHECKPOINTS = {
    "net.pt": lambda: [content for saved in (STATE, nn.Linear(2, 2).state_dict()) for content in both(saved)],
    "net.ckpt": lambda: both({"state_dict": STATE, "epoch": 3, "lr": np.float64(0.1)}),
    "plain.safetensors": lambda: [safetensors.torch.save(STATE, {"snnbench": json.dumps({"model": {"name": "mlp"}})})],
    "packed.safetensors": lambda: [packed_weights()],
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_any_bytes_are_a_checkpoint_or_an_error(tmp_path, name):
    fuzz(checkpoints.load, CheckpointError, tmp_path / name, *CHECKPOINTS[name]())
