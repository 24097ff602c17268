"""The style catalog: trained styles below one storage, safe for concurrent writers on disk and on S3.

Two Delta tables that only grow (:mod:`catalog.tables`) and the view of both (:mod:`catalog.view`); this is the door to
all that can be asked and done. What is needed for a question is loaded with it, so that a list is quick.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from catalog.delta import ROWS
from catalog.errors import CatalogUsageError, CheckpointMismatch, UnknownStyle
from catalog.selector import parse
from catalog.tables import Tables
from cluster.storage import Storage

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from catalog.changes import Alias, Changes, Note
    from catalog.filters import Condition
    from catalog.gc import GcReport
    from catalog.optimize import Optimized
    from catalog.schema import NewStyle, StyleVersion
    from catalog.search import Nearest
    from catalog.sql import Answer
    from catalog.transfer import Bundle
    from catalog.verify import Finding
    from catalog.view import VersionKey, View

__all__ = ["TABLE", "CatalogUsageError", "CheckpointMismatch", "StyleCatalog", "UnknownStyle", "Versions"]

TABLE = ROWS
"""Where the table of versions stands below the storage."""

Versions = list["StyleVersion"]


class StyleCatalog:
    """The styles below one storage. A catalog that nobody has written to is empty.

    Selections are those of :mod:`catalog.selector`; those that change something mean exact versions at that moment.
    All methods raise StorageError where the storage does not answer, SelectorError where a selection cannot be read and
    UnknownStyle where it selects nothing.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.tables = Tables.below(storage)
        self.rows, self.events = self.tables.rows, self.tables.events

    @classmethod
    def open(cls, storage: Storage) -> "StyleCatalog":
        """Touches nothing; the tables are made with their first row."""
        return cls(storage)

    def view(self) -> "View":
        """The whole catalog as it is now; stays so while others write."""
        from catalog.view import View

        return View(self.tables)

    def register(self, new: "NewStyle") -> "StyleVersion":
        """Adds the next version of a style, or finds the one that has this very checkpoint.

        Of concurrent registrations of one style each gets a version of its own, without gaps. A version that was
        deleted is restored.

        Raises:
            CheckpointMismatch: ``checkpoint_uri`` does not hold ``checkpoint_bytes`` of ``checkpoint_sha256``.
            StorageError: others kept coming first for five minutes.
        """
        from catalog.register import register

        return register(self.tables, new)

    def resolve(self, selection: str | None, *, where: "Sequence[Condition]" = (), latest: bool = False) -> Versions:
        """What a selection means now, each version once, in the order selected; of those, what passes the filters.

        Without a selection everything that passes them, by style and version.
        """
        from catalog.view import Question

        view = self.view()
        pairs = self._pairs(selection, view=view) if selection is not None else None
        if where or latest or pairs is None:
            asked = Question(("style_id", "version"), where, latest=latest)
            passed = {(row["style_id"], row["version"]): None for row in view.ask(asked)}
            pairs = [pair for pair in pairs or passed if pair in passed]
        return self._versions(view, pairs)

    def show(self, name: str) -> "StyleVersion":
        """One version by ``id`` (its latest), ``id@version`` or ``id@alias``."""
        found = self.resolve(name)
        if len(found) != 1:
            raise UnknownStyle(f"{name!r} means {len(found)} styles; name one")
        return found[0]

    def find(self, style_id: str, checkpoint_uri: str) -> "StyleVersion | None":
        """The version registered from this checkpoint, the latest if several; for jobs that are run again."""
        from catalog.filters import of_style
        from catalog.view import Question

        names = {Storage.open(checkpoint_uri).uri, checkpoint_uri}
        view = self.view()
        asked = Question(("version", "checkpoint_uri"), [of_style(style_id)])
        same = [row["version"] for row in view.ask(asked) if row["checkpoint_uri"] in names]
        return self._versions(view, [(style_id, same[-1])])[0] if same else None

    def list(self, **parts: Any) -> Versions:
        """Versions, by style and version unless asked otherwise, without their embeddings.

        Args:
            parts: fields of :class:`catalog.view.Question` other than its columns, such as
                ``where=[Condition.parse("structure>0.8")]``, ``sort=["-created_at"]``, ``limit=20``.

        Raises:
            CatalogUsageError: a column or sort that does not exist.
        """
        from catalog.schema import StyleVersion
        from catalog.view import Question

        view = self.view()
        return [StyleVersion.from_row(row) for row in view.ask(Question(view.columns(), **parts))]

    def search(
        self, text: str | None = None, *, like: str | None = None, clip_from: str | None = None, **parts: Any
    ) -> "Nearest":
        """Versions nearest to ``text``, or to the picture at ``like`` (path or URI); loads the CLIP of their base.

        Args:
            clip_from: that base, if it is not bundled.
            parts: as in :meth:`list`.

        Raises:
            CatalogUsageError: as :func:`catalog.search.search`.
        """
        from catalog.search import search
        from catalog.view import Question

        view = self.view()
        picture = Storage.open(like).read_bytes() if like is not None else None
        question = Question(view.columns(), **parts)
        return search(view, question, text=text, picture=picture, clip_from=clip_from)

    def sql(self, query: str, **bounds: Any) -> "Answer":
        """Answers one SELECT over the current view; see :func:`catalog.sql.ask_sql`, also for ``bounds``.

        Raises:
            CatalogUsageError: not one SELECT, something wrong in it or that it may not do, or too much asked of it.
        """
        from catalog.sql import ask_sql

        return ask_sql(self.view(), query, **bounds)

    def aliases(self, style_id: str | None = None) -> "Sequence[Alias]":
        """Where aliases point now, by style and name."""
        from catalog.changes import aliases_of

        return aliases_of(self.view(), style_id)

    def history(self, style_id: str, alias: str | None = None) -> "Sequence[dict[str, Any]]":
        """Every event of a style, or of one of its aliases, the oldest first."""
        return self.view().query(
            "select happened_at, author, kind, style_id, version, name, text from events where style_id = $style_id"
            " and ($alias is null or (starts_with(kind, 'alias-') and name = $alias)) order by happened_at, seq",
            {"style_id": style_id, "alias": alias},
        )

    def notes(self, name: str) -> "Sequence[Note]":
        """Notes added to one version since its registration, the oldest first."""
        from catalog.changes import notes_of

        view = self.view()
        (pair,) = self._one(name, view)
        return notes_of(view, *pair)

    def set_alias(self, name: str, alias: str, *, expect: int | None = None) -> "VersionKey":
        """Point an alias of a style to one version; ``expect`` is the version it must point to before, 0 for none.

        Raises:
            CatalogUsageError: it points elsewhere; nothing was changed.
        """
        ((style_id, version),) = self._one(name)
        self._changes().set_alias(style_id, version, alias, expect)
        return style_id, version

    def remove_alias(self, name: str, *, expect: int | None = None) -> None:
        """``name`` is ``id@alias``; ``expect`` as in :meth:`set_alias`."""
        style_id, _, alias = name.partition("@")
        self._changes().remove_alias(style_id, alias, expect)

    def tag(self, selection: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> "Sequence[VersionKey]":
        """Raises CatalogUsageError for malformed tags."""
        pairs = self._pairs(selection)
        self._changes().tag(pairs, add, remove)
        return pairs

    def add_note(self, selection: str, text: str) -> str:
        """The note's id. Raises CatalogUsageError for an empty text, or one too long."""
        return self._changes().add_note(self._pairs(selection), text)

    def remove_note(self, name: str, note_id: str) -> None:
        ((style_id, version),) = self._one(name)
        self._changes().remove_note(style_id, version, note_id)

    def set_metrics(self, metrics: "Mapping[VersionKey, Mapping[str, float]]") -> None:
        """Figures measured since registration, by (style id, version) and name; the newest of a name counts.

        Raises:
            CatalogUsageError: a name or a number that cannot be filtered by.
        """
        self._changes().set_metrics(metrics)

    def set_preview(self, name: str, uri: str, probe_set: str) -> None:
        """The picture at ``uri`` shows a version on a probe set (:mod:`catalog.probes`); the newest said so holds."""
        ((style_id, version),) = self._one(name)
        self._changes().set_preview(style_id, version, uri, probe_set)

    def delete(self, selection: str, *, drop_aliases: bool = False) -> "Sequence[VersionKey]":
        """Hide versions; ``id`` is the latest. Their files stay until gc.

        Raises:
            CatalogUsageError: aliases point to one of them and ``drop_aliases`` is not set; nothing was changed.
        """
        pairs = self._pairs(selection)
        self._changes().delete(pairs, drop_aliases)
        return pairs

    def restore(self, selection: str) -> "Sequence[VersionKey]":
        """Show deleted versions again; ``id`` means all deleted ones of that style.

        Raises:
            CatalogUsageError: gc has freed their files.
        """
        pairs = self._pairs(selection, deleted=True)
        self._changes().restore(pairs)
        return pairs

    def gc(self, older_than: "timedelta", *, dry_run: bool = False) -> "GcReport":
        """Frees the files of versions deleted longer ago, and of trainings that never became versions.

        Raises:
            CatalogUsageError: a negative age.
        """
        from catalog.gc import collect

        return collect(self.tables, older_than, dry_run=dry_run)

    def optimize(self, retention: "timedelta") -> "Sequence[Optimized]":
        """Compacts both tables, removes files unused for longer than ``retention``, and tidies their logs.

        Raises:
            CatalogUsageError: less than an hour.
        """
        from catalog.optimize import optimize

        return [done for log in (self.rows, self.events) if (done := optimize(log, retention))]

    def verify(self, selection: str | None = None, *, quick: bool = False) -> "Iterator[Finding | VersionKey]":
        """Yields each version when it is compared with its files, and what is wrong; see :mod:`catalog.verify`."""
        from catalog.verify import verify

        return verify(self.tables, None if selection is None else [*self._pairs(selection)], quick=quick)

    def pull(self, name: str, folder: "Path") -> "Path":
        """Downloads one version into ``folder``/``id@version`` and checks it; returns that folder."""
        from catalog.transfer import pull

        return pull(self.show(name), folder)

    def export_bundle(self, selection: str, out: str) -> "Bundle":
        """Writes versions with all their files to a folder, an s3:// prefix or a .tar; see :mod:`catalog.transfer`."""
        from catalog.transfer import export

        return export(self.tables, self.resolve(selection), out)

    def import_bundle(self, source: str, *, any_base: bool = False) -> Versions:
        """Registers the styles of a bundle here.

        Raises:
            CatalogUsageError: no whole bundle, or a base other than this catalog's without ``any_base``.
        """
        from catalog.transfer import import_bundle

        return import_bundle(self.tables, source, any_base=any_base)

    def _changes(self) -> "Changes":
        from catalog.changes import Changes

        return Changes(self.tables)

    def _pairs(self, selection: str, *, view: "View | None" = None, deleted: bool = False) -> "Sequence[VersionKey]":
        from catalog.resolve import resolve
        from catalog.view import Question

        terms = parse(selection)
        view = view or self.view()
        if not next(view.ask(Question(("style_id",), deleted=True, sort=(), limit=1)), None):
            raise UnknownStyle(f"the catalog at {self.rows.uri} holds no styles; train some first")
        try:
            return resolve(view, terms, deleted=deleted)
        except UnknownStyle as error:
            raise UnknownStyle(f"in the catalog at {self.rows.uri}: {error}") from None

    def _one(self, name: str, view: "View | None" = None) -> "Sequence[VersionKey]":
        if not re.fullmatch(r"[^,:]+", name) or name.strip() == "all":
            raise CatalogUsageError(f"{name!r}: name one version: id (its latest), id@version or id@alias")
        return self._pairs(name, view=view)

    def _versions(self, view: "View", pairs: "Sequence[VersionKey]") -> Versions:
        from catalog.register import read_versions

        return read_versions(view, pairs)
