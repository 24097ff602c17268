"""Places that a command names."""

import argparse

from cluster.storage import StorageError
from cluster.storage.names import check_place


def place(text: str) -> str:
    """An argument's type: a path or URI that is meant as it is written."""
    try:
        return check_place(text)
    except StorageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
