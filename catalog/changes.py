"""Decisions on what may change of a version: pointing aliases, tagging, noting, deleting, restoring."""

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from catalog.columns import COMPARED
from catalog.errors import CatalogUsageError, UnknownStyle
from catalog.events import Event, append_events, state_of
from catalog.located import to_stored
from catalog.selector import ALIAS, STYLE_ID
from catalog.tables import Tables
from catalog.view import VersionKey, View

_LONGEST_NOTE = 10_000
METRIC = r"[A-Za-z_][A-Za-z0-9_.-]{0,62}"
"""Names that :class:`catalog.filters.Condition` reads."""


@dataclass(frozen=True)
class Alias:
    """A name for one version of a style, since when, and by whom."""

    style_id: str
    alias: str
    version: int
    happened_at: datetime
    author: str


@dataclass(frozen=True)
class Note:
    """Something a person wrote of a version after its registration."""

    style_id: str
    version: int
    note_id: str
    text: str
    happened_at: datetime
    author: str


class Changes:
    """Writes events; versions are given exactly. All raise StorageError where storage fails, with nothing written."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def set_alias(self, style_id: str, version: int, alias: str, expect: int | None) -> None:
        """``expect``: the version it must point to now, 0 for none; None: whichever.

        Raises:
            CatalogUsageError: it points elsewhere, or is no name for an alias.
            UnknownStyle: the version is not there, or is deleted.
        """
        if not re.fullmatch(ALIAS, alias):
            raise CatalogUsageError(f"{alias!r}: an alias begins with a small letter; then letters, digits and '-'")

        def decide(view: View) -> Sequence[Event]:
            _check_ready(view, [(style_id, version)])
            now = _pointed(view, style_id, alias)
            _check_expected(style_id, alias, expect, now)
            return [] if now == version else [Event("alias-set", style_id, version, alias)]

        append_events(self._tables, decide, f"set {style_id}@{alias} in", [state_of(style_id, version)])

    def remove_alias(self, style_id: str, alias: str, expect: int | None) -> None:
        """Raises UnknownStyle where there is no such alias; CatalogUsageError where it is not the one expected."""

        def decide(view: View) -> Sequence[Event]:
            now = _pointed(view, style_id, alias)
            if now == 0:
                raise UnknownStyle(f"{style_id} has no alias {alias!r}")
            _check_expected(style_id, alias, expect, now)
            return [Event("alias-removed", style_id, None, alias)]

        append_events(self._tables, decide, f"remove {style_id}@{alias} from")

    def tag(self, pairs: Sequence[VersionKey], add: Sequence[str], remove: Sequence[str]) -> None:
        """Tags that are there, or not there, already are left.

        Raises:
            CatalogUsageError: malformed tags, or one both added and removed.
        """
        for tag in (*add, *remove):
            if not re.fullmatch(STYLE_ID, tag):
                raise CatalogUsageError(f"{tag!r}: a tag is of small letters, digits and '-'")
        if both := {*add} & {*remove}:
            raise CatalogUsageError(f"tag {min(both)!r} cannot be added and removed at once")

        def decide(view: View) -> Sequence[Event]:
            have = {pair: row["tags"] for pair, row in _rows_of(view, pairs, ("tags",)).items()}
            return [
                *(Event("tag-added", *pair, tag) for pair in have for tag in add if tag not in have[pair]),
                *(Event("tag-removed", *pair, tag) for pair in have for tag in remove if tag in have[pair]),
            ]

        append_events(self._tables, decide, "tag in")

    def add_note(self, pairs: Sequence[VersionKey], text: str) -> str:
        """The note's id. Raises CatalogUsageError where the text is empty or too long."""
        if not text.strip() or len(text) > _LONGEST_NOTE or "\0" in text:
            raise CatalogUsageError(f"a note has 1 to {_LONGEST_NOTE} characters, none of them NUL")
        note_id = uuid.uuid4().hex[:8]

        def decide(view: View) -> Sequence[Event]:
            return [Event("note-added", *pair, note_id, text) for pair in _rows_of(view, pairs)]

        append_events(self._tables, decide, "note in")
        return note_id

    def remove_note(self, style_id: str, version: int, note_id: str) -> None:
        """Raises UnknownStyle where the version has no such note."""

        def decide(view: View) -> Sequence[Event]:
            known = [note.note_id for note in notes_of(view, style_id, version)]
            if note_id not in known:
                raise UnknownStyle(f"{style_id}@{version} has no note {note_id!r}; it has {', '.join(known) or 'none'}")
            return [Event("note-removed", style_id, version, note_id)]

        append_events(self._tables, decide, "remove a note from")

    def set_preview(self, style_id: str, version: int, uri: str, probe_set: str) -> None:
        """The picture at ``uri`` shows the version on ``probe_set``, in place of any that did before.

        Raises:
            UnknownStyle: the version is not there, or is deleted.
        """

        def decide(view: View) -> Sequence[Event]:
            _check_ready(view, [(style_id, version)])
            return [Event("preview-set", style_id, version, probe_set, to_stored(self._tables.storage, style_id, uri))]

        append_events(self._tables, decide, "set a preview in")

    def set_metrics(self, metrics: Mapping[VersionKey, Mapping[str, float]]) -> None:
        """Figures measured since registration, in place of earlier ones of the same name; equal ones are left.

        Raises:
            CatalogUsageError: a name or a number that cannot be filtered by.
            UnknownStyle: a version is not there, or is deleted.
        """
        for name, value in (item for figures in metrics.values() for item in figures.items()):
            if not re.fullmatch(METRIC, name) or name in COMPARED or not math.isfinite(value):
                raise CatalogUsageError(f"{name}={value} cannot be a metric: a finite number, and a name of its own")

        def decide(view: View) -> Sequence[Event]:
            _check_ready(view, list(metrics))
            have = {
                pair: dict(row["metrics"] or ()) for pair, row in _rows_of(view, list(metrics), ("metrics",)).items()
            }
            return [
                Event("metric-set", *pair, name, repr(float(value)))
                for pair, figures in metrics.items()
                for name, value in figures.items()
                if have[pair].get(name) != value
            ]

        append_events(self._tables, decide, "set metrics in")

    def delete(self, pairs: Sequence[VersionKey], drop_aliases: bool) -> None:
        """Hide versions until they are restored; those hidden already are left.

        Raises:
            CatalogUsageError: an alias points to one of them, and ``drop_aliases`` is not set.
        """

        def decide(view: View) -> Sequence[Event]:
            ready = [pair for pair, row in _rows_of(view, pairs).items() if row["status"] == "ready"]
            pointed = [alias for alias in aliases_of(view) if (alias.style_id, alias.version) in ready]
            if pointed and not drop_aliases:
                names = ", ".join(f"{a.style_id}@{a.alias} (version {a.version})" for a in pointed)
                raise CatalogUsageError(
                    f"aliases point there: {names}; move them first, or drop them with --drop-aliases"
                )
            return [
                *(Event("alias-removed", alias.style_id, None, alias.alias) for alias in pointed),
                *(Event("deleted", *pair) for pair in ready),
            ]

        append_events(self._tables, decide, "delete from")

    def restore(self, pairs: Sequence[VersionKey]) -> None:
        """Show again what was deleted.

        Raises:
            CatalogUsageError: gc has freed the files of one of them.
        """

        def decide(view: View) -> Sequence[Event]:
            rows = _rows_of(view, pairs)
            if gone := [pair for pair, row in rows.items() if row["status"] in ("purging", "purged")]:
                names = ", ".join(f"{style_id}@{version}" for style_id, version in gone)
                raise CatalogUsageError(f"{names}: gc has freed the files; train again, or import from another catalog")
            return [Event("restored", *pair) for pair, row in rows.items() if row["status"] == "deleted"]

        append_events(self._tables, decide, "restore in")

    def purge(self, pairs: Sequence[VersionKey], before: str, after: str) -> Sequence[VersionKey]:
        """Moves versions from state ``before`` to ``after``; returns those that were moved, the others are left."""

        def decide(view: View) -> Sequence[Event]:
            rows = _rows_of(view, pairs)
            return [Event(after, *pair) for pair, row in rows.items() if row["status"] == before]  # type: ignore[arg-type]

        moved = append_events(self._tables, decide, "free versions of")
        return [(event.style_id, event.version) for event in moved if event.version is not None]


