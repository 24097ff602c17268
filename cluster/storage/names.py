"""URIs of storage and names of files in it: which are accepted, and in what form."""

import os
import re
from urllib.parse import unquote, urlsplit

from cluster.storage.types import TEMP_PREFIX, StorageRefused


def check_name(name: str) -> str:
    """``name`` itself, if a file of this name can be written: a relative path that stays below where it is put.

    Raises:
        StorageRefused: empty, absolute, with a backslash (S3 servers differ on it) or NUL, with an empty, ``.`` or
            ``..`` part, or a temporary name.
    """
    for part in name.split("/"):
        if part in ("", ".", "..") or "\0" in part or "\\" in part or part.startswith(TEMP_PREFIX):
            raise StorageRefused(
                f"{name!r} cannot name a file in storage: use a relative path such as 'a/b.png', "
                "without backslashes and without empty, '.' or '..' parts"
            )
    return name


def check_readable_name(name: str, *, key: bool) -> str:
    """``name`` itself, if a file of this name can be read; wider than :func:`check_name`.

    Others' files have backslashes in their names, and S3 keys (``key``) have empty parts: ``a//b.png``.

    Raises:
        StorageRefused: empty, or with NUL, a ``.`` or ``..`` part (HTTP clients resolve those), a temporary name, or,
            unless it is a key, an empty part.
    """
    for part in name.split("/"):
        if (not part and not key) or part in (".", "..") or "\0" in part or part.startswith(TEMP_PREFIX):
            raise StorageRefused(
                f"{name!r} cannot name a file in storage: use a relative path such as 'a/b.png', "
                "without '.' or '..' parts"
            )
    return name


def check_expanded(uri: str) -> str:
    """``uri`` itself, unless it means what only a shell could tell, or is a URI mistyped: either would name a folder.

    Raises:
        StorageRefused: it begins with a variable (``$HOME/x``), with ``~`` and a user that is not known, or with a
            scheme without its slashes.
    """
    if re.match(r"\$\{?[A-Za-z_]", uri):
        raise StorageRefused(f"{uri!r} begins with a variable, which only a shell expands: write the path out")
    if uri.startswith("~") and os.path.expanduser(uri).startswith("~"):
        raise StorageRefused(f"{uri!r} names the home of a user that is not known here: write the path out")
    if found := re.match(r"([a-z][a-z0-9]+):/{0,2}(?=[^/])", uri):
        scheme = found[1]
        if not found[0].endswith("://") and scheme in ("s3", "file"):
            raise StorageRefused(f"{uri!r} is neither a path nor a URI: {scheme} takes two slashes, {scheme}://…")
        if found[0] == "file://" and not uri.startswith("file://localhost/"):
            raise StorageRefused(
                f"{uri!r} names another machine: give file:/// and an absolute path, or the path alone"
            )
    return uri


def check_place(uri: str) -> str:
    """As :func:`check_expanded`, for a place that is written to: a variable within it (``/data/$USER/x``) is refused
    too, for a folder of that name would be made.
    """
    if found := re.search(r"(?<=/)\$(\{\w+\}|[A-Za-z_]\w*)", check_expanded(uri)):
        raise StorageRefused(f"{uri!r} holds the variable {found[0]}, which only a shell expands: write the path out")
    return uri


def normalize_uri(uri: str | os.PathLike[str]) -> str:
    """Absolute local path, or ``s3://bucket/prefix`` without a trailing slash; ``~`` is expanded. Opens nothing.

    Raises:
        StorageRefused: another scheme, no bucket, ``.`` or ``..`` in a prefix, credentials in the URI, or as in
            :func:`check_expanded`.
    """
    text = check_expanded(os.fspath(uri))
    scheme, found, rest = text.partition("://")
    if not found:
        if not text or "\0" in text:
            raise StorageRefused(f"{text!r} is not a path: give a folder or s3://bucket/prefix")
        try:
            return os.path.abspath(os.path.expanduser(text))
        except FileNotFoundError:
            raise StorageRefused(
                f"{text!r} is relative, and the current folder does not exist: cd to another"
            ) from None
    if scheme == "file":
        return os.path.abspath(unquote(urlsplit(text).path) or "/")
    if scheme != "s3":
        raise StorageRefused(f"{text!r}: {scheme}:// is not supported, give a local path or s3://bucket/prefix")
    bucket, _, prefix = rest.rstrip("/").partition("/")
    if "@" in bucket or ":" in bucket:
        raise StorageRefused("an s3:// URI holds no credentials or port: use AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL")
    if not bucket:
        raise StorageRefused(f"{text!r} names no bucket: give s3://bucket/prefix")
    return f"s3://{bucket}/{check_readable_name(prefix, key=True)}" if prefix else f"s3://{bucket}"
