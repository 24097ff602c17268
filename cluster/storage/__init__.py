"""Storage, local or S3, chosen by a URI: :class:`Storage` is the way in."""

from cluster.storage.place import (
    TEMP_PREFIX,
    Backend,
    FileInfo,
    NotFound,
    Storage,
    StorageError,
    check_name,
    normalize_uri,
)

__all__ = [
    "TEMP_PREFIX", "Backend", "FileInfo", "NotFound", "Storage", "StorageError", "check_name", "normalize_uri",
]  # fmt: skip
