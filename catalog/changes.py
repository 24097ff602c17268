"""Decisions on what may be said of a version: pointing aliases, tagging, noting, deleting, restoring."""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from catalog.errors import CatalogUsageError, UnknownStyle
from catalog.events import Said, say, state_of
from catalog.selector import ALIAS, STYLE_ID
from catalog.tables import Log
from catalog.view import View

Pair = tuple[str, int]
"""(style id, version)."""

_LONGEST_NOTE = 10_000


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

    def __init__(self, rows: Log, events: Log) -> None:
        self._rows, self._events = rows, events

    def set_alias(self, style_id: str, version: int, alias: str, expect: int | None) -> None:
        """``expect``: the version it must point to now, 0 for none; None: whichever.

        Raises:
            CatalogUsageError: it points elsewhere, or is no name for an alias.
            UnknownStyle: the version is not there, or is deleted.
        """
        if not re.fullmatch(ALIAS, alias):
            raise CatalogUsageError(f"{alias!r}: an alias begins with a small letter; then letters, digits and '-'")

        def decide(view: View) -> Sequence[Said]:
            _check_ready(view, [(style_id, version)])
            now = _pointed(view, style_id, alias)
            _check_expected(style_id, alias, expect, now)
            return [] if now == version else [Said("alias-set", style_id, version, alias)]

        say(self._rows, self._events, decide, f"set {style_id}@{alias} in", [state_of(style_id, version)])

    def remove_alias(self, style_id: str, alias: str, expect: int | None) -> None:
        """Raises UnknownStyle where there is no such alias; CatalogUsageError where it is not the one expected."""

        def decide(view: View) -> Sequence[Said]:
            now = _pointed(view, style_id, alias)
            if now == 0:
                raise UnknownStyle(f"{style_id} has no alias {alias!r}")
            _check_expected(style_id, alias, expect, now)
            return [Said("alias-removed", style_id, None, alias)]

        say(self._rows, self._events, decide, f"remove {style_id}@{alias} from")

    def tag(self, pairs: Sequence[Pair], add: Sequence[str], remove: Sequence[str]) -> None:
        """Tags that are there, or not there, already are left.

        Raises:
            CatalogUsageError: malformed tags, or one both added and removed.
        """
        for tag in (*add, *remove):
            if not re.fullmatch(STYLE_ID, tag):
                raise CatalogUsageError(f"{tag!r}: a tag is of small letters, digits and '-'")
        if both := {*add} & {*remove}:
            raise CatalogUsageError(f"tag {min(both)!r} cannot be added and removed at once")

        def decide(view: View) -> Sequence[Said]:
            have = {pair: row["tags"] for pair, row in _rows_of(view, pairs, ("tags",)).items()}
            return [
                *(Said("tag-added", *pair, tag) for pair in have for tag in add if tag not in have[pair]),
                *(Said("tag-removed", *pair, tag) for pair in have for tag in remove if tag in have[pair]),
            ]

        say(self._rows, self._events, decide, "tag in")

    def add_note(self, pairs: Sequence[Pair], text: str) -> str:
        """The note's id. Raises CatalogUsageError where the text is empty or too long."""
        if not text.strip() or len(text) > _LONGEST_NOTE or "\0" in text:
            raise CatalogUsageError(f"a note has 1 to {_LONGEST_NOTE} characters, none of them NUL")
        note_id = uuid.uuid4().hex[:8]

        def decide(view: View) -> Sequence[Said]:
            return [Said("note-added", *pair, note_id, text) for pair in _rows_of(view, pairs)]

        say(self._rows, self._events, decide, "note in")
        return note_id

    def remove_note(self, style_id: str, version: int, note_id: str) -> None:
        """Raises UnknownStyle where the version has no such note."""

        def decide(view: View) -> Sequence[Said]:
            known = [note.note_id for note in notes_of(view, style_id, version)]
            if note_id not in known:
                raise UnknownStyle(f"{style_id}@{version} has no note {note_id!r}; it has {', '.join(known) or 'none'}")
            return [Said("note-removed", style_id, version, note_id)]

        say(self._rows, self._events, decide, "remove a note from")

    def set_preview(self, style_id: str, version: int, uri: str, probe_set: str) -> None:
        """The picture at ``uri`` shows the version on ``probe_set``, in place of any that did before.

        Raises:
            UnknownStyle: the version is not there, or is deleted.
        """

        def decide(view: View) -> Sequence[Said]:
            _check_ready(view, [(style_id, version)])
            return [Said("preview-set", style_id, version, probe_set, uri)]

        say(self._rows, self._events, decide, "set a preview in")

    def delete(self, pairs: Sequence[Pair], drop_aliases: bool) -> None:
        """Hide versions until they are restored; those hidden already are left.

        Raises:
            CatalogUsageError: an alias points to one of them, and ``drop_aliases`` is not set.
        """

        def decide(view: View) -> Sequence[Said]:
            ready = [pair for pair, row in _rows_of(view, pairs).items() if row["status"] == "ready"]
            pointed = [alias for alias in aliases_of(view) if (alias.style_id, alias.version) in ready]
            if pointed and not drop_aliases:
                names = ", ".join(f"{a.style_id}@{a.alias} (version {a.version})" for a in pointed)
                raise CatalogUsageError(
                    f"aliases point there: {names}; move them first, or drop them with --drop-aliases"
                )
            return [
                *(Said("alias-removed", alias.style_id, None, alias.alias) for alias in pointed),
                *(Said("deleted", *pair) for pair in ready),
            ]

        say(self._rows, self._events, decide, "delete from")

    def restore(self, pairs: Sequence[Pair]) -> None:
        """Show again what was deleted.

        Raises:
            CatalogUsageError: gc has freed the files of one of them.
        """

        def decide(view: View) -> Sequence[Said]:
            rows = _rows_of(view, pairs)
            if gone := [pair for pair, row in rows.items() if row["status"] in ("purging", "purged")]:
                names = ", ".join(f"{style_id}@{version}" for style_id, version in gone)
                raise CatalogUsageError(f"{names}: gc has freed the files; train again, or import from another catalog")
            return [Said("restored", *pair) for pair, row in rows.items() if row["status"] == "deleted"]

        say(self._rows, self._events, decide, "restore in")

    def purge(self, pairs: Sequence[Pair], before: str, after: str) -> Sequence[Pair]:
        """Moves versions from state ``before`` to ``after``; returns those that were moved, the others are left."""

        def decide(view: View) -> Sequence[Said]:
            rows = _rows_of(view, pairs)
            return [Said(after, *pair) for pair, row in rows.items() if row["status"] == before]  # type: ignore[arg-type]

        moved = say(self._rows, self._events, decide, "free versions of")
        return [(event.style_id, event.version) for event in moved if event.version is not None]


