"""What is wrong with a network, or with the file that it comes from."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that does not fit the network."""

    exit_status = 2


class NIRError(CheckpointError):
    """A NIR graph that SpikingJelly's layers and neurons cannot express exactly; names the node."""


class NetworkError(ValueError):
    """A network that is not what everybody here takes it for: names the module and the remedy."""

    exit_status = 2
