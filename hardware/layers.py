"""Which modules have weights, and which hand on what they get: the one description for counter, compressors and NIR."""

from spikingjelly.activation_based import layer
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

WEIGHTED = (nn.Linear, _ConvNd)
"""Layers with a weight: linear ones and all convolutions. SpikingJelly's are subclasses of torch's."""

TRANSPARENT = (nn.Identity, _DropoutNd, layer.Dropout, layer.Dropout2d)
"""Modules that hand on their input unchanged in evaluation mode."""
