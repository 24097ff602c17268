"""What a selection means now: exact versions."""

from collections.abc import Sequence
from difflib import get_close_matches

from catalog.changes import aliases_of
from catalog.errors import UnknownStyle
from catalog.filters import Condition
from catalog.selector import Style, Tagged, Term
from catalog.view import Question, VersionKey, View

_KEYS = ("style_id", "version")


def resolve(view: View, terms: Sequence[Term], *, deleted: bool = False) -> list[VersionKey]:
    """(style, version) of every term, each once, in the order selected.

    ``deleted``: of hidden versions instead; then a style without a version means all its hidden ones.

    Raises:
        UnknownStyle: with all that select nothing.
    """
    chosen: dict[VersionKey, None] = {}
    unknown: list[str] = []
    for term in terms:
        try:
            chosen |= dict.fromkeys(_hidden(view, term) if deleted else _select(view, term))
        except UnknownStyle as error:
            unknown.append(str(error))
    if unknown:
        raise UnknownStyle("; ".join(unknown))
    return [*chosen]


def _select(view: View, term: Term) -> list[VersionKey]:
    if isinstance(term, Style):
        return [_version(view, term)]
    if isinstance(term, Tagged):
        tagged = _pairs(view, Question(_KEYS, [Condition("tags", "=", term.tag)], latest=True))
        if not tagged:
            known = {tag for row in view.ask(Question(("tags",), latest=True, sort=())) for tag in row["tags"]}
            raise UnknownStyle(f"no style is tagged {term.tag!r}{_near(term.tag, known)}")
        return tagged
    return _pairs(view, Question(_KEYS, latest=True))


def _version(view: View, term: Style) -> VersionKey:
    style_id = term.style_id
    rows = [*view.ask(Question((*_KEYS, "status"), deleted=True, style_ids=[style_id]))]
    ready = [row["version"] for row in rows if row["status"] == "ready"]
    if not ready:
        if rows:
            raise UnknownStyle(f"every version of {style_id!r} is deleted; restore {style_id}@{rows[-1]['version']}")
        raise UnknownStyle(f"no style {style_id!r}{_near(style_id, _styles(view))}")
    version = term.version
    if term.alias is not None:
        pointed = {alias.alias: alias.version for alias in aliases_of(view, style_id)}
        if term.alias not in pointed:
            raise UnknownStyle(f"{style_id} has no alias {term.alias!r}{_near(term.alias, {*pointed})}")
        version = pointed[term.alias]
    if version is None:
        return style_id, ready[-1]
    if version not in ready:
        status = next((row["status"] for row in rows if row["version"] == version), None)
        known = f"it is {status}" if status else f"there are 1 to {rows[-1]['version']}"
        raise UnknownStyle(f"{style_id} has no version {version} ({known})")
    return style_id, version


def _hidden(view: View, term: Term) -> list[VersionKey]:
    style_ids = [term.style_id] if isinstance(term, Style) else None
    where = [Condition("status", "=", "deleted")]
    if isinstance(term, Tagged):
        where.append(Condition("tags", "=", term.tag))
    if isinstance(term, Style) and term.alias is not None:
        raise UnknownStyle(f"{term}: a deleted version has no alias; name it by its number")
    if isinstance(term, Style) and term.version is not None:
        where = [Condition("version", "=", term.version)]
    found = _pairs(view, Question(_KEYS, where, deleted=True, style_ids=style_ids))
    if not found:
        raise UnknownStyle(f"{term}: nothing is deleted there")
    return found


def _pairs(view: View, question: Question) -> list[VersionKey]:
    return [(row["style_id"], row["version"]) for row in view.ask(question)]


def _styles(view: View) -> set[str]:
    return {row["style_id"] for row in view.ask(Question(("style_id",), sort=()))}


def _near(name: str, names: set[str]) -> str:
    near = get_close_matches(name, sorted(names), n=3, cutoff=0.5) or sorted(names)[:5]
    return f" (there are: {', '.join(near)})" if near else ""
