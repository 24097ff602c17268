"""What changes of versions after their registration: aliases, tags, previews, deletions …; appended, never edited.

Each event has a subject, such as one alias of one style, and a number counted within it; the highest is current. A
commit carries its subjects as transactions, so that of two writers to one subject the second decides again on what the
first has left.
"""

import getpass
import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from deltalake import DeltaTable

from catalog.tables import Commit, Tables
from catalog.view import View

Kind = Literal[
    "alias-set", "alias-removed", "tag-added", "tag-removed", "note-added", "note-removed",
    "preview-set", "metric-set", "deleted", "restored", "purging", "purged",
]  # fmt: skip


@dataclass(frozen=True)
class Event:
    """An event before it has its number. ``version`` is None where an alias ends."""

    kind: Kind
    style_id: str
    version: int | None
    name: str | None = None
    """The alias, tag, probe set, metric or note's id."""
    text: str | None = None
    """The note, the preview's URI, or the metric's value."""

    @property
    def subject(self) -> str:
        if self.kind.startswith("alias-"):
            return f"alias:{self.style_id}@{self.name}"
        if self.kind.startswith(("tag-", "note-", "metric-")):
            return f"{self.kind.partition('-')[0]}:{self.style_id}@{self.version}#{self.name}"
        if self.kind == "preview-set":
            return f"preview:{self.style_id}@{self.version}"
        return state_of(self.style_id, self.version)


def state_of(style_id: str, version: int | None) -> str:
    """The subject of a version's deletion; also guarded by those who need it not to be deleted meanwhile."""
    return f"state:{style_id}@{version}"


def append_events(
    tables: Tables,
    decide: Callable[[View], Sequence[Event]],
    operation: str,
    guards: Sequence[str] = (),
) -> Sequence[Event]:
    """Append what ``decide`` makes of the present view, deciding anew as often as others write to its subjects.

    All of it is appended at once or nothing. ``guards`` are subjects that must not change meanwhile either.

    Raises:
        StorageError: as :meth:`Log.append`. What ``decide`` raises goes through; nothing was written then.
    """
    appended: Sequence[Event] = ()
    attempt = uuid.uuid4().hex

    def commit(table: DeltaTable) -> Commit:
        nonlocal appended
        view = View(tables, events=table)
        # A commit whose answer was lost on the way is met again as somebody else's.
        if view.query("select 1 from events where starts_with(event_id, $attempt)", {"attempt": attempt}):
            return Commit([])
        appended = decide(view)
        last = _last(view, [*(event.subject for event in appended), *guards])
        commit = Commit([], {subject: number + 1 for subject, number in last.items()})
        for number, event in enumerate(appended):
            last[event.subject] += 1
            commit.rows.append(_row(event, f"{attempt}-{number}", last[event.subject]))
        return commit

    tables.events.append(commit, operation)
    return appended


def _last(view: View, subjects: Sequence[str]) -> dict[str, int]:
    found = view.query(
        "select subject, max(seq) as seq from events where list_contains($subjects, subject) group by subject",
        {"subjects": list(subjects)},
    )
    return dict.fromkeys(subjects, 0) | {row["subject"]: row["seq"] for row in found}


def _row(event: Event, event_id: str, seq: int) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "happened_at": datetime.now(UTC),
        "author": author(),
        "kind": event.kind,
        "style_id": event.style_id,
        "version": event.version,
        "name": event.name,
        "text": event.text,
        "subject": event.subject,
        "seq": seq,
    }


@lru_cache
def author() -> str:
    """``user@host`` of this process, as far as the system tells."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may know no name for its user
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
