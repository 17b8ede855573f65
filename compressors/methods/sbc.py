"""Spiking Brain Compression: OBC with the Hessian of the membrane potential in place of the input current's."""

from torch import Tensor

from compressors.methods.obc import OBC
from compressors.network.layers import Layer
from compressors.network.neurons import membrane_filter


class SBC(OBC):
    """OBC on membrane potentials: ``H = 2 E[(M X)^T (M X)]`` with M the filter over time of the neuron that follows.

    "Spiking Brain Compression" (arXiv 2506.03996; the surrogate-membrane-potential Hessian). A spike train's van Rossum
    distance, with a constant for the derivative of the threshold, leads to the least-squares problem of the membrane
    below threshold. M is taken from the layer's own neuron, be there a pool before it or not (a mean over positions
    commutes with a filter over time; for a maximum this is an approximation). A layer that no neuron follows is treated
    as by OBC; the account of each layer names its ``hessian``.

    What differs from the authors' procedure, unless ``variant="paper"``: weights leave one at a time, and in the order
    of the elimination (theirs leave in batches and are sorted by saliency afterwards), masks follow OBC's global step,
    and quantisation is OBQ's on searched grids. Options as of :class:`~compressors.methods.obc.OBC`.
    """

    paper_batchnorm = True

    def response(self, layer: Layer) -> Tensor | None:
        """The impulse response of the neuron after the layer: ``[T]``, or None without one."""
        return membrane_filter(layer)
