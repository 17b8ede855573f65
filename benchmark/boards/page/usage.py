"""How a method is used, in words that can be copied: by a line of a shell, and in Python."""

from compressors.base import Compressor

EXAMPLES = {"density": 0.1, "bits": 4, "synops": 0.3}
"""Budgets, as examples have them."""

EPOCHS = 20
"""Of a fit that trains, in examples."""


def usage(name: str, method: type[Compressor]) -> dict[str, str]:
    """What to do -> the lines that do it, with a budget that the method can meet.

    Args:
        name: in the registry.
        method: the class.
    """
    limits = {limit: EXAMPLES[limit] for limit in method.budgets[0].split("+") if limit in EXAMPLES}
    arguments = ", ".join(f"{limit}={value}" for limit, value in limits.items())
    options = "".join(f" --{limit} {value}" for limit, value in limits.items())
    epochs = EPOCHS if method.from_scratch else 0
    python = (
        f"from compressors import {method.__name__}\nfrom lightning.pytorch import Trainer\n\n"
        f"Trainer(max_epochs={epochs}, callbacks=[{method.__name__}({arguments})]).fit(module, datamodule)"
    )
    if method.from_scratch:
        return {"Train a network so, in Python": python}
    line = f"snnbench compress --checkpoint mine.safetensors --method {name}{options}"
    return {"Compress a network of yours": line, "In Python; with epochs, what is left is fine-tuned": python}
