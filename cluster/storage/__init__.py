"""Storage, local or S3, chosen by a URI: :class:`Storage` is the way in."""

from cluster.storage.names import check_name, normalize_uri
from cluster.storage.place import Storage
from cluster.storage.types import (
    TEMP_PREFIX,
    Backend,
    FileInfo,
    NotFound,
    StorageError,
    StorageRefused,
    StorageUnavailable,
)

__all__ = [
    "TEMP_PREFIX", "Backend", "FileInfo", "NotFound", "Storage", "StorageError", "StorageRefused", "StorageUnavailable",
    "check_name", "normalize_uri",
]  # fmt: skip
