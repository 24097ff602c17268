"""The style catalog: a Delta Lake table of immutable rows, safe for concurrent writers on disk and on S3."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import groupby

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from catalog.errors import CheckpointMismatch, UnknownStyle
from catalog.schema import SCHEMA, NewStyle, StyleVersion
from catalog.selector import Every, Style, Tagged, Term, parse
from cluster.storage import Storage, StorageError

__all__ = ["TABLE", "CheckpointMismatch", "StyleCatalog", "UnknownStyle", "Versions"]

TABLE = "catalog"
"""Where the table stands below the storage."""

Versions = list[StyleVersion]


class StyleCatalog:
    """The styles below one storage. A catalog that nobody has written to is empty.

    All methods raise StorageError where the storage does not answer.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @classmethod
    def open(cls, storage: Storage) -> "StyleCatalog":
        """Touches nothing; the table is made with its first row."""
        return cls(storage)

    def register(self, new: NewStyle) -> StyleVersion:
        """Adds the next version of a style, or finds the one that has this very checkpoint.

        Of concurrent registrations of one style each gets a version of its own, without gaps.

        Raises:
            CheckpointMismatch: ``checkpoint_uri`` does not hold ``checkpoint_bytes`` of ``checkpoint_sha256``.
            StorageError: others kept coming first for two minutes.
        """
        new = new.model_copy(update={"checkpoint_uri": Storage.open(new.checkpoint_uri).uri})
        _check_checkpoint(new)
        retrying = Retrying(
            retry=retry_if_exception_type(CommitFailedError),
            stop=stop_after_delay(120),
            wait=wait_random_exponential(multiplier=0.05, max=2),
            reraise=True,
        )
        with self._explained("register in"):
            return retrying(self._register_once, new)

    def resolve(self, selection: str) -> Versions:
        """What a selection (see :mod:`catalog.selector`) means now, each version once, in the order selected.

        Raises:
            SelectorError: the selection cannot be read.
            UnknownStyle: a part of it selects nothing.
        """
        terms = parse(selection)
        versions = self.list()
        if not versions:
            raise UnknownStyle(f"the catalog at {self._uri} holds no styles; train some first")
        chosen: dict[str, StyleVersion] = {}
        unknown: list[str] = []
        for term in terms:
            try:
                chosen |= {str(version): version for version in _select(term, versions)}
            except UnknownStyle as error:
                unknown.append(str(error))
        if unknown:
            raise UnknownStyle(f"in the catalog at {self._uri}: {'; '.join(unknown)}")
        return [*chosen.values()]

    def show(self, name: str) -> StyleVersion:
        """One version by ``id`` (its latest) or ``id@version``; raises as :meth:`resolve`."""
        found = self.resolve(name)
        if len(found) != 1:
            raise UnknownStyle(f"{name!r} means {len(found)} styles; name one")
        return found[0]

    def find(self, style_id: str, checkpoint_uri: str) -> StyleVersion | None:
        """The version registered from this checkpoint, the latest if several; for jobs that are run again."""
        uri = Storage.open(checkpoint_uri).uri
        with self._explained("read"):
            found = self._read(ds.field("style_id") == style_id)
        return next((row for row in reversed(found) if row.checkpoint_uri in (uri, checkpoint_uri)), None)

    def list(self) -> Versions:
        """Every version, by style and version."""
        with self._explained("read"):
            return self._read()

    @property
    def _uri(self) -> str:
        return self.storage.delta_uri(TABLE)

    def _register_once(self, new: NewStyle) -> StyleVersion:
        table = self._table() or self._create()
        rows = _rows(table, ds.field("style_id") == new.style_id)
        for row in rows:
            if row.checkpoint_sha256 == new.checkpoint_sha256:
                return row
        version = StyleVersion.of(new, max((row.version for row in rows), default=0) + 1)
        # A commit that carries a transaction of this id fails if another did since the table was read: compare-and-swap
        # of the style's version. Commits of other styles do not disturb it.
        swap = CommitProperties(app_transactions=[Transaction(new.style_id, version.version)])
        data = pa.Table.from_pylist([version.to_row()], schema=SCHEMA)
        write_deltalake(table, data, mode="append", schema_mode="merge", commit_properties=swap)
        return version

    def _table(self) -> DeltaTable | None:
        # Asked of storage, which answers or fails within seconds and tells a missing table from a silent server.
        if next(self.storage.walk(f"{TABLE}/_delta_log", recursive=False), None) is None:
            return None
        return DeltaTable(self._uri, storage_options=self.storage.delta_options())

    def _create(self) -> DeltaTable:
        return DeltaTable.create(
            self._uri,
            schema=SCHEMA,
            mode="ignore",
            name="styles",
            description="Trained styles, one row a version",
            storage_options=self.storage.delta_options(),
        )

    def _read(self, only: ds.Expression | None = None) -> Versions:
        table = self._table()
        return [] if table is None else _rows(table, only)

    @contextmanager
    def _explained(self, operation: str) -> Iterator[None]:
        try:
            yield
        except CommitFailedError as error:
            raise StorageError(
                f"{self._uri}: cannot {operation} the catalog: too many others write; try again"
            ) from error
        except (DeltaError, OSError) as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
            raise StorageError(f"{self._uri}: cannot {operation} the catalog: {reason}") from error


def _rows(table: DeltaTable, only: ds.Expression | None) -> Versions:
    found = [StyleVersion.from_row(row) for row in table.to_pyarrow_dataset().to_table(filter=only).to_pylist()]
    return sorted(found, key=lambda row: (row.style_id, row.version))


def _check_checkpoint(new: NewStyle) -> None:
    """A row exists only when its checkpoint is whole and readable."""
    checkpoint = Storage.open(new.checkpoint_uri)
    info = checkpoint.stat()
    if info is None:
        raise CheckpointMismatch(f"{checkpoint}: no such checkpoint; {new.style_id} was not registered")
    if info.size != new.checkpoint_bytes:
        raise CheckpointMismatch(
            f"{checkpoint}: has {info.size} bytes, not {new.checkpoint_bytes}; {new.style_id} was not registered"
        )
    if checkpoint.sha256() != new.checkpoint_sha256:
        raise CheckpointMismatch(f"{checkpoint}: its sha256 is another; {new.style_id} was not registered")


def _select(term: Term, versions: Iterable[StyleVersion]) -> Versions:
    by_id = {style_id: [*group] for style_id, group in groupby(versions, key=lambda row: row.style_id)}
    latest = [group[-1] for group in by_id.values()]
    match term:
        case Every():
            return latest
        case Tagged(tag):
            tagged = [row for row in latest if tag in row.tags]
            if not tagged:
                raise UnknownStyle(f"no style is tagged {tag!r}{_near(tag, {t for row in latest for t in row.tags})}")
            return tagged
        case Style(style_id, version, alias):
            group = by_id.get(style_id)
            if group is None:
                raise UnknownStyle(f"no style {style_id!r}{_near(style_id, by_id)}")
            if alias is not None:
                raise UnknownStyle(f"{style_id} has no alias {alias!r}")
            if version is None:
                return group[-1:]
            if found := [row for row in group if row.version == version]:
                return found
            raise UnknownStyle(f"{style_id} has no version {version} (there are 1 to {group[-1].version})")


def _near(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(names), n=3, cutoff=0.5) or sorted(names)[:5]
    return f" (there are: {', '.join(near)})" if near else ""
