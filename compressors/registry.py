"""The compressors by name, resolved lazily; what a registry is stands in :mod:`hardware.registry`."""

from hardware.registry import OWN, Entry, PluginError, Registry, Requirement, UnknownName, parameters_of, suggestion

__all__ = ["COMPRESSORS", "OWN", "Entry", "PluginError", "Registry", "UnknownName", "parameters_of", "suggestion"]

COMPRESSORS = Registry(
    "compressor",
    "snnbench.compressors",
    {
        "identity": Entry("compressors.methods.identity:Identity", "the dense network, unchanged (control)"),
        "random": Entry("compressors.methods.random_pruning:RandomPruning", "weights removed at random (control)"),
        "magnitude": Entry("compressors.methods.magnitude:Magnitude", "the smallest weights removed (control)"),
        "lamp": Entry("compressors.methods.lamp:LAMP", "layer-adaptive magnitude pruning"),
        "slamp": Entry("compressors.methods.slamp:SLAMP", "LAMP with the membrane's leak and the inputs over time"),
        "lottery": Entry(
            "compressors.methods.lottery:Lottery", "rounds of magnitude pruning, each rewound to an early state"
        ),
        "dst": Entry("compressors.methods.dst:DST", "sparse from the first step on; weights move while it learns"),
        "gradr": Entry(
            "compressors.methods.gradr:GradR", "connections vanish and come back with the signs they began with"
        ),
        "stds": Entry("compressors.methods.stds:STDS", "weights behind a soft threshold that grows while they learn"),
        "upf": Entry("compressors.methods.upf:UPF", "learnt masks of weights and neurons, priced by connections"),
        "rtn": Entry("compressors.methods.rtn:RTN", "weights rounded to the nearest level of a grid (control)"),
        "wanda": Entry("compressors.methods.wanda:Wanda", "weights of weak inputs removed, no update (control)"),
        "ria": Entry("compressors.methods.ria:RIA", "wanda with magnitudes relative to row and column (control)"),
        "lsq": Entry("compressors.methods.lsq:LSQ", "weights trained on a grid whose steps are learnt"),
        "qpsnn": Entry(
            "compressors.methods.qpsnn:QPSNN", "channels of low spike-map rank removed, weights on a rescaled grid"
        ),
        "spatiotemporal": Entry(
            "compressors.methods.spatiotemporal:SpatioTemporal",
            "layers as wide as their principal components, T lowered",
        ),
        "obc": Entry(
            "compressors.methods.obc:OBC", "Optimal Brain Compression: exact second-order pruning on input currents"
        ),
        "mimic": Entry(
            "compressors.methods.mimic:Mimic", "SBC in rounds, after each of which it learns from the dense network"
        ),
        "sbc": Entry("compressors.methods.sbc:SBC", "Spiking Brain Compression: OBC on membrane potentials"),
    },
    Requirement("compressors.base:Compressor"),
)