def aliases_of(view: View, style_id: str | None = None) -> list[Alias]:
    """By style and name."""
    chosen = "select style_id, alias, version, happened_at, author from aliases"
    where = " where $style_id is null or style_id = $style_id order by style_id, alias"
    return [Alias(**row) for row in view.query(chosen + where, {"style_id": style_id})]


def notes_of(view: View, style_id: str, version: int) -> list[Note]:
    """Those added after registration, the oldest first."""
    chosen = "select style_id, version, note_id, text, happened_at, author from notes"
    where = " where style_id = $style_id and version = $version order by happened_at, note_id"
    return [Note(**row) for row in view.query(chosen + where, {"style_id": style_id, "version": version})]


def _pointed(view: View, style_id: str, alias: str) -> int:
    """0: nowhere."""
    found = [known.version for known in aliases_of(view, style_id) if known.alias == alias]
    return found[0] if found else 0


def _check_expected(style_id: str, alias: str, expect: int | None, now: int) -> None:
    if expect is not None and expect != now:
        points = f"points to version {now}" if now else "does not exist"
        wanted = f"version {expect}" if expect else "none"
        raise CatalogUsageError(f"{style_id}@{alias} {points}, and {wanted} was expected; nothing was changed")


def _rows_of(view: View, pairs: Sequence[VersionKey], columns: Sequence[str] = ()) -> dict[VersionKey, dict[str, Any]]:
    """Raises UnknownStyle for a version that was never registered."""
    rows = {(row["style_id"], row["version"]): row for row in view.versions(pairs, ("status", *columns))}
    if missing := [pair for pair in pairs if pair not in rows]:
        raise UnknownStyle(f"no version {missing[0][0]}@{missing[0][1]}")
    return {pair: rows[pair] for pair in dict.fromkeys(pairs)}


def _check_ready(view: View, pairs: Sequence[VersionKey]) -> None:
    for (style_id, version), row in _rows_of(view, pairs).items():
        if row["status"] != "ready":
            raise UnknownStyle(f"{style_id}@{version} is {row['status']}; restore it first")
