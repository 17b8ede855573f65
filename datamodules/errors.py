"""What can be wrong with the files of a data set."""


class DataMissing(FileNotFoundError):
    """The files of a set are not where they are expected; the message says what, where, and how to get them."""

    exit_status = 3


class DataCorrupt(ValueError):
    """A file is there but cannot be used: truncated, unreadable, empty or impossible; the message names it."""

    exit_status = 1
