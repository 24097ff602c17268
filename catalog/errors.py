"""What the catalog refuses, and why.

LookupError
└── UnknownStyle        no such style, version, alias or tag
ValueError
├── SelectorError       a selection that cannot be read (catalog.selector)
└── CatalogUsageError   asked for in a way that cannot be done; nothing was touched
StorageError            storage refused or failed (cluster.storage)
├── CheckpointMismatch  a checkpoint is not there, or not the one described
├── DamagedTable        a table whose files are missing, cut short or not of its making
└── NewerCatalog        written by a later version of this program
"""

from cluster.storage import StorageError


class UnknownStyle(LookupError):
    """No such style, version, alias or tag; the message names near ones."""

    def __str__(self) -> str:
        return str(self.args[0])


class CatalogUsageError(ValueError):
    """A request that contradicts itself or the catalog's state; the message says what to do. Nothing was touched."""


class CheckpointMismatch(StorageError):
    """A checkpoint is not there, or is not the one described; nothing was registered."""


class NewerCatalog(StorageError):
    """The catalog was written by a later version of this program; the message names the version needed."""


class DamagedTable(StorageError):
    """A table of the catalog, or a manifest, whose files are missing, cut short or not of its making."""
