"""A job's log lines, on stderr: as text, or as a JSON object a line that names the run."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from cluster.commandline.redact import redact

LogFormat = Literal["text", "json"]

_OWN = ("catalog", "cluster", "jobs", "osasis")
"""Packages that log what happens, not errors alone."""

_run: dict[str, str] = {}


def of_run(job: str, run_id: str) -> None:
    """Name the run that this process is of, from now on."""
    _run.update(job=job, run_id=run_id)


def set_up(log_format: LogFormat) -> None:
    """Take over this process's log lines."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Stderr)]:
        root.removeHandler(handler)
    handler = _Stderr()
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root.addHandler(handler)
    for name in _OWN:
        logging.getLogger(name).setLevel(logging.INFO)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at the time: a progress display replaces it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there
        return sys.stderr


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return str(redact(super().format(record)))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **_run,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(redact(line), ensure_ascii=False)
