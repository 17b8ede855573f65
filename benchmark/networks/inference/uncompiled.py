"""Networks that went through ``torch.compile``, as they were before."""

from torch import nn


def uncompiled(network: nn.Module) -> nn.Module:
    """The network without ``torch.compile``, on itself or on parts of it; parts are put back in place.

    What is compiled shows nobody which functions it calls. Results, parameters and, but for ``_orig_mod.``, their names
    are the same.
    """
    plain = _original(network)
    for parent in [*plain.modules()]:
        if parent._compiled_call_impl is not None:  # of module.compile()
            parent._compiled_call_impl = None
        for name, child in [*parent.named_children()]:
            if _original(child) is not child:
                setattr(parent, name, _original(child))
    return plain


def _original(module: nn.Module) -> nn.Module:
    """What ``torch.compile`` was given; known by its name there, since the import of its class takes seconds."""
    while isinstance(inner := module._modules.get("_orig_mod"), nn.Module):
        module = inner
    return module
