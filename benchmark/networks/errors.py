"""What is wrong with a network that comes from a file."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that does not fit the network."""

    exit_status = 2


class NIRError(CheckpointError):
    """A NIR graph that SpikingJelly's layers and neurons cannot express exactly; names the node."""
