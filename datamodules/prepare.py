"""Getting a set's files onto this machine."""

from datamodules.base import BenchmarkDataModule
from datamodules.download import fetch_and_unpack
from datamodules.errors import DataCorrupt, DataMissing


def prepare(data: BenchmarkDataModule) -> None:
    """Fetch and unpack what the set lacks, then write what is computed from it once, such as its cache.

    A set that is there already, in part or whole, is not fetched. What a broken connection left is kept, and the
    next call goes on from there.

    Raises:
        DataMissing: the files must be got by hand, or the network does not give them; the message says which
            files to get from where, and the folder to put them in.
        DataCorrupt: a file is not what it should be.
    """
    try:
        data.samples  # noqa: B018  # lists the files
    except DataMissing:
        if not data.downloads:
            raise
        _fetch_all(data)
    data.prepare_data()


def _fetch_all(data: BenchmarkDataModule) -> None:
    for archive in data.downloads:
        try:
            fetch_and_unpack(archive, data.root)
        except (DataMissing, DataCorrupt) as error:
            by_hand = f"{error}. By hand: {data.instructions}; the folder is {data.root}"
            raise type(error)(by_hand) from error