def aliases_of(view: View, style_id: str | None = None) -> list[Alias]:
    """By style and name."""
    chosen = "select style_id, alias, version, happened_at, author from aliases"
    where = " where $style_id is null or style_id = $style_id order by style_id, alias"
    return [Alias(**row) for row in view.told(chosen + where, {"style_id": style_id})]


def notes_of(view: View, style_id: str, version: int) -> list[Note]:
    """Those added after registration, the oldest first."""
    chosen = "select style_id, version, note_id, text, happened_at, author from notes"
    where = " where style_id = $style_id and version = $version order by happened_at, note_id"
    return [Note(**row) for row in view.told(chosen + where, {"style_id": style_id, "version": version})]


def _pointed(view: View, style_id: str, alias: str) -> int:
    """0: nowhere."""
    found = [held.version for held in aliases_of(view, style_id) if held.alias == alias]
    return found[0] if found else 0


def _check_expected(style_id: str, alias: str, expect: int | None, now: int) -> None:
    if expect is not None and expect != now:
        points = f"points to version {now}" if now else "does not exist"
        wanted = f"version {expect}" if expect else "none"
        raise CatalogUsageError(f"{style_id}@{alias} {points}, and {wanted} was expected; nothing was changed")


def _rows_of(view: View, pairs: Sequence[Pair], columns: Sequence[str] = ()) -> dict[Pair, dict[str, Any]]:
    """Raises UnknownStyle for a version that was never registered."""
    rows = {(row["style_id"], row["version"]): row for row in view.versions(pairs, ("status", *columns))}
    if missing := [pair for pair in pairs if pair not in rows]:
        raise UnknownStyle(f"no version {missing[0][0]}@{missing[0][1]}")
    return {pair: rows[pair] for pair in dict.fromkeys(pairs)}


def _check_ready(view: View, pairs: Sequence[Pair]) -> None:
    for (style_id, version), row in _rows_of(view, pairs).items():
        if row["status"] != "ready":
            raise UnknownStyle(f"{style_id}@{version} is {row['status']}; restore it first")
