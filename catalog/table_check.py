"""Which files of a Delta table are missing or damaged, looked at one by one, also where the table cannot be opened."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from catalog.delta import open_table
from catalog.errors import DamagedTable
from cluster.storage import FileInfo, Storage

_COMMIT = re.compile(r"[0-9]{20}\.json")


@dataclass(frozen=True)
class TableDamage:
    """A file of a table that is not as it should be."""

    kind: Literal["table-missing", "table-damaged"]
    uri: str
    message: str


def table_damage(storage: Storage, name: str, remedy: str) -> Iterator[TableDamage]:
    """What is wrong with the table ``name`` below a storage; nothing where nobody has written.

    Args:
        remedy: what else can be done where no copy of a file is left.

    Raises:
        StorageError: storage does not answer.
    """
    found = list(_log_damage(storage, name, remedy))
    yield from found
    try:
        table = open_table(storage, name)
    except DamagedTable as error:
        if not found:
            yield TableDamage("table-damaged", storage.child_uri(f"{name}/_delta_log"), f"{error}; {_mend(remedy)}")
        return
    files = {info.name: info.size for info in storage.walk(name)} if table else {}
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist() if table else []
    for row in actions:
        uri, size = storage.child_uri(f"{name}/{row['path']}"), files.get(row["path"])
        if size is None:
            yield TableDamage("table-missing", uri, f"there is no such file; {_mend(remedy)}")
        elif size != row["size_bytes"]:
            yield TableDamage("table-damaged", uri, f"has {size} bytes, not {row['size_bytes']}; {_mend(remedy)}")
        elif not _is_parquet(storage, f"{name}/{row['path']}"):
            yield TableDamage("table-damaged", uri, f"is not a Parquet file; {_mend(remedy)}")


def _mend(remedy: str) -> str:
    return f"restore it from a backup or an earlier object version; {remedy}"


def _log_damage(storage: Storage, name: str, remedy: str) -> Iterator[TableDamage]:
    log = f"{name}/_delta_log"
    infos: dict[str, FileInfo] = {info.name: info for info in storage.walk(log, recursive=False)}
    commits = sorted(info for info in infos if _COMMIT.fullmatch(info))
    checkpointed = max((int(info[:20]) for info in infos if ".checkpoint." in info and info[:20].isdigit()), default=-1)
    for commit in commits:
        problem = _commit_problem(storage.read_bytes(f"{log}/{commit}"))
        if problem:
            yield TableDamage("table-damaged", storage.child_uri(f"{log}/{commit}"), f"{problem}; {_mend(remedy)}")
    have = {int(commit[:20]) for commit in commits}
    for number in range(checkpointed + 1, max(have, default=-1)):
        if number not in have:
            uri = storage.child_uri(f"{log}/{number:020}.json")
            yield TableDamage("table-missing", uri, f"there is no such file; {_mend(remedy)}")


def _commit_problem(content: bytes) -> str:
    if not content.strip():
        return "is empty"
    try:
        for line in content.splitlines():
            json.loads(line)
    except ValueError:
        return "is cut short or not a commit"
    return ""


def _is_parquet(storage: Storage, name: str) -> bool:
    data = storage.read_bytes(name)
    return data[:4] == data[-4:] == b"PAR1"
