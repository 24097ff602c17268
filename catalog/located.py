"""How the tables name files: relative to the storage where they are below it, so that it can be moved or mirrored.

Rows of before this rule hold absolute URIs. Those of the folders of trained styles (``…/checkpoints/<style>/<key>/…``)
are taken for files of the storage that the table is in, for no job ever wrote elsewhere.
"""

import re

from cluster.storage import Storage

_VERBATIM = "./"
"""Stands before what would otherwise be taken for a file below the storage, and is none."""


def inside(storage: Storage, uri: str | None) -> str | None:
    """The name of a file below the storage; None for one elsewhere, which the catalog never touches."""
    prefix = f"{storage.uri.rstrip('/')}/"
    return uri.removeprefix(prefix) if uri and uri.startswith(prefix) and "/../" not in uri else None


def to_stored(storage: Storage, style_id: str, uri: str) -> str:
    """As the tables keep a URI; :func:`located_sql` turns it back, wherever the storage is then."""
    name = inside(storage, uri)
    if name and "://" not in name and not name.startswith(_VERBATIM):
        return name
    if "://" not in uri and not uri.startswith("/"):
        return _VERBATIM + uri
    looks_ours = re.search(f"/checkpoints/{re.escape(style_id)}/[^/]+/[^/]+$", uri)
    return _VERBATIM + uri if looks_ours else uri


def located_sql(storage: Storage) -> str:
    """A DuckDB macro ``located(uri, style_id)``: the URI of a file that a table names."""
    root = storage.uri.rstrip("/").replace("'", "''")
    return f"""
create temp macro located(uri, style_id) as case
    when starts_with(uri, '{_VERBATIM}') then uri[{len(_VERBATIM) + 1}:]
    when not starts_with(uri, '/') and not contains(uri, '://') then '{root}/' || uri
    when regexp_matches(uri, '/checkpoints/' || style_id || '/[^/]+/[^/]+$')
        then '{root}/' || regexp_extract(uri, 'checkpoints/[^/]+/[^/]+/[^/]+$')
    else uri end;
"""
