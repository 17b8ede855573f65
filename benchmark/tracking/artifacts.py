"""Networks and texts as artifacts of Weights & Biases."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb


def network_artifact(file: Path, file_sha256: str, **metadata: Any) -> "wandb.Artifact":
    """A network's file, under a name that follows from what is in it.

    Args:
        file: safetensors, NIR, or what else holds a network.
        file_sha256: hash of the file.
        metadata: what is told of it; ``kind`` says what it is (``dense``, ``compressed``, ``NIR``).
    """
    import wandb

    artifact = wandb.Artifact(f"network-{file_sha256[:12]}", type="network", metadata=metadata)
    artifact.add_file(str(file), name=f"network{file.suffix}")
    return artifact


def kind_of(file: Path, *, compressed: bool = False) -> str:
    """What a file of a network is, for people."""
    return "NIR" if file.suffix == ".nir" else "compressed" if compressed else "dense"


def add_text(artifact: "wandb.Artifact", name: str, text: str) -> None:
    """Put a text into an artifact, as a file of that name."""
    with artifact.new_file(name, mode="w", encoding="utf-8") as file:
        file.write(text)
