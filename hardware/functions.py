"""What PyTorch's functions do to activations: the one description that everybody uses who follows a forward pass.

A forward pass is watched function by function: to count its operations (:mod:`hardware.trace`), to find the neuron
behind a layer (:mod:`compressors.network.layers`), to find channels that belong together
(:mod:`compressors.channels.tracing`), to write it as a graph (:mod:`benchmark.networks.nir.writing`). Each of them asks
:func:`describe` what a function is. A function that is not described here stops whoever follows an activation, and
costs nothing in the counter.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Any, TypeVar


class Kind(Enum):
    """What a function does to an activation."""

    LINEAR = auto()  # multiplies it by a weight [out, in]
    CONVOLUTION = auto()
    TRANSPOSED_CONVOLUTION = auto()
    PRODUCT = auto()  # matrix product of two tensors
    OPAQUE = auto()  # multiplies inside, where nobody can look
    NORMALISATION = auto()  # by statistics of its own or running ones, then times and plus something learnt
    POOLING = auto()  # of single channels over windows of a given size
    ADAPTIVE_POOLING = auto()  # of single channels to an output of a given size
    ADDITION = auto()  # of two tensors
    ENTRYWISE = auto()  # every entry of the result comes from the entries at its own place
    REDUCTION = auto()  # over whole axes
    RESHAPE = auto()  # the same entries in the same order, in another shape
    MOVE = auto()  # the same entries in another order, place or type
    PICK = auto()  # some of the entries, several tensors' entries, or entries repeated
    ASSIGNMENT = auto()  # writes entries into a part of a tensor
    SHAPE_ONLY = auto()  # makes a tensor that takes nothing but its shape from the activation


@dataclass(frozen=True)
class Function:
    """One function.

    Args:
        name: PyTorch's name of it.
        kind: what it does.
        arguments: names of its arguments in the order in which PyTorch takes them, as far as somebody reads them.
        dimensions: spatial dimensions of a convolution or pooling.
    """

    name: str
    kind: Kind
    arguments: tuple[str, ...] = ()
    dimensions: int = 0

    @property
    def is_pooling(self) -> bool:
        """Whether it pools single channels over positions."""
        return self.kind in (Kind.POOLING, Kind.ADAPTIVE_POOLING)

    @property
    def scales(self) -> bool:
        """Whether its result is a multiple of its first argument where the other argument is a number."""
        return self.name in _SCALING

    @property
    def multiplies(self) -> bool:
        """Whether two tensors that meet in it are multiplied (or one of them picks from the other), uncounted."""
        return self.kind in (Kind.PRODUCT, Kind.OPAQUE) or self.name in _MULTIPLYING

    @property
    def keeps_entries(self) -> bool:
        """Whether its result is its first argument, in another shape, order or type, or all of it several times."""
        return self.kind in (Kind.RESHAPE, Kind.MOVE) or self.name in _REPEATING


_SCALING = frozenset({"mul", "imul", "rmul", "div", "truediv", "itruediv"})
_REPEATING = frozenset({"expand", "expand_as", "repeat"})
_LINEAR = ("input", "weight", "bias")
_CONVOLUTION = (*_LINEAR, "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_LINEAR, "stride", "padding", "output_padding", "groups", "dilation")
_AVERAGE = ("input", "kernel_size", "stride", "padding", "ceil_mode")
_MAXIMUM = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
_ADAPTIVE = ("input", "output_size")
_TWO = ("input", "other")

# The factors of a product are the last two arguments; one before them is added to it.
_PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "matmul": _TWO,
    "rmatmul": ("right", "left"),
    "bmm": ("input", "mat2"),
    "mm": ("input", "mat2"),
    "mv": ("input", "vec"),
    "inner": _TWO,
    "tensordot": ("a", "b"),
    "addmm": ("input", "mat1", "mat2"),
    "addmv": ("input", "mat", "vec"),
    "baddbmm": ("input", "batch1", "batch2"),
}

_DIVIDING = ("div", "divide", "idiv", "truediv", "itruediv", "rtruediv")
_MULTIPLYING = frozenset({"mul", "imul", "rmul", "multiply", "pow", "where", "logical_and", *_DIVIDING})

# An operator stands without its underscores: `add` is also `add_` and `__add__`, `iadd` is `__iadd__`.
_NAMES: Mapping[Kind, str] = {
    Kind.OPAQUE: "bilinear einsum gru gru_cell lstm lstm_cell multi_head_attention_forward rnn_relu rnn_relu_cell "
    "rnn_tanh rnn_tanh_cell scaled_dot_product_attention native_multi_head_attention transformer_encoder_layer_fwd",
    Kind.ENTRYWISE: "sub isub rsub mul imul rmul multiply div divide idiv truediv itruediv rtruediv neg abs sign round "
    "floor exp sqrt square pow clamp maximum minimum where gt ge lt le eq ne relu relu6 leaky_relu elu silu gelu "
    "sigmoid tanh hardtanh dropout dropout1d dropout2d dropout3d logical_and logical_or",
    Kind.REDUCTION: "mean sum amax amin",
    Kind.RESHAPE: "view view_as reshape reshape_as flatten unflatten squeeze unsqueeze",
    Kind.MOVE: "contiguous clone detach transpose swapaxes permute movedim to cpu cuda type_as float double half",
    Kind.PICK: "expand expand_as repeat get getitem select narrow cat concat stack chunk split unbind",
    Kind.ASSIGNMENT: "setitem",
    Kind.SHAPE_ONLY: "zeros_like ones_like empty_like full_like rand_like randn_like",
}


def _described() -> Iterable[Function]:
    yield Function("linear", Kind.LINEAR, _LINEAR)
    yield Function("batch_norm", Kind.NORMALISATION, ("input", "running_mean", "running_var", "weight", "bias"))
    for name in ("layer_norm", "group_norm", "instance_norm", "rms_norm"):
        yield Function(name, Kind.NORMALISATION, ("input",))
    for name, arguments in _PRODUCTS.items():
        yield Function(name, Kind.PRODUCT, arguments)
    for name in ("add", "iadd", "radd"):
        yield Function(name, Kind.ADDITION, _TWO)
    for n in (1, 2, 3):
        yield Function(f"conv{n}d", Kind.CONVOLUTION, _CONVOLUTION, n)
        yield Function(f"conv_transpose{n}d", Kind.TRANSPOSED_CONVOLUTION, _TRANSPOSED, n)
        yield Function(f"avg_pool{n}d", Kind.POOLING, _AVERAGE, n)
        yield Function(f"adaptive_avg_pool{n}d", Kind.ADAPTIVE_POOLING, _ADAPTIVE, n)
        yield Function(f"max_pool{n}d", Kind.POOLING, _MAXIMUM, n)
        yield Function(f"adaptive_max_pool{n}d", Kind.ADAPTIVE_POOLING, _ADAPTIVE, n)
    for kind, names in _NAMES.items():
        for name in names.split():
            yield Function(name, kind)


FUNCTIONS: dict[str, Function] = {function.name: function for function in _described()}
"""All described functions, by name without leading and trailing underscores."""

_PYTORCH = frozenset({"torch", "_operator"})  # operators are what a graph of torch.fx calls
_FOREIGN = Function("", Kind.OPAQUE)
_stand_ins: dict[Callable[..., Any], Function] = {}
_Called = TypeVar("_Called", bound=Callable[..., Any])


def stands_in_for(name: str) -> Callable[[_Called], _Called]:
    """Decorator of a function of our own: it computes what PyTorch's function ``name`` does from the same arguments.

    Whoever watches a forward pass then takes it for PyTorch's. It has to hand itself over, with
    :func:`torch.overrides.handle_torch_function`, where somebody watches.

    Raises:
        TypeError: its arguments do not begin like those of PyTorch's function.
    """
    described = FUNCTIONS[name]

    def declare(function: _Called) -> _Called:
        arguments = tuple(inspect.signature(function).parameters)
        if arguments != described.arguments[: len(arguments)]:
            raise TypeError(
                f"{function.__qualname__}{arguments} cannot stand in for {name}: its arguments must be the first of "
                f"{described.arguments}, in this order"
            )
        _stand_ins[function] = described
        return function

    return declare


def describe(function: Callable[..., Any]) -> Function | None:
    """What a function is, or None if it is PyTorch's and none of those described here.

    Functions of PyTorch are known by name. Of any other that shows itself to whoever watches, nobody knows what it
    does: it is opaque unless it :func:`stands in for <stands_in_for>` one of PyTorch's.
    """
    module = getattr(function, "__module__", None)  # methods of tensors have none
    if module is None or module.partition(".")[0] in _PYTORCH:
        return _by_name(getattr(function, "__name__", ""))
    return _stand_ins.get(function, _FOREIGN)


@lru_cache(maxsize=1024)
def _by_name(name: str) -> Function | None:
    return FUNCTIONS.get(name.strip("_").removesuffix("_with_indices"))


def writes_in_place(function: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call may write where its arguments lie: `mul_`, `*=`, `x[i] = `, `out=` and `inplace=True`.

    Args:
        function: the name of the function, underscores included.
        kwargs: its keyword arguments.
    """
    by_name = (function.endswith("_") and not function.endswith("__")) or function.startswith(("__i", "__set"))
    return by_name or "out" in kwargs or bool(kwargs.get("inplace"))
